"""The evaluation of a set by this process, without Ray: on its GPU if it has one."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from trainables.config.arithmetic import IEEE
from trainables.config.protocol import Protocol
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset
from trainables.data.labels import default_order_labels
from trainables.evaluation.metrics import Metrics
from trainables.evaluation.training import evaluate_networks, networks_at_once
from trainables.memory_errors import refused_without_gpu_memory
from trainables.networks.network import Network
from trainables.seeding import seed_of
from trainables.workers.process import use_arithmetic

__all__ = ["evaluate_here", "prepare_device"]


def prepare_device() -> torch.device:
    """Return the device of this process, and set its arithmetic: IEEE float32."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    use_arithmetic(device.type, IEEE)
    return device


def evaluate_here(
    network: Network,
    dataset: ImageDataset,
    images: Tensor,
    *,
    protocol: Protocol,
    augmentation: Augmentation,
    networks: int,
    seed: int,
    folder: Path,
    progress: Callable[[int], None],
) -> list[Metrics]:
    """Train networks on a set with hard labels in default order, and return their metrics on the test split.

    Args:
        network: The network.
        dataset: The dataset, with its test split.
        images: Normalised float32 [ipc·C, ch, H, W] in default order.
        protocol: How networks are trained.
        augmentation: That of the training.
        networks: The first so many networks of the finals of `seed`.
        seed: The sweep's, or the evaluation's.
        folder: Folder on this machine for how many networks are trained at once.
        progress: Called with the epochs that all networks have done.

    Raises:
        ConfigError: The GPU has too little memory.
    """
    device = prepare_device()
    labels, pixels = default_order_labels(len(images) // dataset.classes, dataset.classes).to(device), images.to(device)
    with refused_without_gpu_memory("while networks are trained on the set", "free its memory, or take a smaller set"):
        at_once = networks_at_once(
            network, pixels, labels, protocol=protocol, augmentation=augmentation, networks=networks, folder=folder
        )
        return evaluate_networks(
            network, dataset, "test", pixels, labels, protocol=protocol, augmentation=augmentation,
            seeds=[seed_of(seed, "finals", number) for number in range(networks)], at_once=at_once, progress=progress,
        )  # fmt: skip
