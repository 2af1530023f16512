"""The expert actor: the interface between Ray and `ExpertTrainer`. It has no arithmetic, and does not import Ray.

An expert's file grows while the expert is trained, so little is lost with an actor: another resumes from its end.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from trainables.config.arithmetic import Arithmetic
from trainables.data.datasets import load
from trainables.experts.store import ExpertFile, TrajectoryStore
from trainables.experts.training import DivergedExpert, ExpertState, ExpertTrainer, experts_at_once, fits_gpu
from trainables.storage.shared_file import SharedFile, local_path
from trainables.storage.writing_pace import WritingPace
from trainables.workers.process import prepare_process

__all__ = ["ExpertActor", "ExpertWork", "GroupProgress"]


@dataclass(frozen=True, kw_only=True)
class ExpertWork:
    """The task of an expert actor; plain values that can be sent to any node."""

    dataset: Path | SharedFile
    """Prepared dataset file."""
    store: TrajectoryStore
    """The store of the experts, with everything that determines their parameters."""
    epochs: int
    """Horizon: epochs of every expert."""
    device: str
    """cpu or cuda."""
    kept: Path
    """Folder on the node for how many experts it trains at once."""

    @property
    def arithmetic(self) -> Arithmetic:
        """The arithmetic of the training."""
        return self.store.identity.arithmetic


@dataclass(frozen=True, kw_only=True)
class GroupProgress:
    """The progress of a group of experts after one call of an actor."""

    epochs: dict[int, int]
    """Epochs that each expert of the group now has."""
    finished: dict[int, ExpertFile]
    """Experts that reached the horizon in this call; their files are written, the driver writes the manifest."""
    diverged: dict[int, str]
    """Experts that stopped in this call, and why."""
    under_way: bool
    """Whether an expert of the group has not reached the horizon."""


class ExpertActor:
    """Trains a group of experts side by side, one epoch per call, so that the driver can show progress.

    It is a plain class, from which the driver makes a Ray actor by `ray.remote`.
    """

    def __init__(self, work: ExpertWork, gpu_share: float) -> None:
        """Open the dataset; it stays open for all experts of this actor.

        Args:
            work: The task.
            gpu_share: Share of a GPU that the actor has, in (0, 1]; 0 on a CPU.
        """
        prepare_process(work.device, work.arithmetic)
        device = torch.device(work.device)
        dataset = load(local_path(work.dataset))
        if device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(gpu_share)
        self._work, self._gpu_share = work, gpu_share
        identity = work.store.identity
        self._trainer = ExpertTrainer(
            dataset=dataset,
            network=identity.network,
            recipe=identity.recipe,
            augmentation=identity.augmentation,
            seed=identity.seed,
            device=device,
            resident=device.type == "cuda" and fits_gpu(dataset, gpu_share),
        )
        self._group: dict[int, _Trajectory] = {}
        self._pace = WritingPace()

    def at_once(self) -> int:
        """Return the number of experts that this actor trains side by side.

        It is one where a GPU is to compute the same bits again: experts in a group round otherwise than alone, and
        which experts make a group depends on which are missing.
        """
        if self._work.arithmetic.deterministic:
            return 1
        return experts_at_once(self._trainer, self._gpu_share, self._work.kept)

    def begin(self, experts: Sequence[int], extendable: Collection[int]) -> GroupProgress:
        """Prepare the training of a group of experts; those with a complete file resume from its end.

        Args:
            experts: Numbers of the experts.
            extendable: Numbers of the experts that the manifest lists.
        """
        self._pace = WritingPace()
        self._group = {expert: self._begun(expert, expert in extendable) for expert in experts}
        return self._progress(finished={}, diverged={})

    def train_epoch(self) -> GroupProgress:
        """Train every expert of the group by one epoch; drop those that diverged, write those that reach the horizon.

        The others are written at intervals (see `WritingPace`), so that another process can resume them.

        Raises:
            OSError: An expert cannot be written; see `atomic.is_disk_full`.
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
        stored = self._work.store.load(expert)
        if stored.velocity is None and self._trainer.recipe.expert_momentum > 0:
            # An old file without momentum buffer: training from the start gives the same bits.
            return self._begun(expert, extend=False)
        velocity = torch.zeros_like(start.theta) if stored.velocity is None else stored.velocity.to(start.theta.device)
        theta = stored.snapshots[-1].to(start.theta.device)
        state = ExpertState(theta, velocity, len(stored.losses), stored.losses[-1])
        return _Trajectory(state=state, snapshots=stored.snapshots, losses=stored.losses)

    def _write(self, expert: int) -> ExpertFile:
        """Write the epochs of an expert, unless its file is complete and has more; return the description of the file.

        A file has more epochs if an old file without momentum buffer is trained again, or if a process that seemed
        dead has continued.
        """
        trained = self._group[expert]
        longer = self._work.store.certified(expert, more_than=len(trained.losses))
        if longer is not None:
            return longer
        velocity = trained.state.velocity if self._trainer.recipe.expert_momentum > 0 else None
        return self._work.store.write(expert, trained.snapshots, trained.losses, velocity)

    def _progress(self, finished: dict[int, ExpertFile], diverged: dict[int, str]) -> GroupProgress:
        epochs = {expert: trained.state.epoch for expert, trained in self._group.items()}
        return GroupProgress(
            epochs=epochs,
            finished=finished,
            diverged=diverged,
            under_way=any(epoch < self._work.epochs for epoch in epochs.values()),
        )


@dataclass(kw_only=True)
class _Trajectory:
    """An expert in training, and the content of its file."""

    state: ExpertState
    snapshots: list[torch.Tensor]
    losses: list[float]

    def append(self, state: ExpertState) -> None:
        self.state = state
        self.snapshots.append(state.theta.cpu())
        self.losses.append(state.loss)
