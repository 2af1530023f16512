"""Expert actors that are lost, in a real Ray: killed from outside, or ended by what they do."""

import io
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import trainables.workers.expert
from orchestrator.cluster.connection import connected
from orchestrator.cluster.resources import Resources
from orchestrator.errors import ClusterError
from orchestrator.stages.experts import ensure_experts
from orchestrator.stages.inputs import Inputs, prepare_inputs
from orchestrator.state.space import load_space
from orchestrator.state.workdir import Workdir
from tests.support.builders import sweep_settings
from tests.support.losses import patience

pytestmark = pytest.mark.slow

EXPERTS, EPOCHS = 2, 25
ACTOR = trainables.workers.expert.ExpertActor


@pytest.fixture(scope="module")
def resources() -> Iterator[Resources]:
    with connected("local", None) as resources:
        yield resources


@dataclass
class Stage:
    """An expert stage in a workdir of its own."""

    inputs: Inputs
    said: io.StringIO

    def run(self, resources: Resources, patience_s: float = 60.0) -> Any:
        console = Console(file=self.said, width=1000)
        return ensure_experts(self.inputs, resources, console, patience(console, patience_s))

    def rows(self, expert: int) -> int:
        """Snapshots on disk."""
        entry = self.inputs.store.certified(expert, more_than=0)
        return entry.rows if entry else 0

    def began_again(self) -> list[tuple[int, int, int]]:
        """Expert, epoch that it went on from, and epoch that it had got to, of all that were lost."""
        found = re.findall(r"expert (\d+) from epoch (\d+) of (\d+)", self.said.getvalue())
        return [(int(expert), int(start), int(end)) for expert, start, end in found]


def stage(workdir: Path) -> Stage:
    said = io.StringIO()
    space = load_space("digits", {"expert_momentum": 0.9}, expert_count=EXPERTS)
    settings = sweep_settings(space=space, name="experts", workdir=Workdir(workdir))
    return Stage(prepare_inputs(settings, Console(file=said)), said)


@pytest.fixture(scope="module")
def undisturbed(resources: Resources, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    run = stage(tmp_path_factory.mktemp("undisturbed"))
    run.run(resources)
    return run


def assert_same_bits(stage: Stage, undisturbed: Stage) -> None:
    """The files are equal to the last bit: snapshots, losses, momentum buffers, and their checksums."""
    assert stage.inputs.store.read() == undisturbed.inputs.store.read()
    assert stage.inputs.store.corrupt(range(EXPERTS)) == {}
    for expert in range(EXPERTS):
        path = stage.inputs.store.path(expert)
        assert path.read_bytes() == undisturbed.inputs.store.path(expert).read_bytes()
        assert stage.inputs.store.load(expert).velocity is not None
    assert [path.name for path in stage.inputs.store.folder.glob(".*.partial")] == []


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[type], None]:
    """Put a subclass of the expert actor in its place."""
    return lambda subclass: monkeypatch.setattr(trainables.workers.expert, "ExpertActor", subclass)


def noting(folder: Path) -> type:
    """An expert actor that notes in files who trains what, and every epoch that is trained; it writes each at once."""

    class Noting(ACTOR):
        def begin(self, experts: Any, extendable: Any) -> Any:
            trainables.storage.writing_pace.WRITING_SHARE = 1e9  # in the actor's own process
            for expert in experts:
                (folder / f"trainer-{expert}").write_text(str(os.getpid()))
            return super().begin(experts, extendable)

        def train_epoch(self) -> Any:
            with (folder / "epochs").open("a") as file:
                file.write(f"{len(self._group)}\n")
            return super().train_epoch()

    return Noting


def test_an_actor_that_is_killed_costs_some_epochs_and_no_bit(
    resources: Resources, undisturbed: Stage, actors: Callable[[type], None], tmp_path: Path
) -> None:
    actors(noting(tmp_path))
    run, on_disk = stage(tmp_path), []

    def kill() -> None:
        """Kill the trainer of expert 0 when it has some epochs, and its successor when it has some more."""
        for rows in (6, 12):
            while run.rows(0) < rows:
                time.sleep(0.01)
            trainer = int((tmp_path / "trainer-0").read_text())
            on_disk.append(run.rows(0) - 1)
            os.kill(trainer, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    summary = run.run(resources)
    assert len(on_disk) == 2 and not killer.is_alive()
    assert (summary.trained, summary.reused, len(summary.losses)) == (EXPERTS, 0, EPOCHS)
    assert_same_bits(run, undisturbed)
    lost = re.findall(
        r"The process of expert actor \d was lost: it was killed, or it crashed; it is", run.said.getvalue()
    )
    assert len(lost) == 2
    again = run.began_again()
    assert [expert for expert, _, _ in again] == [0, 0]
    assert all(start >= rows for (_, start, _), rows in zip(again, on_disk, strict=True))
    # An epoch may have been trained without its end having been reported.
    trained = len((tmp_path / "epochs").read_text().splitlines())
    assert 0 <= trained - EXPERTS * EPOCHS <= sum(max(0, end - start) + 1 for _, start, end in again)


@pytest.mark.rare
def test_what_a_lost_actor_had_finished_is_not_trained_again(
    resources: Resources, undisturbed: Stage, actors: Callable[[type], None], tmp_path: Path
) -> None:
    Noting: Any = noting(tmp_path)

    class DiesAtTheHorizon(Noting):
        def train_epoch(self) -> Any:
            answer = super().train_epoch()
            if 0 in answer.finished:
                os._exit(1)  # the file is written, and its end is not reported
            return answer

    actors(DiesAtTheHorizon)
    run = stage(tmp_path)
    summary = run.run(resources)
    assert (summary.trained, summary.reused) == (EXPERTS, 0)
    assert_same_bits(run, undisturbed)
    assert run.began_again() == [(0, EPOCHS, EPOCHS - 1)]
    assert len((tmp_path / "epochs").read_text().splitlines()) == EXPERTS * EPOCHS


@pytest.mark.rare
def test_an_expert_that_ends_every_actor_ends_the_stage_and_the_rest_goes_on_later(
    resources: Resources, undisturbed: Stage, actors: Callable[[type], None], tmp_path: Path
) -> None:
    Noting: Any = noting(tmp_path)

    class Dies(Noting):
        def train_epoch(self) -> Any:
            if any(trained.state.epoch == 3 for expert, trained in self._group.items() if expert == 1):
                os._exit(1)
            return super().train_epoch()

    actors(Dies)
    run = stage(tmp_path)
    with pytest.raises(ClusterError, match=r"longer than --patience 1 s: .* run the same command again") as caught:
        run.run(resources, patience_s=1.0)
    assert "\n" not in str(caught.value)
    again = [expert for expert, _, _ in run.began_again()]
    assert len(again) >= 4 and set(again) == {1}  # the other expert's progress allows more
    actors(ACTOR)
    run.said.truncate(0)
    run.run(resources)
    assert run.began_again() == []
    assert_same_bits(run, undisturbed)


def test_an_actor_that_cannot_start_ends_the_stage_with_the_reason(
    resources: Resources, actors: Callable[[type], None], tmp_path: Path
) -> None:
    class NeverStarts(ACTOR):
        def __init__(self, work: Any, gpu_share: float) -> None:
            raise RuntimeError("no such device")

    actors(NeverStarts)
    run = stage(tmp_path)
    with pytest.raises(ClusterError, match=r"^an expert actor cannot start: RuntimeError: no such device$"):
        run.run(resources)
    assert "was lost" not in run.said.getvalue()
