"""SRe2L: images that a batch-norm network classifies correctly, with the batch statistics of its training data.

Source: docs/method.md, "SRe2L".

Squeeze: `trainables.networks.batch_norm`. Recover: here. Relabel: the squeezed network is a callable teacher.

Shape legend: R rounds side by side, C classes, ch channels, H = W side, D batch norms, F their channels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.adam import adam

from trainables.baselines.materials import Materials
from trainables.baselines.rded import SMALLEST_CROP, draw_crops
from trainables.data.affine import resize
from trainables.data.datasets import ImageDataset
from trainables.errors import ConfigError
from trainables.networks.batch_norm import BatchNormConvNet
from trainables.seeding import generator

__all__ = ["Recovery", "RecoveryLoss", "make", "recover", "recovery_loss", "statistics_distances"]

ADAM_BETAS, ADAM_EPSILON = (0.5, 0.9), 1e-8
RECOVERED_AT_ONCE = 256  # images, as many as the evaluator's batch


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """How images are recovered from a squeezed network. docs/method.md, "SRe2L"."""

    iterations: int = 4000
    """Updates of each image; the learning rate falls to 0 over them as half a cosine."""
    learning_rate: float = 0.25
    """Adam's initial learning rate, in normalised pixels per update."""
    statistics_weight: float = 0.01
    """r: weight of the distances between statistics, beside the cross-entropy's 1."""
    first_layer_weight: float = 1.0
    """Weight of the first batch norm's distances among the others'; the reference code's scripts leave it at 10."""
    smallest_crop: float = SMALLEST_CROP
    """Minimum share of the area that a random crop keeps; 1: no crops, as in the reference code for CIFAR-100."""

    def __post_init__(self) -> None:
        """Refuse settings outside their bounds."""
        if type(self.iterations) is not int or self.iterations < 1:
            raise ConfigError(f"iterations of a recovery must be a whole number of at least 1, not {self.iterations!r}")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate of a recovery must be above 0 and finite, not {self.learning_rate}")
        for name in ("statistics_weight", "first_layer_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} of a recovery must be at least 0 and finite, not {getattr(self, name)}")
        if not 0 < self.smallest_crop <= 1:
            raise ConfigError(f"smallest_crop of a recovery must lie in (0, 1], not {self.smallest_crop}")


class RecoveryLoss(NamedTuple):
    """The loss of a recovery and its terms; scalars, summed over the rounds."""

    total: Tensor
    """cross_entropy + r · statistics."""
    cross_entropy: Tensor
    statistics: Tensor
    """Distances between statistics, summed over the layers with their weights."""


