"""Tune's manager of actors and the errors that mean a lost process: what Ray's own does, and what ours does."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.air.execution._internal.tracked_actor import TrackedActor
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    WorkerCrashedError,
)
from ray.tune.execution import tune_controller

from orchestrator.search.tune_errors import error_line, loss_of, losses_known_to_tune
from tests.support.losses import lose_process

CONTROLLER: Any = tune_controller
LOST = [OutOfMemoryError("the memory was full"), NodeDiedError("gone")]


def seen_of(kind: type[RayActorManager], error: Exception) -> list[Exception]:
    """Return the errors that a manager tells Tune of when a task of an actor ends with an error."""
    seen: list[Exception] = []

    def note(_: Any, error: Exception) -> None:
        seen.append(error)

    resources: Any = SimpleNamespace(free_resources=lambda acquired_resource: None)
    manager: Any = kind(resource_manager=resources)
    actor = TrackedActor(0, on_error=note)
    manager._live_actors_to_ray_actors_resources[actor] = (None, None)
    manager._actor_task_failed(TrackedActorTask(actor, on_error=note), error)
    return seen


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
def test_rays_own_ends_the_search_at_them(error: Exception) -> None:
    """If this fails, Ray knows the error now, and ours may be removed."""
    with pytest.raises(RuntimeError, match="Caught unexpected exception"):
        seen_of(RayActorManager, error)


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
def test_ours_tells_tune_of_a_lost_actor_and_its_task(error: Exception) -> None:
    with losses_known_to_tune():
        seen = seen_of(CONTROLLER.RayActorManager, error)
    assert [type(each) for each in seen] == [RayActorError, RayActorError]
    assert str(seen[0]) == str(error)
    assert CONTROLLER.RayActorManager is RayActorManager


def test_other_errors_are_left_as_they_are() -> None:
    with losses_known_to_tune(), pytest.raises(RuntimeError, match="Caught unexpected exception"):
        seen_of(CONTROLLER.RayActorManager, LocalRayletDiedError())


def test_a_trials_loss_is_read_from_what_tune_wrote(tmp_path: Path) -> None:
    trial = SimpleNamespace(error_file=None, pickled_error_file=None)
    assert loss_of(trial) is None
    lose_process(trial, tmp_path)
    assert isinstance(loss_of(trial), WorkerCrashedError)


def test_a_loss_before_another_error_is_not_that_trials_end(tmp_path: Path) -> None:
    trial = SimpleNamespace(error_file=None, pickled_error_file=None)
    lose_process(trial, tmp_path)
    with (tmp_path / "error.txt").open("a") as file:
        file.write("Failure # 2 (occurred at one)\nTraceback\nTuneError: the study is closed\n")
    assert loss_of(trial) is None and error_line(trial) == "TuneError: the study is closed"
