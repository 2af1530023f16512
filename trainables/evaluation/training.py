"""Evaluation of a set of images: fresh networks are trained on it and tested on real images.

Source: docs/method.md, "Challenge protocol" and "Label regimes".

Several networks can be trained side by side in the same kernels. Each has the initial parameters, batches and
augmentation of its own seed, so its result is the same as alone, up to rounding.

Shape legend: K networks, n training images, B images of a batch, m test images, C classes, P parameters.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trainables.at_once import MOST_AT_ONCE, by_size, double_while_worthwhile, measured_once
from trainables.config.protocol import Protocol
from trainables.data.augmentation import Augmentation, Draw
from trainables.data.datasets import ImageDataset
from trainables.data.transfer import moved
from trainables.evaluation.metrics import Metrics, measure
from trainables.evaluation.optimizer import Optimizer, learning_rate
from trainables.evaluation.regimes import CutMix, Labels, ViewLabels, check_labels, training_loss
from trainables.networks.network import Network, network_identity
from trainables.seeding import generator

__all__ = [
    "ImagesAt",
    "Step",
    "evaluate",
    "evaluate_networks",
    "groups_of",
    "measure_network",
    "networks_at_once",
    "predict",
    "predict_logits",
    "train_network",
    "train_networks",
    "training_steps",
]

PREDICTION_BATCH = 256  # the evaluator's; at 64 × 64 pixels and width 128 a batch passes through 1.6 GB

ImagesAt = Tensor | Callable[[Tensor], Tensor]
"""Images of a training or a test: normalised, float [n, ch, H, W], or a function that returns those of indices [B].

The images lie on the device of the training, the indices on the CPU.
"""


@dataclass(frozen=True)
class Step:
    """A completed step of the optimiser; its tensors are those of the training, and the next step overwrites them."""

    epoch: int
    """Epoch of the step, counted from 0."""
    learning_rate: float
    theta: Tensor
    """Parameters after the step, float32 [K, P]."""
    velocity: Tensor
    """The optimiser's momentum after the step, float32 [K, P]; of AdamW the mean of the gradients, uncorrected."""


def training_steps(
    network: Network,
    images: ImagesAt,
    labels: Labels,
    *,
    protocol: Protocol,
    augmentation: Augmentation,
    seeds: Sequence[int],
) -> Iterator[Step]:
    """Train fresh networks side by side on a set, and yield after every step.

    Source: docs/method.md, "Challenge protocol" and "Label regimes".

    Args:
        network: The network to train, once per seed.
        images: The normalised float32 images, on the device of `labels`.
        labels: Classes int64 [n], a teacher's logits float [n, C] or the teacher of the views, see `regimes.targets`;
            their device is that of the training.
        protocol: Epochs, optimiser, batches, and the temperature of soft labels.
        augmentation: DSA families of the training; one draw per batch and network.
        seeds: K seeds, one per network, of its initial parameters, batches and augmentation.

    Yields:
        Every step of the optimiser.

    Raises:
        ConfigError: The protocol trains with other labels.

    Cost: protocol.epochs · ⌈n / batch_size⌉ steps, each with a forward pass of K · B images through the teacher if a
    teacher labels the views. Memory for K graphs of a batch and 3·K parameter vectors, or 4·K with AdamW.
    """
    check_labels(labels, protocol, network.classes)
    draws = [generator(seed, "evaluation", "batches") for seed in seeds]
    initial = [network.initial(generator(seed, "evaluation", "initial")) for seed in seeds]
    theta = torch.stack(initial).to(labels.device)
    optimizer = Optimizer(protocol, theta)
    for epoch in range(protocol.epochs):
        if protocol.schedule == "drop" and protocol.restart_momentum and epoch == protocol.drop_after_epochs:
            optimizer = Optimizer(protocol, theta)  # the evaluator makes a new one here
        rate = learning_rate(protocol, epoch)
        drawn = [_epoch(len(labels), network.image_size, protocol, augmentation, each) for each in draws]
        for batches, placed in zip(
            zip(*drawn, strict=True), zip(*moved(drawn, labels.device), strict=True), strict=True
        ):
            views = torch.stack(
                [
                    there.view(
                        images[there.indices] if isinstance(images, Tensor) else images(batch.indices), augmentation
                    )
                    for batch, there in zip(batches, placed, strict=True)
                ]
            )
            index = torch.stack([there.indices for there in placed])
            optimizer.step(_gradients(network, theta, views, _labels_of(labels, index, views), protocol), rate)
            yield Step(epoch, rate, theta, optimizer.velocity)


