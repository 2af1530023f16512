"""The expert actor: the face that Ray sees of `experts.ExpertTrainer`. No arithmetic here, and no need of Ray."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainables.augmentation import Augmentation
from trainables.config import ExpertRecipe
from trainables.datasets import load
from trainables.experts import ExpertState, ExpertTrainer
from trainables.networks import ConvNet
from trainables.trajectories import ExpertFile, TrajectoryStore

__all__ = ["ExpertActor", "ExpertWork"]


@dataclass(frozen=True, kw_only=True)
class ExpertWork:
    """What an expert actor is asked to do; plain values that travel to any node."""

    dataset: Path
    """Prepared dataset file."""
    store: Path
    """Root folder of the expert stores."""
    identity: dict[str, Any]
    """What addresses the store."""
    network: ConvNet
    recipe: ExpertRecipe
    augmentation: Augmentation
    seed: int
    """Seed of all experts; the expert's number names the rest."""
    epochs: int
    """Horizon: epochs of every expert."""
    device: str
    """cpu or cuda."""


class ExpertActor:
    """Trains one expert at a time, an epoch a call, so that the driver can draw progress and lose little.

    A plain class: the driver makes a Ray actor of it with `ray.remote`.
    """

    def __init__(self, work: ExpertWork) -> None:
        """Open the dataset; it stays open for all experts of this actor."""
        if work.device == "cpu":
            torch.set_num_threads(1)
        self._work = work
        self._store = TrajectoryStore(work.store, work.identity, work.network)
        self._trainer = ExpertTrainer(
            dataset=load(work.dataset),
            network=work.network,
            recipe=work.recipe,
            augmentation=work.augmentation,
            seed=work.seed,
            device=torch.device(work.device),
        )
        self._snapshots: list[torch.Tensor] = []
        self._losses: list[float] = []
        self._state: ExpertState | None = None

    def begin(self, expert: int, extend: bool) -> int:
        """Make ready to train an expert and return the epochs it has: those of its file if it is to be extended."""
        self._state = self._trainer.start(expert)
        self._snapshots, self._losses = [self._state.theta.cpu()], []
        # A momentum buffer is not stored, so an expert with momentum starts again: the same bits, only later.
        if extend and self._work.recipe.expert_momentum == 0:
            self._snapshots, self._losses = self._store.load_last(expert)
            theta = self._snapshots[-1].to(self._state.theta.device)
            self._state = ExpertState(theta, torch.zeros_like(theta), len(self._losses), self._losses[-1])
        return self._state.epoch

    def train_epoch(self, expert: int) -> int:
        """Train one epoch and return the epochs done."""
        assert self._state is not None, "begin comes first"
        self._state = self._trainer.train_epoch(expert, self._state)
        self._snapshots.append(self._state.theta.cpu())
        self._losses.append(self._state.loss)
        return self._state.epoch

    def finish(self, expert: int) -> ExpertFile:
        """Write the expert's file and return what the manifest must say of it."""
        return self._store.write(expert, self._snapshots, self._losses)
