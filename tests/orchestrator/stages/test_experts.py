"""The expert stage with actors that train experts two at a time, as they may on a GPU."""

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch
from rich.console import Console

import trainables.workers.expert
from orchestrator.cluster.connection import connected
from orchestrator.cluster.resources import Resources
from orchestrator.errors import UserError
from orchestrator.stages.experts import ensure_experts
from tests.support.experts import expert_identity
from tests.support.losses import patience
from tests.support.settings import expert_recipe
from trainables.data import datasets
from trainables.data.augmentation import Augmentation
from trainables.experts.store import TrajectoryStore
from trainables.experts.training import ExpertTrainer
from trainables.networks.convnet import ConvNet
from trainables.workers.expert import ExpertWork

pytestmark = pytest.mark.slow

NETWORK = ConvNet(channels=1, image_size=8, classes=10, depth=1, width=4)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with connected("local", None):
        yield


@pytest.fixture
def stage(cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stage as a function of the number of experts, the horizon and the actors; it notes groups in a file."""
    prepared, groups = datasets.prepare("digits", cache=tmp_path, validation_share=0.5), tmp_path / "groups"

    class InPairs(trainables.workers.expert.ExpertActor):
        def at_once(self) -> int:
            return 2

        def begin(self, experts: Any, extendable: Any) -> Any:
            with groups.open("a") as file:
                file.write(f"{experts}\n")
            return super().begin(experts, extendable)

    monkeypatch.setattr(trainables.workers.expert, "ExpertActor", InPairs)
    store = TrajectoryStore(tmp_path, expert_identity(NETWORK, ("flip",), seed=5))

    def run(count: int, epochs: int, actors: int = 1) -> Any:
        work = ExpertWork(dataset=prepared, store=store, epochs=epochs, device="cpu", kept=prepared.parent)
        inputs = SimpleNamespace(
            settings=SimpleNamespace(
                fixed={"expert_count": count}, space=SimpleNamespace(horizon_epochs=epochs), retrain_corrupt=False
            ),
            store=store,
            experts_place=str(store.folder),
            expert_work=lambda resources: work,
        )
        groups.unlink(missing_ok=True)
        said = io.StringIO()
        console = Console(file=said, width=1000)
        resources = Resources(cpus=min(actors, ray.cluster_resources()["CPU"]), gpus=0, gpus_per_trial=0)
        try:
            outcome: Any = ensure_experts(inputs, resources, console, patience(console))  # type: ignore[arg-type]
        except UserError as error:
            outcome = error
        return SimpleNamespace(
            outcome=outcome, store=store, groups=groups.read_text().splitlines(), said=said.getvalue()
        )

    run.prepared = prepared  # type: ignore[attr-defined]
    return run


def test_groups_are_extended_and_come_out_as_one_at_a_time(stage: Any) -> None:
    assert sorted(stage(3, 1).groups) == ["[0, 1]", "[2]"]
    done = stage(5, 3, actors=2)
    assert sorted(done.groups) == ["[0, 1]", "[2, 3]", "[4]"]
    assert (done.outcome.trained, done.outcome.reused, len(done.outcome.losses)) == (5, 0, 3)
    trainer = ExpertTrainer(
        dataset=datasets.load(stage.prepared),
        network=NETWORK,
        recipe=expert_recipe(),
        augmentation=Augmentation(families=("flip",)),
        seed=5,
        device=torch.device("cpu"),
    )
    for expert in range(5):
        state = trainer.start(expert)
        for epoch, snapshot in enumerate(done.store.load(expert).snapshots):
            assert torch.allclose(snapshot, state.theta, atol=1e-4), (expert, epoch)
            state = trainer.train_epoch(expert, state)


def test_an_expert_that_diverges_stops_the_stage_once_those_under_way_are_kept(stage: Any) -> None:
    done = stage(3, 1)
    stored = done.store.load(0)
    stored.snapshots[-1][0] = float("nan")
    done.store.record({0: done.store.write(0, stored.snapshots, stored.losses)})
    done = stage(6, 3)
    assert isinstance(done.outcome, UserError)
    assert str(done.outcome).startswith("expert 0 (seed 5) diverged in epoch 2: ")
    assert "diverged in epoch 2" in done.said and "finishing the experts under way" in done.said
    assert done.groups == ["[0, 1]"]  # the others are not begun
    assert {expert: entry.rows for expert, entry in done.store.read().items()} == {0: 2, 1: 4, 2: 2}
