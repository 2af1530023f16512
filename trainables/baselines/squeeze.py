"""SRe2L's squeezed network: trained with batch normalisation on the real images. docs/method.md, "SRe2L"."""

from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.config.protocol import Protocol
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset
from trainables.data.transfer import moved
from trainables.errors import ConfigError
from trainables.evaluation.optimizer import learning_rate
from trainables.networks.batch_norm import BatchNormConvNet, forward
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator
from trainables.storage.tensor_cache import load_or_make

__all__ = ["squeeze", "squeeze_protocol", "squeezed"]

_TENSORS = ("theta", "means", "variances")


def squeeze_protocol(epochs: int = 200) -> Protocol:
    """Return the protocol of a squeeze: SGD at 0.1, cosine, batches of 128, as in SRe2L's code for CIFAR-100."""
    return Protocol(epochs=epochs, learning_rate=0.1, schedule="cosine", batch_size=128)


def squeeze(
    shape: ConvNet,
    dataset: ImageDataset,
    protocol: Protocol,
    augmentation: Augmentation,
    seed: int,
    device: torch.device,
) -> BatchNormConvNet:
    """Train a batch-norm ConvNet on the training split, with hard labels. docs/method.md, "SRe2L".

    Args:
        shape: Depth, width and sizes of the network.
        dataset: Its images are read one batch at a time.
        protocol: Epochs, optimiser and batches, with hard labels.
        augmentation: DSA families of the training; SRe2L's code shifts and mirrors.
        seed: Seed of initial parameters, batches and augmentation.
        device: Device of the training.

    Raises:
        ConfigError: The protocol is not SGD with hard labels and a cosine schedule, or the training diverged.

    Cost: protocol.epochs · ⌈n / batch_size⌉ steps over the n training images.
    """
    if (protocol.optimizer, protocol.schedule, protocol.temperature) != ("sgd", "cosine", None):
        raise ConfigError(
            f"a squeeze has the sgd optimizer, the cosine schedule and no temperature, not {protocol.optimizer}, "
            f"{protocol.schedule} and {protocol.temperature}; take squeeze_protocol()"
        )
    theta = shape.initial(generator(seed, "squeeze", "initial")).to(device)
    velocity = torch.zeros_like(theta)
    # One tensor per layer: a step writes all of them in place, which autograd refuses for views of one tensor.
    means = [torch.zeros(shape.width, device=device) for _ in range(shape.depth)]
    variances = [torch.ones(shape.width, device=device) for _ in range(shape.depth)]
    labels = dataset.labels("train").to(device)
    for epoch in range(protocol.epochs):
        rate = learning_rate(protocol, epoch)
        draws = generator(seed, "squeeze", "epoch", epoch)
        pieces = torch.randperm(len(labels), generator=draws).split(protocol.batch_size)
        drawn = [(rows, augmentation.draw(len(rows), dataset.image_size, draws)) for rows in pieces]
        for rows, (placed_rows, draw) in zip(pieces, moved(drawn, device), strict=True):
            images = augmentation.apply(dataset.normalized("train", rows, device), draw)
            leaf = theta.detach().requires_grad_()
            logits, _ = forward(shape, leaf, means, variances, images, training=True)
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels[placed_rows]), leaf)
            # The step of torch.optim.SGD; its class loads the compiler, which costs a process two seconds.
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
    """Return the network of `squeeze`, read from `folder` if it is stored there; arguments as in `squeeze`.

    Raises:
        DatasetError: The file is damaged or is that of another network; the message says to delete it.
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

    tensors = load_or_make(folder, "squeezed-network", identity, make)
    return BatchNormConvNet(shape=shape, **{name: tensor.to(device) for name, tensor in tensors.items()})
