"""The sets that a distilled one must beat, made by a worker: coresets, RDED, CA2D and SRe2L. METHOD §6.

A set is kept where every node reaches it, as the rows of the training split that it consists of or, where its images
are new ones, as images. Scoring runs and networks are kept on the node that trained them.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainables.augmentation import Augmentation
from trainables.batch_norm import squeeze_protocol, squeezed
from trainables.checkpoints import read_checkpoint, write_checkpoint
from trainables.config import Protocol
from trainables.coresets import NAMES, Evidence, select
from trainables.coresets.ca2d import ca2d
from trainables.coresets.cad_prune import scores as cad_scores
from trainables.coresets.rded import rded
from trainables.datasets import load
from trainables.errors import ConfigError
from trainables.networks import ConvNet
from trainables.regimes import Teacher
from trainables.seeding import seed_of
from trainables.shared_file import SharedFile, local_path
from trainables.sre2l import Recovery, recover
from trainables.teachers import trained_teacher
from trainables.validation import validation_accuracy

__all__ = ["BaselineMaker", "BaselineWork"]

CA2D_POOL, CA2D_POOL_SHARE = 300, 0.6
"""Images of a class that CA2D takes crops of: 300, .6 of a class of CIFAR-100, and of smaller ones that share."""


@dataclass(frozen=True, kw_only=True)
class BaselineWork:
    """What all baselines of a sweep share; plain values that travel to any node."""

    dataset: Path | SharedFile
    """Prepared dataset file."""
    network: ConvNet
    """What scores images, observes crops, is squeezed and validates."""
    augmentation: Augmentation
    """DSA families of every training."""
    kept: Path
    """Where a node keeps what is trained for them."""
    full_data_protocol: Protocol
    """How the teacher is trained on all training images; its epochs are those of the long scoring run too."""
    validation_protocol: Protocol
    """How el2n_best's windows are compared."""
    validation_networks: int
    squeeze_epochs: int
    """Epochs of the network that SRe2L recovers from."""
    recover_iterations: int
    """Updates of each image in SRe2L's recovery."""
    device: str
    """cpu or cuda."""


class BaselineMaker:
    """Makes a sweep's baselines, one after the other, in one process: what several of them read is made once."""

    def __init__(self, work: BaselineWork, seed: int) -> None:
        """Open what there is to share.

        Args:
            work: What all baselines share.
            seed: Names scoring runs, ties and random choices; another seed makes independent sets.
        """
        if work.device == "cpu":
            torch.set_num_threads(1)  # a worker has one core
        self._work, self._seed = work, seed
        self._device = torch.device(work.device)
        self._dataset = load(local_path(work.dataset))

    def make(self, method: str, ipc: int, place: str) -> str:
        """Make a set and keep it at a path or URI, unless it is there, and return that.

        Raises:
            ConfigError: There is no such method, it cannot make a set of this size, or what it trains diverged.
            DatasetError: What the node has kept is damaged.
        """
        if read_checkpoint(place) is None:
            write_checkpoint(place, self._make(method, ipc))
        return place

    def teacher(self) -> np.ndarray:
        """Return the parameters, float32 [P], of the one teacher of all sets: trained on all training images."""
        theta: np.ndarray = self._teacher.theta.cpu().numpy()
        return theta

    def _make(self, method: str, ipc: int) -> dict[str, Tensor]:
        """Return a set: `rows` int64 [ipc·C] of the training split, or `images`, normalised float32 [ipc·C, …]."""
        if method in NAMES:
            return {"rows": select(method, self._evidence, ipc, self._seed)}
        match method:
            case "rded":
                images = rded(self._dataset, self._teacher, ipc, self._seed, device=self._device)
            case "ca2d":
                scores = cad_scores(self._evidence, ipc, self._seed)
                smallest = int(self._dataset.labels("train").bincount(minlength=self._dataset.classes).min())
                pool = max(ipc, min(CA2D_POOL, round(CA2D_POOL_SHARE * smallest)))
                images = ca2d(self._dataset, self._teacher, scores, ipc, self._seed, pool=pool, device=self._device)
            case "sre2l":
                images = self._recovered(ipc)
            case _:
                raise ConfigError(f"a baseline is one of {', '.join((*NAMES, 'rded', 'ca2d', 'sre2l'))}, not {method}")
        return {"images": images}

    @cached_property
    def _evidence(self) -> Evidence:
        work = self._work
        return Evidence(
            dataset=self._dataset,
            network=work.network,
            augmentation=work.augmentation,
            device=self._device,
            folder=work.kept,
            epochs=work.full_data_protocol.epochs,
            validate=self._validate,
        )

    @cached_property
    def _teacher(self) -> Teacher:
        work = self._work
        theta = trained_teacher(
            work.kept, work.network, self._dataset, work.full_data_protocol, work.augmentation, 0, self._device
        )
        return Teacher(work.network, theta)

    def _recovered(self, ipc: int) -> Tensor:
        work = self._work
        network = squeezed(
            work.kept,
            work.network,
            self._dataset,
            squeeze_protocol(work.squeeze_epochs),
            work.augmentation,
            seed_of(self._seed, "squeeze"),
            self._device,
        )
        recovery = Recovery(iterations=work.recover_iterations)
        return recover(network, self._dataset, ipc, self._seed, recovery=recovery)

    def _validate(self, rows: Tensor) -> float:
        """Return the mean validation accuracy of networks trained on training rows in default order."""
        work, images = self._work, self._dataset.normalized("train", rows).to(self._device)
        return validation_accuracy(
            work.network,
            self._dataset,
            images,
            protocol=work.validation_protocol,
            augmentation=work.augmentation,
            seeds=[seed_of(self._seed, "validation", number) for number in range(work.validation_networks)],
        )
