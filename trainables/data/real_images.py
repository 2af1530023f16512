"""Random real images in the layout of a synthetic set."""

import torch
from torch import Tensor

from trainables.data.datasets import ImageDataset
from trainables.errors import ConfigError
from trainables.seeding import generator

__all__ = ["check_ipc", "real_images"]


def check_ipc(dataset: ImageDataset, ipc: int) -> None:
    """Check that every class has at least `ipc` training images.

    Raises:
        ConfigError: A class has fewer, or `ipc` is below 1.
    """
    if ipc < 1:
        raise ConfigError(f"ipc must be at least 1, not {ipc}")
    counts = dataset.labels("train").bincount(minlength=dataset.classes).tolist()
    for name, count in zip(dataset.class_names, counts, strict=True):
        if count < ipc:
            raise ConfigError(f"class {name!r} has {count} training images, fewer than ipc = {ipc}; lower ipc")


def real_images(dataset: ImageDataset, ipc: int, seed: int) -> Tensor:
    """Return `ipc` real training images per class in default order, normalised float32 [ipc·C, ch, H, W].

    Raises:
        ConfigError: A class has fewer than `ipc` images, or `ipc` is below 1.
    """
    chosen = [order[:ipc] for order in class_orders(dataset, ipc, seed)]
    return dataset.normalized("train", torch.cat(chosen))


def class_orders(dataset: ImageDataset, ipc: int, seed: int) -> list[Tensor]:
    """Return the rows of every class's training images in random order: C tensors, int64.

    Raises:
        ConfigError: A class has fewer than `ipc` images, or `ipc` is below 1.
    """
    check_ipc(dataset, ipc)
    labels = dataset.labels("train")
    draws = generator(seed, "initialization")
    orders = []
    for label in range(dataset.classes):
        rows = (labels == label).nonzero().flatten()
        orders.append(rows[torch.randperm(len(rows), generator=draws)])
    return orders
