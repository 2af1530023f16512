"""Tasks in a real Ray: in order of need, at most so many at once, and again if their process is lost."""

import io
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.cluster.connection import connected
from orchestrator.cluster.resources import Resources
from orchestrator.cluster.tasks import Task, run_tasks
from orchestrator.cluster.worker_code import remote_task
from orchestrator.errors import ClusterError
from tests.support.losses import patience
from trainables.errors import ConfigError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def resources() -> Iterator[Resources]:
    with connected("local", None) as resources:
        yield resources


class Run:
    """A run of tasks, what it said and in which order its tasks were done."""

    def __init__(self, resources: Resources, patience_s: float = 60.0) -> None:
        self._resources, self._said = resources, io.StringIO()
        self.patience = patience(Console(file=self._said), patience_s)
        self.done: list[tuple[Any, Any]] = []

    def __call__(self, tasks: dict[Any, Task], limit: int | None = None) -> dict[Any, Any]:
        def record(key: Any, result: Any) -> None:
            self.done.append((key, result))

        run_tasks(tasks, self._resources, self.patience, record, limit=limit)
        return dict(self.done)

    @property
    def lines(self) -> list[str]:
        return self._said.getvalue().splitlines()


@pytest.fixture
def run(resources: Resources) -> Run:
    return Run(resources)


def task(resources: Resources, function: Any, *arguments: Any, needs: tuple[Any, ...] = ()) -> Task:
    remote = remote_task(function, resources)
    return Task(function.__name__, partial(remote.remote, *arguments), needs)


def dying(times: int, folder: Path) -> int:
    """Return the number of the attempt; the first ones end their process."""
    attempt = len(list(folder.iterdir())) + 1
    (folder / str(attempt)).touch()
    if attempt <= times:
        os._exit(1)
    return attempt


def test_a_task_gets_the_results_of_those_that_it_needs(resources: Resources, run: Run) -> None:
    def add(*numbers: int) -> int:
        return sum(numbers)

    results = run(
        {
            "sum": task(resources, add, 100, needs=("one", "ten")),
            "one": task(resources, add, 1),
            "ten": task(resources, add, 10),
            "more": task(resources, add, 1000, needs=("sum",)),
        }
    )
    assert results == {"one": 1, "ten": 10, "sum": 111, "more": 1111}
    assert [key for key, _ in run.done][2:] == ["sum", "more"]
    assert run.lines == []


def test_a_lost_task_is_started_again_at_once_and_then_after_a_pause(
    resources: Resources, run: Run, tmp_path: Path
) -> None:
    assert run({"a": task(resources, dying, 2, tmp_path)}) == {"a": 3}
    assert run.lines == [
        "The process of dying was lost: it was killed, or it crashed; it is started again at once",
        "The process of dying was lost: it was killed, or it crashed; it is started again in 1 s"
        + (", at most 1 at a time" if resources.room > 1 else ""),
    ]


def test_the_others_go_on_meanwhile_and_none_is_done_twice(resources: Resources, run: Run, tmp_path: Path) -> None:
    def number(which: int) -> int:
        return which

    tasks: dict[Any, Task] = {which: task(resources, number, which) for which in range(6)}
    assert run({"a": task(resources, dying, 1, tmp_path), **tasks}) == {"a": 2, 0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5}
    assert len(run.done) == 7


def test_an_error_of_its_own_is_raised_as_it_is_and_not_tried_again(
    resources: Resources, run: Run, tmp_path: Path
) -> None:
    def refuse(folder: Path) -> None:
        (folder / str(len(list(folder.iterdir())))).touch()
        raise ConfigError("ipc is at least 1")

    with pytest.raises(ConfigError, match="ipc is at least 1"):
        run({"a": task(resources, refuse, tmp_path)})
    assert len(list(tmp_path.iterdir())) == 1 and run.lines == []


def test_no_more_than_the_limit_at_once(resources: Resources, run: Run, tmp_path: Path) -> None:
    def together(folder: Path, name: str) -> int:
        mine = folder / name
        mine.touch()
        time.sleep(0.1)
        found = len(list(folder.iterdir()))
        mine.unlink()
        return found

    assert set(run({n: task(resources, together, tmp_path, str(n)) for n in range(5)}, limit=1).values()) == {1}


def test_one_that_is_lost_for_longer_than_the_patience_ends_the_stage(resources: Resources, tmp_path: Path) -> None:
    run = Run(resources, patience_s=1.0)
    with pytest.raises(
        ClusterError, match=r"longer than --patience 1 s: the process of dying .*, then run the same command again$"
    ):
        run({"a": task(resources, dying, 99, tmp_path)})
    assert len(list(tmp_path.iterdir())) == 5
    assert len(run.lines) == 5
