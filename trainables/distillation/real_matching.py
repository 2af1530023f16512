"""Common part of distribution and gradient matching: pairs of real and synthetic images of every class.

Source: docs/method.md, "DC" and "DM".

Shape legend: S synthetic images, B real images of a class, C classes, ch channels, H = W side.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from trainables.config.distillation import DistillationConfig
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset
from trainables.data.labels import default_order_labels
from trainables.data.transfer import moved
from trainables.distillation.learned_images import Learned, LearnedImages, Update
from trainables.errors import ConfigError
from trainables.networks.network import Network

__all__ = ["RealMatching", "View"]


@dataclass(frozen=True)
class View:
    """A class's synthetic images and their augmented versions."""

    images: Tensor
    """[ipc, ch, H, W]; a leaf."""
    augmented: Tensor
    """[ipc, ch, H, W]."""

    def along_images(self, adjoint: Tensor) -> Tensor:
        """Return ∂s/∂images for a scalar s with ∂s/∂augmented = adjoint, both [ipc, ch, H, W]."""
        (gradient,) = torch.autograd.grad(self.augmented, self.images, adjoint)
        return gradient


class _Proposal(NamedTuple):
    """The result of an iteration, before the state of the distillation is changed."""

    images: Learned
    ema: Tensor | None
    update: Update


class RealMatching(LearnedImages, ABC):
    """Synthetic images that are matched with real images of their class, by their effect on a network.

    Only the images are learned: labels are hard, and α is fixed. An update is skipped only if its result would not be
    finite.
    """

    loss_name: ClassVar[str]
    """Name of the loss in a trial's result; the losses of different methods are different quantities."""

    @abstractmethod
    def step(self) -> Update:
        """Run one iteration; the generators of its random choices are named by `seed` and `iteration`.

        It changes no state before the gradient is computed, so it can be run again after an error.
        """

    def __init__(
        self,
        config: DistillationConfig,
        *,
        network: Network,
        augmentation: Augmentation,
        dataset: ImageDataset,
        images: Tensor,
        seed: int,
        micro_batch: int | None = None,
    ) -> None:
        """Start a distillation.

        Args:
            config: Settings of the distillation.
            network: The network whose features or gradients are matched.
            augmentation: DSA, one draw for a class's real and synthetic images alike.
            dataset: Its training images are matched.
            images: Initial images in default order, normalised float [S, ch, H, W]; copied. Their device and dtype are
                those of the whole computation.
            seed: Seed of every random choice.
            micro_batch: Largest number of images that pass through the network at a time; None: all of a class.

        Raises:
            ConfigError: The number of images is not ipc · C.
        """
        super().__init__(config, images, seed)
        if len(images) != config.ipc * dataset.classes:
            raise ConfigError(
                f"{config.method} matching needs ipc images of each class in default order, "
                f"{config.ipc} · {dataset.classes} = {config.ipc * dataset.classes}, not {len(images)}; change ipc"
            )
        self.network = network
        self.augmentation = augmentation
        self.dataset = dataset
        self.micro_batch = micro_batch
        self.labels = default_order_labels(config.ipc, dataset.classes).to(images.device)
        """Hard labels, int64 [S]."""
        labels = dataset.labels("train")
        counts = torch.bincount(labels, minlength=dataset.classes)
        self._members = labels.argsort(stable=True).split(counts.tolist())

    @property
    def alpha(self) -> float:
        """Learning rate at which networks are trained on the set; it is not learned."""
        return self.config.alpha

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the distillation depends on, and α, which readers of a set need."""
        return {**super().state_dict(), "alpha": self.alpha}

    def _pairs(self, draws: torch.Generator) -> Iterator[tuple[Tensor, View]]:
        """Yield the real images [B, ch, H, W] and the synthetic images of every class, with the same augmentation.

        The real images are `batch_real` different ones of the class, or all if it has fewer.

        Source: docs/method.md, "DSA".
        """
        rows, augmentations = [], []
        for members in self._members:
            rows.append(members[torch.randperm(len(members), generator=draws)[: self.config.batch_real]])
            augmentations.append(self.augmentation.draw(1, self.dataset.image_size, draws))
        augmentations = moved(augmentations, self.images.device)
        for of_class, real_rows, draw in zip(self.images.split(self.config.ipc), rows, augmentations, strict=True):
            real = self._real(real_rows)
            images = of_class.detach().requires_grad_()
            yield self.augmentation.apply_alike(real, draw), View(images, self.augmentation.apply_alike(images, draw))

    def _real(self, rows: Tensor) -> Tensor:
        """Return training images [B, ch, H, W] of rows [B], in the images' dtype and on their device."""
        return self.dataset.normalized("train", rows, self.images.device).to(self.images.dtype)

    def _proposal(self, loss: float, gradient: Tensor) -> _Proposal:
        """Return the result of an update down a gradient [S, ch, H, W]: no change if it would not be finite."""
        images = self._moved(gradient)
        finite = math.isfinite(loss) and images.finite
        if not finite:
            return _Proposal(self._images, self._ema, Update(loss, finite=False, skipped=True))
        return _Proposal(images, self._averaged(images.values), Update(loss, finite=True, skipped=False))

    def _accept(self, proposal: _Proposal) -> Update:
        """Apply a proposal to the state. This cannot fail, so an earlier error leaves the state unchanged."""
        self._images, self._ema, update = proposal
        self.skipped += update.skipped
        self.not_finite += not update.finite
        self.iteration += 1
        return update
