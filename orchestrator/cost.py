"""What a sweep cost: by the clock, in hours of CPU cores and GPUs, and against a search that stops no trial early."""

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.tables import markdown_table
from orchestrator.trials import TrialRecord

__all__ = ["cost_parts"]


def cost_parts(iterations: int, result: Mapping[str, Any], records: Sequence[TrialRecord]) -> list[str]:
    """Return what a report says of the cost.

    Args:
        iterations: Of a trial that is not stopped.
        result: result.json's content.
        records: The search's trials.
    """
    seconds, workers, experts = result["seconds"], result["workers"], result["experts"]
    searched = sum(record.seconds for record in records)
    held = {
        "experts": seconds["experts"] * workers["count"],
        "search": searched,
        "finals": seconds["finals"] * workers["count"],
    }
    rows = [
        [stage, f"{seconds[stage]:.0f} s", *_hours(taken, workers["gpus_each"])] for stage, taken in held.items()
    ]  # fmt: skip
    rows.append(["all", f"{seconds['total']:.0f} s", *_hours(sum(held.values()), workers["gpus_each"])])
    told = [record for record in records if record.iterations]
    sentence = "No trial was stopped early."
    if any(record.iterations < iterations for record in told):
        whole = sum(record.seconds * iterations / record.iterations for record in told)
        cores, gpus = _hours(whole, workers["gpus_each"])
        sentence = (
            f"Had no trial been stopped early, the search would have taken about {cores} CPU-core-hours"
            f"{f' and {gpus} GPU-hours' if workers['gpus_each'] else ''} of its workers, each trial at its own pace: "
            f"{whole / searched:.1f} times as much."
        )
    return [
        "## Cost",
        markdown_table(["stage", "by the clock", "CPU-core-hours", "GPU-hours"], rows),
        f"Workers at once: {workers['count']}, a CPU core each{_gpus(workers['gpus_each'])}. The search's hours are "
        "those that its trials ran; of the other stages what all workers were held for, busy or not. Experts: "
        f"{experts['trained']} trained, {experts['reused']} reused. {sentence}",
    ]


def _hours(seconds: float, gpus: float) -> list[str]:
    """Return CPU-core-hours and GPU-hours of workers that were held for so many seconds together."""
    return [f"{seconds / 3600:.3g}", f"{gpus * seconds / 3600:.3g}" if gpus else "–"]


def _gpus(each: float) -> str:
    return f" and {each:g} of a GPU" if each else ""
