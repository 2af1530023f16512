"""The expert actor: the face that Ray sees of `experts.ExpertTrainer`. No arithmetic here, and no need of Ray.

An expert's file grows while it is trained, so that little is lost with an actor: another goes on from the file's end.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainables.augmentation import Augmentation
from trainables.config import ExpertRecipe
from trainables.datasets import load
from trainables.experts import DivergedExpert, ExpertState, ExpertTrainer, experts_at_once, fits_gpu
from trainables.networks import ConvNet
from trainables.pace import WritingPace
from trainables.shared_file import SharedFile, local_path
from trainables.storage import SharedFolder
from trainables.trajectories import ExpertFile, TrajectoryStore

__all__ = ["ExpertActor", "ExpertWork", "Progress"]


@dataclass(frozen=True, kw_only=True)
class ExpertWork:
    """What an expert actor is asked to do; plain values that travel to any node."""

    dataset: Path | SharedFile
    """Prepared dataset file."""
    store: Path | SharedFolder
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


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What one call of an actor came to."""

    epochs: dict[int, int]
    """Epochs that each expert of the group now has."""
    finished: dict[int, ExpertFile]
    """Experts that reached the horizon in this call: their files are written, the manifest is the driver's."""
    diverged: dict[int, str]
    """Experts that stopped in this call, and why."""
    under_way: bool
    """Whether an expert of the group is still to be trained."""


class ExpertActor:
    """Trains a group of experts side by side, an epoch a call, so that the driver can draw progress and lose little.

    A plain class: the driver makes a Ray actor of it with `ray.remote`.
    """

    def __init__(self, work: ExpertWork, gpu_share: float) -> None:
        """Open the dataset; it stays open for all experts of this actor.

        Args:
            work: What is asked.
            gpu_share: Share of a GPU that the actor has, in (0, 1]; 0 on a CPU.
        """
        device = torch.device(work.device)
        dataset = load(local_path(work.dataset))
        if device.type == "cpu":
            torch.set_num_threads(1)
        else:
            torch.cuda.set_per_process_memory_fraction(gpu_share)
        self._work, self._gpu_share = work, gpu_share
        self._store = TrajectoryStore(work.store, work.identity, work.network)
        self._trainer = ExpertTrainer(
            dataset=dataset,
            network=work.network,
            recipe=work.recipe,
            augmentation=work.augmentation,
            seed=work.seed,
            device=device,
            resident=device.type == "cuda" and fits_gpu(dataset, gpu_share),
        )
        self._group: dict[int, _Trajectory] = {}
        self._pace = WritingPace()

    def at_once(self) -> int:
        """Return how many experts this actor should be given at once."""
        return experts_at_once(self._trainer, self._gpu_share)

    def begin(self, experts: Sequence[int], extendable: Collection[int]) -> Progress:
        """Make ready to train experts side by side; those with a whole file go on from where it ends.

        Args:
            experts: Their numbers.
            extendable: Those that the manifest lists.
        """
        self._pace = WritingPace()
        self._group = {expert: self._begun(expert, expert in extendable) for expert in experts}
        return self._progress(finished={}, diverged={})

    def train_epoch(self) -> Progress:
        """Train each expert of the group by one epoch; drop the diverged, and write those that are then at the horizon.

        The others are written now and then (see `WritingPace`), so that whoever goes on after this process has died
        need not begin anew.

        Raises:
            OSError: An expert cannot be written; see `files.is_disk_full`.
        """
        finished: dict[int, ExpertFile] = {}
        diverged: dict[int, str] = {}
        under_way: list[int] = []
        short = [expert for expert, trained in self._group.items() if trained.state.epoch < self._work.epochs]
        states = self._trainer.train_epoch_together(short, [self._group[expert].state for expert in short])
        for expert, state in zip(short, states, strict=True):
            if isinstance(state, DivergedExpert):
                diverged[expert] = str(state)
                del self._group[expert]
                continue
            self._group[expert].append(state)
            if state.epoch == self._work.epochs:
                finished[expert] = self._write(expert)
            else:
                under_way.append(expert)
        if under_way and self._pace.due():
            with self._pace.measured():
                for expert in under_way:
                    self._write(expert)
        return self._progress(finished, diverged)

    def _begun(self, expert: int, extend: bool) -> "_Trajectory":
        start = self._trainer.start(expert)
        if not extend:
            return _Trajectory(state=start, snapshots=[start.theta.cpu()], losses=[])
        stored = self._store.load(expert)
        if stored.velocity is None and self._work.recipe.expert_momentum > 0:
            # A file from before momentum buffers were stored: the same bits from the beginning, only later.
            return self._begun(expert, extend=False)
        velocity = torch.zeros_like(start.theta) if stored.velocity is None else stored.velocity.to(start.theta.device)
        theta = stored.snapshots[-1].to(start.theta.device)
        state = ExpertState(theta, velocity, len(stored.losses), stored.losses[-1])
        return _Trajectory(state=state, snapshots=stored.snapshots, losses=stored.losses)

    def _write(self, expert: int) -> ExpertFile:
        """Write what there is of an expert, but over no whole file that holds as much; return what the file is now.

        There is one where an old file without momentum buffer is trained again, or where a process that was taken for
        dead has got further.
        """
        trained = self._group[expert]
        there = self._store.certified(expert, more_than=len(trained.losses))
        if there is not None:
            return there
        velocity = trained.state.velocity if self._work.recipe.expert_momentum > 0 else None
        return self._store.write(expert, trained.snapshots, trained.losses, velocity)

    def _progress(self, finished: dict[int, ExpertFile], diverged: dict[int, str]) -> Progress:
        epochs = {expert: trained.state.epoch for expert, trained in self._group.items()}
        return Progress(
            epochs=epochs,
            finished=finished,
            diverged=diverged,
            under_way=any(epoch < self._work.epochs for epoch in epochs.values()),
        )


@dataclass(kw_only=True)
class _Trajectory:
    """An expert that is being trained, and all that its file is to hold."""

    state: ExpertState
    snapshots: list[torch.Tensor]
    losses: list[float]

    def append(self, state: ExpertState) -> None:
        self.state = state
        self.snapshots.append(state.theta.cpu())
        self.losses.append(state.loss)
