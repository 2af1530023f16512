"""The ConvNet with batch norm in place of the instance norm, and its training: SRe2L's squeeze. METHOD §5 and §6.

Shape legend: B images, C classes, ch channels, H = W side, D depth, F width, P parameters.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.augmentation import Augmentation
from trainables.config import Protocol
from trainables.datasets import ImageDataset
from trainables.errors import ConfigError
from trainables.kept import kept
from trainables.networks import NORM_EPSILON, ConvNet
from trainables.optimizer import learning_rate
from trainables.seeding import generator

__all__ = ["BatchNormConvNet", "squeeze", "squeeze_protocol", "squeezed"]

RUNNING_MOMENTUM = 0.1  # torch.nn.BatchNorm2d's: share of a batch in the running statistics
_TENSORS = ("theta", "means", "variances")


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchNormConvNet:
    """A trained network; as a callable, a teacher or observer: normalised images [B, ch, H, W] to logits [B, C]."""

    shape: ConvNet
    """The ConvNet whose every instance norm is a batch norm; its layout is that of `theta`."""
    theta: Tensor
    """Parameters, float [P]."""
    means: Tensor
    """Running mean of what enters each batch norm, float [D, F]."""
    variances: Tensor
    """Its running variance, float [D, F]: unbiased, as torch.nn.BatchNorm2d keeps it."""

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return logits [B, C] of images [B, ch, H, W] on the device of the parameters, without a graph."""
        return self.observed(images)[0]

    def observed(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return logits [B, C] and what enters each batch norm, D times [B, F, side, side].

        The norms use the running statistics, so that each image passes as it would alone. Differentiable in the images.
        """
        return _forward(self.shape, self.theta, self.means, self.variances, images, training=False)


def squeeze_protocol(epochs: int = 200) -> Protocol:
    """Return how a network is squeezed: SGD at .1, cosine, batches of 128, as SRe2L's code has it for CIFAR-100."""
    return Protocol(epochs=epochs, learning_rate=0.1, schedule="cosine", batch_size=128)


def squeeze(
    shape: ConvNet,
    dataset: ImageDataset,
    protocol: Protocol,
    augmentation: Augmentation,
    seed: int,
    device: torch.device,
) -> BatchNormConvNet:
    """Train a batch-norm ConvNet on the training split, with hard labels. METHOD §6, SRe2L.

    Args:
        shape: Depth, width and sizes of the network.
        dataset: Its images are read a batch at a time.
        protocol: Epochs, optimiser and batches, of hard labels.
        augmentation: DSA families of the training; SRe2L's code shifts and mirrors.
        seed: Names initial parameters, batches and augmentation.
        device: Where it is trained.

    Raises:
        ConfigError: The protocol is another than SGD's with hard labels and a cosine, or the training diverged.

    Cost: protocol.epochs · ⌈n / batch_size⌉ steps over the n training images.
    """
    if (protocol.optimizer, protocol.schedule, protocol.temperature) != ("sgd", "cosine", None):
        raise ConfigError(
            f"a squeeze has the sgd optimizer, the cosine schedule and no temperature, not {protocol.optimizer}, "
            f"{protocol.schedule} and {protocol.temperature}; take squeeze_protocol()"
        )
    theta = shape.initial(generator(seed, "squeeze", "initial")).to(device)
    velocity = torch.zeros_like(theta)
    # A tensor for each layer: a step writes all of them, and autograd would refuse that of views on one.
    means = [torch.zeros(shape.width, device=device) for _ in range(shape.depth)]
    variances = [torch.ones(shape.width, device=device) for _ in range(shape.depth)]
    labels = dataset.labels("train")
    for epoch in range(protocol.epochs):
        rate = learning_rate(protocol, epoch)
        draws = generator(seed, "squeeze", "epoch", epoch)
        for rows in torch.randperm(len(labels), generator=draws).split(protocol.batch_size):
            draw = augmentation.draw(len(rows), dataset.image_size, draws)
            images = augmentation.apply(dataset.normalized("train", rows).to(device), draw)
            leaf = theta.detach().requires_grad_()
            logits, _ = _forward(shape, leaf, means, variances, images, training=True)
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels[rows].to(device)), leaf)
            # torch.optim.SGD's, whose class loads the compiler, which takes a process two seconds.
            velocity.mul_(protocol.momentum).add_(gradient.add_(theta, alpha=protocol.weight_decay))
            theta.sub_(velocity, alpha=rate)
    network = BatchNormConvNet(shape=shape, theta=theta, means=torch.stack(means), variances=torch.stack(variances))
    if not all(bool(torch.isfinite(getattr(network, name)).all()) for name in _TENSORS):
        raise ConfigError(
            f"a squeeze must stay finite, and this one did not with learning_rate {protocol.learning_rate}: lower it"
        )
    return network


def squeezed(
    folder: Path,
    shape: ConvNet,
    dataset: ImageDataset,
    protocol: Protocol,
    augmentation: Augmentation,
    seed: int,
    device: torch.device,
) -> BatchNormConvNet:
    """Return what `squeeze` trains, read from `folder` if it has been trained before; arguments as for `squeeze`.

    Raises:
        DatasetError: The file is damaged or not what its name says; the message says to delete it.
    """
    identity = {
        "dataset": dataset.digest,
        "network": asdict(shape),
        "protocol": asdict(protocol),
        "augmentation": asdict(augmentation),
        "seed": seed,
    }

    def make() -> dict[str, Tensor]:
        network = squeeze(shape, dataset, protocol, augmentation, seed, device)
        return {name: getattr(network, name) for name in _TENSORS}

    tensors = kept(folder, "squeezed-network", identity, make)
    return BatchNormConvNet(shape=shape, **{name: tensor.to(device) for name, tensor in tensors.items()})


def _forward(
    shape: ConvNet,
    theta: Tensor,
    means: Sequence[Tensor] | Tensor,
    variances: Sequence[Tensor] | Tensor,
    images: Tensor,
    *,
    training: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Return logits and what enters each batch norm; in training the norms are the batch's and update the running."""
    parameters = shape.unflatten(theta)
    x, entering = images, []
    for block in range(shape.depth):
        x = F.conv2d(x, parameters[f"conv{block}.weight"], parameters[f"conv{block}.bias"], padding=1)
        entering.append(x)
        x = F.batch_norm(
            x,
            means[block],
            variances[block],
            parameters[f"norm{block}.weight"],
            parameters[f"norm{block}.bias"],
            training=training,
            momentum=RUNNING_MOMENTUM,
            eps=NORM_EPSILON,
        )
        x = F.avg_pool2d(F.relu(x), 2)
    return F.linear(x.flatten(1), parameters["linear.weight"], parameters["linear.bias"]), entering
