"""What a set of images is worth: fresh networks are trained on it and tested on real images. METHOD §3.

Several networks can be trained side by side in the same kernels; each keeps the initial parameters, batches and
augmentation that its own seed names, so that it comes out as it would alone, to rounding.

Shape legend: K networks, n training images, B images of a batch, m test images, C classes, P parameters.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.augmentation import Augmentation
from trainables.config import Protocol
from trainables.datasets import ImageDataset
from trainables.networks import ConvNet
from trainables.seeding import generator

__all__ = [
    "TESTED",
    "ImagesAt",
    "Metrics",
    "Step",
    "evaluate",
    "evaluate_networks",
    "learning_rate",
    "measure",
    "measure_network",
    "predict",
    "predict_logits",
    "train_network",
    "train_networks",
    "training_steps",
]

PREDICTION_BATCH = 256  # the evaluator's; at 64 × 64 pixels and width 128 a batch passes through 1.6 GB

ImagesAt = Callable[[Tensor], Tensor]
"""Gives the normalised images [B, ch, H, W] of indices [B]; `tensor.__getitem__` is one."""


TESTED = ("accuracy", "macro_f1", "macro_recall")
"""What of Metrics is reported as a figure."""


@dataclass(frozen=True)
class Metrics:
    """How a trained network does on real images; every figure is a fraction in [0, 1]."""

    confusion: tuple[tuple[int, ...], ...]
    """Number of images by actual class (row) and predicted class (column)."""

    @property
    def accuracy(self) -> float:
        """Share of the images that are predicted as what they are."""
        return float(self._hits.sum() / self._counts.sum())

    @property
    def macro_f1(self) -> float:
        """Mean of the classes' F1; one that is never predicted has 0, as scikit-learn's `zero_division=0` has it."""
        return float((2 * self._hits / (self._counts.sum(0) + self._counts.sum(1)).clip(1))[self._present].mean())

    @property
    def macro_recall(self) -> float:
        """Mean of the classes' recall."""
        return float((self._hits / self._counts.sum(1).clip(1))[self._present].mean())

    @property
    def _counts(self) -> np.ndarray:
        return np.asarray(self.confusion)

    @property
    def _hits(self) -> np.ndarray:
        hits: np.ndarray = np.diagonal(self._counts)
        return hits

    @property
    def _present(self) -> np.ndarray:
        """Classes that occur or are predicted."""
        present: np.ndarray = (self._counts.sum(0) + self._counts.sum(1)) > 0
        return present


@dataclass(frozen=True)
class Step:
    """A step of the optimiser just taken; the tensors are the training's own, and the next step overwrites them."""

    epoch: int
    """The epoch it belongs to, counted from 0."""
    learning_rate: float
    theta: Tensor
    """Parameters after the step, float32 [K, P]."""
    velocity: Tensor
    """The optimiser's momentum after the step, float32 [K, P]."""


def learning_rate(protocol: Protocol, epoch: int) -> float:
    """Return the learning rate of an epoch, counted from 0."""
    dropped = epoch >= protocol.drop_after_epochs
    return protocol.learning_rate * (protocol.drop_factor if dropped else 1.0)


def training_steps(
    network: ConvNet,
    images: ImagesAt,
    labels: Tensor,
    *,
    protocol: Protocol,
    augmentation: Augmentation,
    seeds: Sequence[int],
) -> Iterator[Step]:
    """Train fresh networks side by side on a set with hard labels, a step at a time. METHOD §3.

    The optimiser is torch.optim.SGD to the bit: v ← momentum·v + (∇ + weight_decay·θ), θ ← θ − rate·v.

    Args:
        network: What is trained, once a seed.
        images: Gives the normalised float32 images [B, ch, H, W] of indices [B], on the device of `labels`.
        labels: int64 [n]; their device is that of the training.
        protocol: Epochs, optimiser and batches.
        augmentation: DSA families of the training; one draw a batch and network.
        seeds: K seeds, one a network; each names its initial parameters, its batches and its augmentation.

    Cost: protocol.epochs · ⌈n / batch_size⌉ steps; memory for K graphs of a batch and 3·K parameter vectors.
    """
    draws = [generator(seed, "evaluation", "batches") for seed in seeds]
    initial = [network.initial(generator(seed, "evaluation", "initial")) for seed in seeds]
    theta = torch.stack(initial).to(labels.device)
    velocity = torch.zeros_like(theta)
    for epoch in range(protocol.epochs):
        if epoch == protocol.drop_after_epochs:
            velocity = torch.zeros_like(theta)  # the evaluator makes a new optimiser here
        rate = learning_rate(protocol, epoch)
        orders = torch.stack([torch.randperm(len(labels), generator=of_network) for of_network in draws])
        for index in orders.split(protocol.batch_size, dim=1):
            batch = torch.stack(
                [
                    augmentation.apply(images(row), augmentation.draw(len(row), network.image_size, of_network))
                    for row, of_network in zip(index, draws, strict=True)
                ]
            )
            gradient = _gradients(network, theta, batch, labels[index])
            velocity.mul_(protocol.momentum).add_(gradient.add_(theta, alpha=protocol.weight_decay))
            theta.sub_(velocity, alpha=rate)
            yield Step(epoch, rate, theta, velocity)


