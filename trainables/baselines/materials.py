"""Inputs of baselines: real images, scoring runs, a teacher, a squeezed network; computed when first used."""

import typing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from trainables.baselines.coresets.evidence import Evidence
from trainables.baselines.squeeze import squeeze_protocol, squeezed
from trainables.config.protocol import Protocol
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset
from trainables.errors import ConfigError
from trainables.evaluation.regimes import Teacher
from trainables.evaluation.teachers import trained_teacher
from trainables.evaluation.validation import validation_accuracy
from trainables.networks.batch_norm import BatchNormConvNet
from trainables.networks.convnet import ConvNet
from trainables.networks.network import Network
from trainables.seeding import seed_of

__all__ = ["Baseline", "Materials"]


@dataclass(frozen=True, kw_only=True)
class Materials:
    """Inputs that the baselines of a sweep share in one process."""

    dataset: ImageDataset
    """Sets are made of its training split."""
    network: Network
    """The network that scores images, observes crops, is squeezed and validates."""
    augmentation: Augmentation
    """DSA families of every training."""
    folder: Path
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
    device: torch.device
    seed: int
    """Seed of scoring runs, ties and random choices; sets of different seeds are independent."""

    @cached_property
    def evidence(self) -> Evidence:
        """Inputs of the coreset methods."""
        return Evidence(
            dataset=self.dataset,
            network=self.network,
            augmentation=self.augmentation,
            device=self.device,
            folder=self.folder,
            epochs=self.full_data_protocol.epochs,
            validate=self._validate,
        )

    @cached_property
    def teacher(self) -> Teacher:
        """The teacher of all sets, trained on all training images."""
        theta = trained_teacher(
            self.folder, self.network, self.dataset, self.full_data_protocol, self.augmentation, 0, self.device
        )
        return Teacher(self.network, theta)

    @cached_property
    def squeezed(self) -> BatchNormConvNet:
        """The network that SRe2L trains on the training images.

        Raises:
            ConfigError: The network is not a ConvNet, the only class with a batch-norm form; or the training diverged.
        """
        if type(self.network) is not ConvNet:
            raise ConfigError(f"a ConvNet alone can be squeezed, not {type(self.network).__name__}; leave sre2l out")
        return squeezed(
            self.folder, self.network, self.dataset, squeeze_protocol(self.squeeze_epochs), self.augmentation,
            seed_of(self.seed, "squeeze"), self.device,
        )  # fmt: skip

    def _validate(self, rows: Tensor) -> float:
        """Return the mean validation accuracy of networks trained on training rows in default order."""
        return validation_accuracy(
            self.network,
            self.dataset,
            self.dataset.normalized("train", rows, self.device),
            protocol=self.validation_protocol,
            augmentation=self.augmentation,
            seeds=[seed_of(self.seed, "validation", number) for number in range(self.validation_networks)],
        )


class Baseline(typing.Protocol):
    """The implementation of a baseline that is not a coreset: it makes a set of images."""

    def __call__(self, materials: Materials, ipc: int) -> Tensor:
        """Return images, normalised float32 [ipc·C, ch, H, W] on the CPU, in default order.

        Args:
            materials: Inputs of the baseline; `materials.seed` is the seed of every random choice.
            ipc: Images per class.

        Raises:
            ConfigError: There are too few training images, or a training diverged.
        """
