"""The interface of the distillation methods."""

from typing import Protocol

from torch import Tensor

from trainables.config.distillation import DistillationConfig
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset
from trainables.distillation.real_matching import RealMatching
from trainables.distillation.trajectory import Distiller
from trainables.implementation import Implementation
from trainables.networks.network import Network

__all__ = ["TRAJECTORY", "Distillation", "Method"]

TRAJECTORY = Implementation(name="trajectory", address="trainables.distillation.trajectory:Distiller")
"""Trajectory matching, for callers that use no other method."""

Distillation = Distiller | RealMatching
"""A distillation by any method: it runs iterations, returns its state and resumes from one."""


class Method(Protocol):
    """The implementation of a method that matches real images instead of experts: a subclass of `RealMatching`."""

    def __call__(
        self,
        config: DistillationConfig,
        *,
        network: Network,
        augmentation: Augmentation,
        dataset: ImageDataset,
        images: Tensor,
        seed: int,
        micro_batch: int | None,
    ) -> RealMatching:
        """Start a distillation; arguments as `RealMatching` takes them."""
