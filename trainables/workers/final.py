"""One training of the finals: a fresh network is trained on a set of images, and tested once on the test split."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.config.arithmetic import Arithmetic
from trainables.config.protocol import Protocol
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset, load
from trainables.data.labels import default_order_labels
from trainables.evaluation.metrics import Metrics
from trainables.evaluation.regimes import Teacher, targets
from trainables.evaluation.training import ImagesAt, measure_network, train_network
from trainables.networks.network import Network
from trainables.storage.checkpoints import read_checkpoint
from trainables.storage.shared_file import SharedFile, local_path
from trainables.workers.process import prepare_process

__all__ = ["images_of", "train_and_test"]


def train_and_test(
    file: Path | SharedFile,
    images: Any,
    network: Network,
    protocol: Protocol,
    augmentation: Augmentation,
    seed: int,
    device: str,
    arithmetic: Arithmetic,
    regime: str = "hard",
    teacher: Any = None,
) -> tuple[Metrics, np.ndarray]:
    """Train one network on a set and test it.

    Args:
        file: The prepared dataset.
        images: The set in default order: float32 array [S, ch, H, W], rows of the training split, int64 array [S], or
            the path or URI at which a worker has stored it; None: the whole training split, whose labels are hard.
        network: The network to train.
        protocol: Settings of the training.
        augmentation: DSA families of the training.
        seed: Seed of initial parameters, batches and augmentation.
        device: cpu or cuda.
        arithmetic: The arithmetic of training and test.
        regime: Label regime: the source of the labels.
        teacher: Parameters float32 [P] of the network that labels; None in the hard regime.

    Returns:
        The test metrics, and the network's parameters, float32 [P].
    """
    prepare_process(device, arithmetic)
    dataset = load(local_path(file), splits=("train", "test"))
    images_at: ImagesAt
    if images is None:
        labels: Any = dataset.labels("train").to(device)
        images_at = lambda index: dataset.normalized("train", index, device)  # noqa: E731
    else:
        pixels = _pixels(images, dataset, device)
        hard = default_order_labels(len(pixels) // dataset.classes, dataset.classes).to(device)
        labeller = None if teacher is None else Teacher(network, torch.tensor(teacher, device=device))
        labels, images_at = targets(regime, pixels, hard, labeller), pixels
    theta = train_network(network, images_at, labels, protocol=protocol, augmentation=augmentation, seed=seed)
    return measure_network(network, theta, dataset, "test"), theta.cpu().numpy()


def images_of(place: str, dataset: ImageDataset, device: str = "cpu") -> Tensor:
    """Return a set that a worker has stored as rows or images, on a device.

    It is normalised float32 [ipc·C, ch, H, W], in default order.

    It is not in `baselines`, so that workers of the finals do not import the code that makes baselines.

    Raises:
        FileNotFoundError: No set is stored there.
    """
    stored = read_checkpoint(place)
    if stored is None:
        raise FileNotFoundError(place)
    if "images" in stored:
        images: Tensor = stored["images"]
        return images.to(device)
    return dataset.normalized("train", stored["rows"], device)


def _pixels(images: Any, dataset: ImageDataset, device: str) -> Tensor:
    """Return a set, which `train_and_test` describes, normalised float32 [S, ch, H, W] on a device."""
    if isinstance(images, str):
        return images_of(images, dataset, device)
    given = torch.tensor(images)  # a copy: the array may be read-only
    return given.to(device) if given.is_floating_point() else dataset.normalized("train", given, device)
