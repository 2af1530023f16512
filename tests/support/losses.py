"""Lost processes in tests: the patience of a stage, and a trial of Tune whose process was lost."""

from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray.exceptions import WorkerCrashedError
from rich.console import Console

from orchestrator.cluster.losses import Patience

__all__ = ["lose_process", "patience"]


def patience(console: Console | None = None, seconds: float = 60.0) -> Patience:
    """Build a patience; without a console its lines are not shown."""
    return Patience(seconds, console or Console(quiet=True), "run the same command again")


def lose_process(trial: Any, folder: Path) -> None:
    """Write into a folder what Tune writes when a trial's process was lost."""
    error = WorkerCrashedError()
    (folder / "error.pkl").write_bytes(cloudpickle.dumps(error))
    (folder / "error.txt").write_text(f"Failure # 1 (occurred at noon)\n{error}\n")
    trial.pickled_error_file, trial.error_file = str(folder / "error.pkl"), str(folder / "error.txt")