@dataclass(frozen=True)
class _Batch:
    """The images that a network is shown in a step, and how they are changed."""

    indices: Tensor
    """int64 [B]."""
    draw: Draw | None
    box: CutMix | None

    def view(self, images: Tensor, augmentation: Augmentation) -> Tensor:
        """Return the view of the batch's images [B, ch, H, W]: augmented, then mixed."""
        view = augmentation.apply(images, self.draw)
        return view if self.box is None else self.box.apply(view)


def _epoch(
    images: int, side: int, protocol: Protocol, augmentation: Augmentation, draws: torch.Generator
) -> list[_Batch]:
    """Draw the batches of a network's epoch on the CPU, all before the first, so that they are sent at once."""
    return [
        _Batch(
            indices,
            augmentation.draw(len(indices), side, draws),
            CutMix.draw(len(indices), side, draws) if protocol.cutmix else None,
        )
        for indices in torch.randperm(images, generator=draws).split(protocol.batch_size)
    ]


def _labels_of(labels: Labels, index: Tensor, views: Tensor) -> Tensor:
    """Return the labels of views [K, B, …] of images with indices [K, B]: classes [K·B] or logits [K·B, C]."""
    if isinstance(labels, ViewLabels):
        with torch.no_grad():
            return labels.teacher(views.flatten(0, 1))
    return labels[index].flatten(0, 1)


def _gradients(network: Network, theta: Tensor, views: Tensor, labels: Tensor, protocol: Protocol) -> Tensor:
    """Return each network's gradient of its mean loss, [K, P], at views [K, B, …] with labels [K·B] or [K·B, C]."""
    leaf = theta.detach().requires_grad_()
    if len(leaf) == 1:  # plain kernels: vmap's grouped convolutions are slower for one network
        logits = network.logits(leaf[0], views[0])
    else:
        logits = torch.func.vmap(network.logits)(leaf, views).flatten(0, 1)
    # No network's parameters occur in another's loss, so the gradient of the sum of the losses holds them all.
    loss = training_loss(logits, labels, protocol.temperature) * len(leaf)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient


def train_networks(
    network: Network,
    images: ImagesAt,
    labels: Labels,
    *,
    protocol: Protocol,
    augmentation: Augmentation,
    seeds: Sequence[int],
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Train fresh networks side by side and return their parameters, float32 [K, P]; arguments as in `training_steps`.

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
    network: Network,
    images: ImagesAt,
    labels: Labels,
    *,
    protocol: Protocol,
    augmentation: Augmentation,
    seed: int,
) -> Tensor:
    """Train one fresh network and return its parameters, float32 [P]; arguments as in `training_steps`."""
    return train_networks(network, images, labels, protocol=protocol, augmentation=augmentation, seeds=[seed])[0]


@torch.no_grad()
def predict_logits(network: Network, theta: Tensor, images: ImagesAt, count: int) -> Tensor:
    """Return logits [count, C] on the CPU of the images of indices 0 to count − 1."""
    batches = torch.arange(count).split(PREDICTION_BATCH)
    logits = [
        network.logits(theta, images[index[0] : index[-1] + 1] if isinstance(images, Tensor) else images(index))
        for index in batches
    ]
    return torch.cat(logits).cpu()  # all at once: a copy of every batch would wait for it