def _gradients(network: ConvNet, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Return each network's gradient of its mean cross-entropy, [K, P], at images [K, B, …] with labels [K, B]."""
    leaf = theta.detach().requires_grad_()
    if len(leaf) == 1:  # plain kernels: vmap's grouped convolutions are slower for one network
        logits = network.logits(leaf[0], images[0])
    else:
        logits = torch.func.vmap(network.logits)(leaf, images).flatten(0, 1)
    # No network's parameters occur in another's loss, so the gradient of the sum of the losses holds them all.
    loss = F.cross_entropy(logits, labels.flatten()) * len(leaf)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient


def train_networks(
    network: ConvNet,
    images: ImagesAt,
    labels: Tensor,
    *,
    protocol: Protocol,
    augmentation: Augmentation,
    seeds: Sequence[int],
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Train fresh networks side by side and return their parameters, float32 [K, P]; arguments as `training_steps`'.

    `progress` is called after each epoch with the number of epochs done.
    """
    theta = torch.empty(len(seeds), network.parameters)
    done = 0
    for step in training_steps(network, images, labels, protocol=protocol, augmentation=augmentation, seeds=seeds):
        theta = step.theta
        if progress and step.epoch > done:
            done = step.epoch
            progress(done)
    if progress:
        progress(protocol.epochs)
    return theta


def train_network(
    network: ConvNet,
    images: ImagesAt,
    labels: Tensor,
    *,
    protocol: Protocol,
    augmentation: Augmentation,
    seed: int,
) -> Tensor:
    """Train one fresh network and return its parameters, float32 [P]; arguments as `training_steps`'."""
    return train_networks(network, images, labels, protocol=protocol, augmentation=augmentation, seeds=[seed])[0]


@torch.no_grad()
def predict_logits(network: ConvNet, theta: Tensor, images: ImagesAt, count: int) -> Tensor:
    """Return logits [count, C] on the CPU of the images of indices 0 to count − 1."""
    batches = torch.arange(count).split(PREDICTION_BATCH)
    return torch.cat([network.logits(theta, images(index)).cpu() for index in batches])


def predict(network: ConvNet, theta: Tensor, images: ImagesAt, count: int) -> Tensor:
    """Return predicted classes, int64 [count] on the CPU, of the images of indices 0 to count − 1."""
    return predict_logits(network, theta, images, count).argmax(dim=1)


def evaluate_networks(
    network: ConvNet,
    dataset: ImageDataset,
    split: str,
    images: ImagesAt,
    labels: Tensor,
    *,
    protocol: Protocol,
    augmentation: Augmentation,
    seeds: Sequence[int],
    progress: Callable[[int], None] | None = None,
) -> list[Metrics]:
    """Train a fresh network a seed on a set and test each once on a split of a dataset.

    On CUDA the networks are trained side by side, elsewhere one after the other: on a CPU one network already fills
    the cores (`python -m benchmarks.evaluator` measures both). Arguments as for `training_steps`; `progress` is called
    with the number of epochs done, of all networks together.
    """
    groups = [list(seeds)] if _pays_side_by_side(labels.device) else [[seed] for seed in seeds]
    metrics: list[Metrics] = []
    for group in groups:
        before = len(metrics) * protocol.epochs

        def show(epochs: int, before: int = before, networks: int = len(group)) -> None:
            if progress:
                progress(before + epochs * networks)

        thetas = train_networks(
            network, images, labels, protocol=protocol, augmentation=augmentation, seeds=group, progress=show
        )
        metrics += [measure_network(network, theta, dataset, split) for theta in thetas]
    return metrics


def measure_network(network: ConvNet, theta: Tensor, dataset: ImageDataset, split: str) -> Metrics:
    """Return how a network with trained parameters float32 [P] does on a split of a dataset; on theta's device."""
    actual = dataset.labels(split)
    predicted = predict(network, theta, lambda index: dataset.normalized(split, index).to(theta.device), len(actual))
    return measure(predicted, actual, dataset.classes)


def _pays_side_by_side(device: torch.device) -> bool:
    return device.type == "cuda"


def evaluate(
    network: ConvNet,
    dataset: ImageDataset,
    split: str,
    images: ImagesAt,
    labels: Tensor,
    *,
    protocol: Protocol,
    augmentation: Augmentation,
    seed: int,
) -> Metrics:
    """Train one fresh network on a set and test it on a split of a dataset; arguments as for `training_steps`."""
    (metrics,) = evaluate_networks(
        network, dataset, split, images, labels, protocol=protocol, augmentation=augmentation, seeds=[seed]
    )
    return metrics


def measure(predicted: Tensor, labels: Tensor, classes: int) -> Metrics:
    """Return how predictions int64 [m] do against labels int64 [m], both in [0, classes)."""
    confusion = torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)
    return Metrics(tuple(tuple(row) for row in confusion.tolist()))
