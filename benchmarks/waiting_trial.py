"""A trial that waits, reports and draws: for benchmarks of the orchestrator itself."""

import time
from typing import Any

from trainables.workers.rung import RungResult

__all__ = ["waiting_trial"]


def waiting_trial(rung_s: float, rungs: int, ipc: int) -> Any:
    """Return a trainable without work; a local class, so that it is pickled by value.

    Args:
        rung_s: Seconds that it sleeps for a rung.
        rungs: Number of its rungs.
        ipc: Images per class of the set that it draws at every rung, 10 classes of 32 × 32 pixels; 0: it draws none.
    """
    import torch
    from ray import tune

    from trainables.workers.pictures import draw_pictures

    class WaitingTrial(tune.Trainable):
        """A trial without work."""

        def setup(self, config: dict[str, Any], work: None) -> None:  # type: ignore[override]
            self.reset_config(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.rung = 0
            self.level = (new_config["trial_number"] * 0.6180339887) % 1.0  # spread evenly: late trials may win
            return True

        def step(self) -> dict[str, Any]:
            time.sleep(rung_s)
            self.rung += 1
            report = RungResult(
                iteration=self.rung, validation_accuracy=self.level, matching_loss=1.0, alpha=0.01, skip_rate=0.0,
                image_displacement=0.1, seconds_per_iteration=rung_s, trial_seconds=self.rung * rung_s,
                done=self.rung >= rungs,
            ).to_report()  # fmt: skip
            if ipc:
                images = torch.rand(10 * ipc, 3, 32, 32)
                draw_pictures(images, [f"class {number}" for number in range(10)]).add_to(report)
            return report

    return WaitingTrial
