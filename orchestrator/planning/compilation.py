"""Whether compiling the inner step saves time: decided from the estimated work, once a sweep, and reported."""

from orchestrator.cluster.resources import Resources
from orchestrator.planning.devices import COMPILATION_SAVES
from orchestrator.planning.plan import make_plan
from orchestrator.state.settings import SweepSettings

__all__ = ["decide_compilation", "is_compiled_always"]

COMPILATION_SECONDS = 60
"""Seconds of the first compilation on a node, during which all its workers wait."""
WORTH = 2
"""Least ratio of time saved to compilation time: the work is an estimate, and pruning reduces it."""


def decide_compilation(settings: SweepSettings, resources: Resources) -> tuple[bool, str]:
    """Return whether the trials compile their inner steps, and why, in a line.

    The decision depends only on the settings and the cluster, never on a clock, so the same sweep decides the same.
    """
    option = settings.fixed["compile"]
    if option != "auto":
        return option == "on", f"Compilation {option}, as set"
    if is_compiled_always(settings):
        return True, "Compilation on: uncompiled, bf16 moves twice the bytes of fp32"
    if settings.fixed["network"] != "convnet":
        return False, "Compilation off: only the ConvNet can be compiled"
    if resources.device == "cuda":
        return False, "Compilation off: it has not been measured on a GPU; --set compile=on tries it"
    plan = make_plan(settings)
    seconds = plan.core_s(plan.matching) / resources.workers(settings.concurrent)
    saved = COMPILATION_SAVES * seconds
    pays = saved > WORTH * COMPILATION_SECONDS
    return pays, (
        f"Compilation {'on' if pays else 'off'}: it would save each worker about {saved:,.0f} s of {seconds:,.0f} s of "
        f"matching, and takes about {COMPILATION_SECONDS} s"
    )


def is_compiled_always(settings: SweepSettings) -> bool:
    """Return whether every distillation is compiled, also one of a comparison, which are not where it only saves time.

    The written-out network of bf16 moves twice the bytes of the library's fp32 unless it is compiled.
    """
    return bool(settings.fixed["precision"] == "bf16")
