"""Baseline sets made by a worker: coresets, RDED, CA2D and SRe2L.

Source: docs/method.md, "Coresets".

A set is stored where every node can read it: as rows of the training split, or as images if they are new ones. Scoring
runs and networks are stored on the node that trained them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainables.baselines.coresets import select
from trainables.baselines.materials import Materials
from trainables.config.arithmetic import Arithmetic
from trainables.config.protocol import Protocol
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import load
from trainables.errors import ConfigError
from trainables.implementation import Implementation
from trainables.networks.network import Network
from trainables.storage.checkpoints import read_checkpoint, write_checkpoint
from trainables.storage.shared_file import SharedFile, local_path
from trainables.workers.process import prepare_process

__all__ = ["BaselineMaker", "BaselineWork"]


@dataclass(frozen=True, kw_only=True)
class BaselineWork:
    """Settings that all baselines of a sweep share; plain values that can be sent to any node."""

    dataset: Path | SharedFile
    """Prepared dataset file."""
    coresets: Sequence[Implementation]
    """The requested coresets; each is a `Coreset`."""
    others: Sequence[Implementation]
    """The requested baselines that are no coresets; each is a `Baseline`."""
    network: Network
    """The network that scores images, observes crops, is squeezed and validates."""
    augmentation: Augmentation
    """DSA families of every training."""
    kept: Path
    """Folder on the node for networks and scoring runs that are trained for the baselines."""
    full_data_protocol: Protocol
    """Training of the teacher on all training images; the long scoring run has the same number of epochs."""
    validation_protocol: Protocol
    """Training of the networks that compare the windows of el2n_best."""
    validation_networks: int
    squeeze_epochs: int
    """Epochs of the network that SRe2L recovers from."""
    recover_iterations: int
    """Updates of each image in SRe2L's recovery."""
    device: str
    """cpu or cuda."""
    arithmetic: Arithmetic
    """The arithmetic of all trainings; what they store is kept apart from that of another arithmetic."""


class BaselineMaker:
    """Makes a sweep's baselines one after the other in one process, so that their common inputs are made once."""

    def __init__(self, work: BaselineWork, seed: int) -> None:
        """Load the dataset.

        Args:
            work: Settings that all baselines share.
            seed: Seed of scoring runs, ties and random choices; sets of different seeds are independent.
        """
        prepare_process(work.device, work.arithmetic)
        self._coresets = {coreset.name: coreset for coreset in work.coresets}
        self._others = {baseline.name: baseline for baseline in work.others}
        self._materials = Materials(
            dataset=load(local_path(work.dataset)),
            network=work.network,
            augmentation=work.augmentation,
            folder=work.kept / work.arithmetic.label,
            full_data_protocol=work.full_data_protocol,
            validation_protocol=work.validation_protocol,
            validation_networks=work.validation_networks,
            squeeze_epochs=work.squeeze_epochs,
            recover_iterations=work.recover_iterations,
            device=torch.device(work.device),
            seed=seed,
        )

    def make(self, method: str, ipc: int, place: str) -> str:
        """Make a set and store it at a path or URI, unless it is already there; return the path or URI.

        Raises:
            ConfigError: There is no such method, it cannot make a set of this size, or its training diverged.
            DatasetError: A file that the node has stored is damaged.
        """
        if read_checkpoint(place) is None:
            write_checkpoint(place, self._make(method, ipc))
        return place

    def teacher(self) -> np.ndarray:
        """Return the parameters, float32 [P], of the teacher of all sets, which is trained on all training images."""
        theta: np.ndarray = self._materials.teacher.theta.cpu().numpy()
        return theta

    def _make(self, method: str, ipc: int) -> dict[str, Tensor]:
        """Return a set: `rows` of the training split, int64 [ipc·C], or `images`, normalised float32 [ipc·C, …]."""
        if method in self._coresets:
            coreset = self._coresets[method].load()
            return {"rows": select(coreset, self._materials.evidence, ipc, self._materials.seed)}
        if method not in self._others:
            raise ConfigError(f"a baseline is one of {', '.join((*self._coresets, *self._others))}, not {method}")
        return {"images": self._others[method].load()(self._materials, ipc)}
