"""A distillation from its beginning to its end by one worker, for comparisons, which stop none early."""

from collections.abc import Mapping
from typing import Any

import torch

from trainables.checkpoints import read_checkpoint, write_checkpoint
from trainables.errors import ConfigError
from trainables.pace import WritingPace
from trainables.workbench import TrialWork, Workbench

__all__ = ["distil_set"]


def distil_set(work: TrialWork, config: Mapping[str, Any], place: str) -> str:
    """Distil with one setting and keep the set at a path or URI, unless it is there, and return that.

    What a process before has left under way is gone on with, bit for bit.

    Args:
        work: What all distillations share; their validation is not done.
        config: The setting, as for `Workbench.distiller`.
        place: Where it is kept: `images`, normalised float32 [ipc·C, ch, H, W] in default order, `alpha`, and how many
            iterations were `skipped`.

    Raises:
        ConfigError: The setting cannot work, or has learned nothing: every iteration was skipped.
    """
    if read_checkpoint(place) is not None:
        return place
    if work.device == "cpu":
        torch.set_num_threads(1)  # a worker has one core
    distiller, under_way, pace = Workbench(work).distiller(config), f"{place}-under-way", WritingPace()
    state = read_checkpoint(under_way)
    if state is not None:
        distiller.load_state_dict(state)
    while distiller.iteration < config["iterations"]:
        distiller.step()
        if pace.due():
            with pace.measured():
                write_checkpoint(under_way, distiller.state_dict())
    if distiller.skipped == distiller.iteration:
        raise ConfigError(
            f"a distillation must move its images, and {config['variant']} at ipc {config['ipc']} skipped all of its "
            f"{distiller.iteration} iterations, with losses above max_matching_loss {config['max_matching_loss']:g} or "
            f"no numbers; lower lr_pixel {config['lr_pixel']:g} or alpha_init {config['alpha_init']:g}"
        )
    done = {"images": distiller.result_images, "alpha": distiller.alpha, "skipped": distiller.skipped}
    write_checkpoint(place, done)
    return place