def predict(network: Network, theta: Tensor, images: ImagesAt, count: int) -> Tensor:
    """Return predicted classes, int64 [count] on the CPU, of the images of indices 0 to count − 1."""
    return predict_logits(network, theta, images, count).argmax(dim=1)


def evaluate_networks(
    network: Network,
    dataset: ImageDataset,
    split: str,
    images: ImagesAt,
    labels: Labels,
    *,
    protocol: Protocol,
    augmentation: Augmentation,
    seeds: Sequence[int],
    at_once: int = 1,
    progress: Callable[[int], None] | None = None,
) -> list[Metrics]:
    """Train one fresh network per seed on a set, and test each once on a split of a dataset.

    Arguments as in `training_steps`; `at_once` networks are trained side by side (see `networks_at_once`), and
    `progress` is called with the total number of epochs done by all networks.
    """
    groups = groups_of(seeds, at_once)
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


def measure_network(network: Network, theta: Tensor, dataset: ImageDataset, split: str) -> Metrics:
    """Return the metrics of a network with parameters float32 [P] on a split of a dataset; runs on theta's device."""
    actual = dataset.labels(split)
    predicted = predict(network, theta, lambda index: dataset.normalized(split, index, theta.device), len(actual))
    return measure(predicted, actual, dataset.classes)


def groups_of(seeds: Sequence[int], at_once: int) -> list[list[int]]:
    """Return the seeds in groups of `at_once`; the last may be smaller."""
    return [list(seeds[first : first + at_once]) for first in range(0, len(seeds), at_once)]


def networks_at_once(
    network: Network,
    images: ImagesAt,
    labels: Labels,
    *,
    protocol: Protocol,
    augmentation: Augmentation,
    networks: int,
    folder: Path,
    deterministic: bool = False,
) -> int:
    """Return how many of the networks should be trained on a set side by side, at least 1.

    On a CPU the result is 1, because one network already uses all cores (`python -m benchmarks.evaluator`). On a GPU it
    is measured once on a machine, in steps of the training.

    Args:
        network: As the other arguments that are not named here, see `training_steps`.
        images: The images of the set.
        labels: Their labels, on the device of the training.
        protocol: Settings of the training.
        augmentation: DSA families of the training.
        networks: Networks that are to be trained.
        folder: Folder on this machine for what was measured.
        deterministic: Whether the number must follow from the settings alone, and not from a clock.
    """
    most, batch = min(networks, MOST_AT_ONCE), min(protocol.batch_size, len(labels))
    if labels.device.type == "cpu" or most == 1:
        return 1
    if deterministic:
        return by_size(network, batch, most)

    def seconds(at_once: int) -> float:
        steps = training_steps(
            network, images, labels, protocol=protocol, augmentation=augmentation, seeds=range(at_once)
        )
        return _seconds_per_step(steps) / at_once

    identity = {
        "work": "networks", "network": network_identity(network), "batch": batch, "optimizer": protocol.optimizer,
        "augmentation": list(augmentation.families), "most": most,
    }  # fmt: skip
    return measured_once(folder, identity, lambda: double_while_worthwhile(seconds, most))


def _seconds_per_step(steps: Iterator[Step]) -> float:
    """Return the median seconds of up to three steps after the first."""
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        if (step := next(steps, None)) is None:
            break
        float(step.theta.sum())  # waits for the device
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:] or seconds)


def evaluate(
    network: Network,
    dataset: ImageDataset,
    split: str,
    images: ImagesAt,
    labels: Labels,
    *,
    protocol: Protocol,
    augmentation: Augmentation,
    seed: int,
) -> Metrics:
    """Train one fresh network on a set and test it on a split of a dataset; arguments as in `training_steps`."""
    (metrics,) = evaluate_networks(
        network, dataset, split, images, labels, protocol=protocol, augmentation=augmentation, seeds=[seed]
    )
    return metrics
