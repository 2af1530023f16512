"""One training of the finals: a fresh network on a set of images, and the test split once."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainables.augmentation import Augmentation
from trainables.config import Protocol
from trainables.datasets import load
from trainables.evaluation import Metrics, measure_network, train_network
from trainables.labels import default_order_labels
from trainables.networks import ConvNet
from trainables.shared_file import SharedFile, local_path

__all__ = ["train_and_test"]


def train_and_test(
    file: Path | SharedFile,
    images: Any,
    network: ConvNet,
    protocol: Protocol,
    augmentation: Augmentation,
    seed: int,
    device: str,
) -> tuple[Metrics, np.ndarray]:
    """Train one network on images (float32 array, default order; None: the training split) and test it.

    Returns:
        What it reached, and its parameters, float32 [P].
    """
    if device == "cpu":
        torch.set_num_threads(1)
    dataset = load(local_path(file), splits=("train", "test"))
    if images is None:
        labels, images_at = dataset.labels("train"), lambda index: dataset.normalized("train", index).to(device)
    else:
        labels = default_order_labels(len(images) // dataset.classes, dataset.classes)
        images_at = torch.tensor(images, device=device).__getitem__
    theta = train_network(
        network, images_at, labels.to(device), protocol=protocol, augmentation=augmentation, seed=seed
    )
    return measure_network(network, theta, dataset, "test"), theta.cpu().numpy()
