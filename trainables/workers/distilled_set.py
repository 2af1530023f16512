"""A complete distillation by one worker, for comparisons, which stop no distillation early."""

from collections.abc import Mapping
from typing import Any

from trainables.distillation.learned_images import FIRST_UPDATES
from trainables.errors import ConfigError
from trainables.storage.checkpoints import read_checkpoint, write_checkpoint
from trainables.storage.writing_pace import WritingPace
from trainables.workers.iteration import iterate
from trainables.workers.process import prepare_process
from trainables.workers.workbench import TrialWork, Workbench

__all__ = ["distil_set"]


def distil_set(work: TrialWork, own: Mapping[str, Any], place: str) -> str:
    """Distil one set and store it at a path or URI, unless it is already there; return the path or URI.

    A distillation that another process has interrupted is resumed, bit for bit.

    Args:
        work: Settings that all distillations share; nothing is validated.
        own: The settings in which the set differs from others, as in `Workbench.distiller`, including `variant`.
        place: Path or URI of the set: `images`, normalised float32 [ipc·C, ch, H, W] in default order, `alpha`, and
            `skipped`, the number of skipped iterations.

    Raises:
        ConfigError: The settings are invalid, or need more memory than the GPU has, or every iteration or each of the
            first was skipped.
    """
    if read_checkpoint(place) is not None:
        return place
    prepare_process(work.device, work.arithmetic)
    bench, unfinished, pace = Workbench(work), f"{place}-under-way", WritingPace()
    distiller = bench.distiller(own)
    config, state = distiller.config, read_checkpoint(unfinished)
    if state is not None:
        distiller.load_state_dict(state)
    while distiller.iteration < config.iterations and not distiller.skipped == distiller.iteration >= FIRST_UPDATES:
        iterate(bench, distiller)
        if pace.due():
            with pace.measured():
                write_checkpoint(unfinished, distiller.state_dict())
    if distiller.skipped == distiller.iteration:
        raise ConfigError(
            f"a distillation must move its images, and {own['variant']} at ipc {config.ipc} skipped all of its "
            f"{distiller.iteration} iterations, with losses above max_matching_loss {config.max_matching_loss:g} or "
            f"not finite, and α = {distiller.alpha:.3g}; lower lr_pixel {config.lr_pixel:g}, or set alpha_init=auto"
        )
    result = {"images": distiller.result_images, "alpha": distiller.alpha, "skipped": distiller.skipped}
    write_checkpoint(place, result)
    return place
