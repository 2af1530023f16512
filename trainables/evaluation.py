"""What a set of images is worth: fresh networks are trained on it and tested on real images. METHOD §3.

Shape legend: n training images, m test images, C classes, P parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.augmentation import Augmentation
from trainables.config import Protocol
from trainables.datasets import ImageDataset
from trainables.networks import ConvNet
from trainables.seeding import generator

__all__ = ["ImagesAt", "Metrics", "evaluate", "learning_rate", "measure", "predict", "train_network"]

PREDICTION_BATCH = 1024

ImagesAt = Callable[[Tensor], Tensor]
"""Gives the normalised images [B, ch, H, W] of indices [B]; `tensor.__getitem__` is one."""


@dataclass(frozen=True)
class Metrics:
    """How a trained network does on real images; every figure is a fraction in [0, 1]."""

    accuracy: float
    macro_f1: float
    macro_recall: float


def learning_rate(protocol: Protocol, epoch: int) -> float:
    """Return the learning rate of an epoch, counted from 0."""
    dropped = epoch >= protocol.drop_after_epochs
    return protocol.learning_rate * (protocol.drop_factor if dropped else 1.0)


def train_network(
    network: ConvNet,
    images: ImagesAt,
    labels: Tensor,
    *,
    protocol: Protocol,
    augmentation: Augmentation,
    seed: int,
) -> Tensor:
    """Train a fresh network on a set with hard labels and return its parameters, float32 [P].

    Args:
        network: What is trained.
        images: Gives the normalised float32 images [B, ch, H, W] of indices [B], on the device of `labels`.
        labels: int64 [n]; their device is that of the training.
        protocol: Epochs, optimiser and batches.
        augmentation: DSA families of the training; one draw a batch.
        seed: Names the network's initial parameters, its batches and its augmentation.

    Cost: protocol.epochs · ⌈n / batch_size⌉ steps; memory for one batch's graph and two parameter vectors.
    """
    theta = network.initial(generator(seed, "evaluation", "initial")).to(labels.device)
    draws = generator(seed, "evaluation", "batches")
    velocity = torch.zeros_like(theta)
    for epoch in range(protocol.epochs):
        if epoch == protocol.drop_after_epochs:
            velocity = torch.zeros_like(theta)  # the evaluator makes a new optimiser here
        rate = learning_rate(protocol, epoch)
        for index in torch.randperm(len(labels), generator=draws).split(protocol.batch_size):
            draw = augmentation.draw(len(index), network.image_size, draws)
            leaf = theta.requires_grad_()
            loss = F.cross_entropy(network.logits(leaf, augmentation.apply(images(index), draw)), labels[index])
            (gradient,) = torch.autograd.grad(loss, leaf)
            theta = theta.detach()
            velocity.mul_(protocol.momentum).add_(gradient).add_(theta, alpha=protocol.weight_decay)
            theta.sub_(velocity, alpha=rate)
    return theta.detach()


@torch.no_grad()
def predict(network: ConvNet, theta: Tensor, images: ImagesAt, count: int) -> Tensor:
    """Return predicted classes, int64 [count] on the CPU, of the images of indices 0 to count − 1."""
    batches = torch.arange(count).split(PREDICTION_BATCH)
    return torch.cat([network.logits(theta, images(index)).argmax(dim=1).cpu() for index in batches])


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
    """Train one fresh network on a set and test it on a split of a dataset; arguments as for `train_network`."""
    theta = train_network(network, images, labels, protocol=protocol, augmentation=augmentation, seed=seed)
    actual = dataset.labels(split)
    predicted = predict(network, theta, lambda index: dataset.normalized(split, index).to(labels.device), len(actual))
    return measure(predicted, actual)


def measure(predicted: Tensor, labels: Tensor) -> Metrics:
    """Return accuracy, macro-F1 and macro-recall of predictions int64 [m] against labels int64 [m].

    A class that is never predicted counts with F1 = 0, as scikit-learn's `zero_division=0` has it.
    """
    classes = int(max(predicted.max(), labels.max())) + 1
    confusion = torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes).double()
    hits, actual, claimed = confusion.diagonal(), confusion.sum(dim=1), confusion.sum(dim=0)
    present = (actual + claimed) > 0
    recall = (hits / actual.clamp_min(1))[present]
    f1 = (2 * hits / (actual + claimed).clamp_min(1))[present]
    return Metrics(float(hits.sum() / len(labels)), float(f1.mean()), float(recall.mean()))