def recover(
    network: BatchNormConvNet,
    dataset: ImageDataset,
    ipc: int,
    seed: int,
    *,
    recovery: Recovery,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Return recovered images, normalised float32 [ipc·C, ch, H, W] on the CPU, in default order.

    Source: docs/method.md, "SRe2L".

    The k-th images of all classes make round k, and the statistics are those of a round. Each image starts as standard
    normal pixels. In every update, the network sees the round through one random crop and one random mirroring, if the
    dataset's augmentation has that family. Every update ends with a clip to valid intensities. Rounds of together 256
    images are computed side by side in the same kernels; each has the same result as alone, up to rounding.

    Args:
        network: The squeezed network; its device is that of the recovery.
        dataset: Provides the normalisation and the augmentation families; none of its images is read.
        ipc: Images per class.
        seed: Seed of the initial pixels, crops and mirrorings.
        recovery: Iterations, learning rate and weights.
        progress: Called with the number of completed images per class.

    Raises:
        ConfigError: ipc is below 1.

    Cost: ipc · iterations passes of C images forward and back; memory for a graph of 256 images, or C if that is more.
    """
    if ipc < 1:
        raise ConfigError(f"ipc must be at least 1, not {ipc}")
    at_once, done = max(1, RECOVERED_AT_ONCE // dataset.classes), []
    for first in range(0, ipc, at_once):
        indices = range(first, min(first + at_once, ipc))
        done.append(_recover_rounds(network, dataset, indices, seed, recovery))
        if progress:
            progress(indices.stop)
    return torch.cat(done).transpose(0, 1).flatten(0, 1).cpu()


def _recover_rounds(
    network: BatchNormConvNet, dataset: ImageDataset, indices: range, seed: int, recovery: Recovery
) -> Tensor:
    """Return the R rounds with these indices, float32 [R, C, ch, H, W]."""
    device = network.theta.device
    shape = (dataset.classes, dataset.channels, dataset.image_size, dataset.image_size)
    noise = [torch.randn(shape, generator=generator(seed, "sre2l", "noise", index)) for index in indices]
    images = torch.stack(noise).to(device)
    labels = torch.arange(dataset.classes, device=device).repeat(len(indices))
    first, second, steps = torch.zeros_like(images), torch.zeros_like(images), torch.zeros(())
    for iteration in range(recovery.iterations):
        leaf = images.requires_grad_()
        draws = [generator(seed, "sre2l", "view", index, iteration) for index in indices]
        views = [_view(part, dataset.augmentation, recovery, of) for part, of in zip(leaf, draws, strict=True)]
        loss = recovery_loss(network, torch.cat(views), labels, recovery, rounds=len(indices))
        (gradient,) = torch.autograd.grad(loss.total, leaf)
        images = images.detach()
        # Not torch.optim.Adam, which loads the compiler and costs a process two seconds.
        adam(
            [images], [gradient], [first], [second], [], [steps],
            amsgrad=False, beta1=ADAM_BETAS[0], beta2=ADAM_BETAS[1], weight_decay=0.0, eps=ADAM_EPSILON, maximize=False,
            lr=recovery.learning_rate * (1 + math.cos(math.pi * iteration / recovery.iterations)) / 2,
        )  # fmt: skip
        # Clip in intensities, which is also correct for whitened images.
        intensities = dataset.displayable(images.flatten(0, 1))
        images = dataset.normalize(intensities * dataset.levels).view_as(images)
    return images


def _view(images: Tensor, families: tuple[str, ...], recovery: Recovery, draws: torch.Generator) -> Tensor:
    """Return images after one random crop and one mirroring for all of them, as torchvision transforms a batch."""
    side = images.shape[-1]
    if "crop" in families and recovery.smallest_crop < 1:
        ((top, left, size),) = draw_crops(1, side, draws, recovery.smallest_crop).tolist()
        images = resize(images[:, :, top : top + size, left : left + size], side)
    if "flip" in families and float(torch.rand((), generator=draws)) < 0.5:
        images = images.flip(3)
    return images


def recovery_loss(
    network: BatchNormConvNet, images: Tensor, labels: Tensor, recovery: Recovery, *, rounds: int = 1
) -> RecoveryLoss:
    """Return SRe2L's loss, summed over rounds; differentiable in the images. docs/method.md, "SRe2L".

    The loss of a round is CE + r · Σ_l (‖μ_l − μ̂_l‖₂ + ‖σ²_l − σ̂²_l‖₂), where hats mark running statistics.

    Args:
        network: The squeezed network with the running statistics.
        images: Normalised [B, ch, H, W], one round of B / rounds images after the other.
        labels: int64 [B].
        recovery: Provides the weights.
        rounds: R, the number of rounds of equal length.
    """
    logits, entering = network.observed(images)
    distances = statistics_distances(entering, network.means, network.variances, rounds=rounds).sum(dim=1)
    statistics = distances.sum() + (recovery.first_layer_weight - 1) * distances[0]
    cross_entropy = F.cross_entropy(logits, labels) * rounds  # the sum of the rounds' means
    return RecoveryLoss(cross_entropy + recovery.statistics_weight * statistics, cross_entropy, statistics)


def statistics_distances(entering: Sequence[Tensor], means: Tensor, variances: Tensor, *, rounds: int = 1) -> Tensor:
    """Return ‖μ_l − μ̂_l‖₂ + ‖σ²_l − σ̂²_l‖₂ of every layer and round, [D, R]. docs/method.md, "SRe2L".

    Args:
        entering: What enters each batch norm, D times [B, F, side, side]; μ and σ² are over a round's images and
            pixels, and σ² is the biased variance, as in the reference code.
        means: μ̂, the running means [D, F].
        variances: σ̂², the running variances [D, F].
        rounds: R, of B / R images each, one after the other.
    """
    distances = []
    for values, mean, variance in zip(entering, means, variances, strict=True):
        spread, centre = torch.var_mean(values.unflatten(0, (rounds, -1)), dim=(1, 3, 4), correction=0)
        distances.append(
            torch.linalg.vector_norm(centre - mean, dim=1) + torch.linalg.vector_norm(spread - variance, dim=1)
        )
    return torch.stack(distances)


def make(materials: Materials, ipc: int) -> Tensor:
    """Return SRe2L's set as the baseline of a sweep; see `Baseline`."""
    recovery = Recovery(iterations=materials.recover_iterations)
    return recover(materials.squeezed, materials.dataset, ipc, materials.seed, recovery=recovery)
