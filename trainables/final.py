"""One training of the finals: a fresh network on a set of images, and the test split once."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.augmentation import Augmentation
from trainables.checkpoints import read_checkpoint
from trainables.config import Protocol
from trainables.datasets import ImageDataset, load
from trainables.evaluation import ImagesAt, measure_network, train_network
from trainables.labels import default_order_labels
from trainables.metrics import Metrics
from trainables.networks import ConvNet
from trainables.regimes import Teacher, targets
from trainables.shared_file import SharedFile, local_path

__all__ = ["images_of", "train_and_test"]


def train_and_test(
    file: Path | SharedFile,
    images: Any,
    network: ConvNet,
    protocol: Protocol,
    augmentation: Augmentation,
    seed: int,
    device: str,
    regime: str = "hard",
    teacher: Any = None,
) -> tuple[Metrics, np.ndarray]:
    """Train one network on a set and test it.

    Args:
        file: The prepared dataset.
        images: The set in default order, float32 array, or where a `BaselineMaker` has kept it; None: the whole
            training split, whose labels are hard.
        network: What is trained.
        protocol: How.
        augmentation: DSA families of the training.
        seed: Names initial parameters, batches and augmentation.
        device: cpu or cuda.
        regime: Where the labels come from.
        teacher: Parameters float32 [P] of the network that labels; None where nobody does.

    Returns:
        What it reached, and its parameters, float32 [P].
    """
    if device == "cpu":
        torch.set_num_threads(1)
    dataset = load(local_path(file), splits=("train", "test"))
    images_at: ImagesAt
    if images is None:
        labels: Any = dataset.labels("train").to(device)
        images_at = lambda index: dataset.normalized("train", index).to(device)  # noqa: E731
    else:
        pixels = _pixels(images, dataset).to(device)
        hard = default_order_labels(len(pixels) // dataset.classes, dataset.classes).to(device)
        labeller = None if teacher is None else Teacher(network, torch.tensor(teacher, device=device))
        labels, images_at = targets(regime, pixels, hard, labeller), pixels.__getitem__
    theta = train_network(network, images_at, labels, protocol=protocol, augmentation=augmentation, seed=seed)
    return measure_network(network, theta, dataset, "test"), theta.cpu().numpy()


def images_of(place: str, dataset: ImageDataset) -> Tensor:
    """Return a set that a worker has kept as rows or images, normalised float32 [ipc·C, ch, H, W], in default order.

    Not in `baselines`, which would have every worker of the finals import what makes them.
    """
    made = read_checkpoint(place)
    if made is None:
        raise FileNotFoundError(place)
    images: Tensor = made["images"] if "images" in made else dataset.normalized("train", made["rows"])
    return images


def _pixels(images: Any, dataset: ImageDataset) -> Tensor:
    return images_of(images, dataset) if isinstance(images, str) else torch.tensor(images)
