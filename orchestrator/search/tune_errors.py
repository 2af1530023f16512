"""What Ray Tune says of a trial that ended with an error. docs/ray.md, "Lost processes"."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import RayActorError, RayTaskError
from ray.tune.execution import tune_controller

from orchestrator.cluster.losses import is_lost

__all__ = ["error_line", "loss_of", "losses_known_to_tune"]


def error_line(trial: Any) -> str:
    """Return the last line of a failed Tune trial's traceback: the exception and its message.

    It is read from Tune's local copy: the copy in the storage is written after the callbacks.
    """
    lines = [line for line in _error_text(trial).splitlines() if line.strip()]
    return lines[-1].strip() if lines else "the trial's process died without a traceback"


def loss_of(trial: Any) -> Exception | None:
    """Return the error of a Tune trial if it means that the trial's process was lost; None if its code raised it."""
    path = Path(trial.pickled_error_file) if trial.pickled_error_file else None
    if path is None or not path.exists():
        return None
    error: Exception = cloudpickle.loads(path.read_bytes())
    # Tune keeps the pickle of an earlier error if it cannot pickle the last one.
    last = _error_text(trial).rstrip().endswith(str(error).rstrip())
    return error if last and is_lost(error) else None


@contextmanager
def losses_known_to_tune() -> Iterator[None]:
    """Let Tune know every error that means a lost process: by itself it ends the search with a traceback at some."""
    controller: Any = tune_controller  # its module does not export the name
    before, controller.RayActorManager = controller.RayActorManager, _ActorManager
    try:
        yield
    finally:
        controller.RayActorManager = before


class _ActorManager(RayActorManager):
    """Tune's manager of actors, which knows only `RayActorError` as the error of a lost actor."""

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        super()._actor_task_failed(tracked_actor_task, _as_actor_error(exception))

    def _actor_start_failed(self, tracked_actor: Any, exception: Exception) -> None:
        super()._actor_start_failed(tracked_actor, _as_actor_error(exception))


def _as_actor_error(error: Exception) -> Exception:
    """Return an error of Ray that means a lost process as the one that Tune knows."""
    if isinstance(error, RayActorError | RayTaskError) or not is_lost(error):
        return error
    return RayActorError(error_msg=str(error))


def _error_text(trial: Any) -> str:
    path = Path(trial.error_file) if trial.error_file else None
    return path.read_text(encoding="utf-8", errors="replace") if path and path.exists() else ""
