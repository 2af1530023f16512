"""Random real images in the layout of a synthetic set."""

import torch
from torch import Tensor

from trainables.data.datasets import ImageDataset
from trainables.errors import ConfigError
from trainables.seeding import generator

__all__ = ["check_ipc", "class_orders", "real_images", "real_rows"]


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


def real_images(dataset: ImageDataset, ipc: int, seed: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the images of `real_rows` on a device, normalised there, float32 [ipc·C, ch, H, W].

    Raises:
        ConfigError: A class has fewer than `ipc` images, or `ipc` is below 1.
    """
    return dataset.normalized("train", real_rows(dataset, ipc, seed), device)


def real_rows(dataset: ImageDataset, ipc: int, seed: int) -> Tensor:
    """Return the rows of `ipc` random training images per class in default order, int64 [ipc·C].

    Raises:
        ConfigError: A class has fewer than `ipc` images, or `ipc` is below 1.
    """
    return torch.cat([order[:ipc] for order in class_orders(dataset, ipc, seed)])


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
