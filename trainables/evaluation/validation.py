"""Validation of a set: the accuracy of networks trained on it, on the validation split, for choosing among sets."""

from collections.abc import Sequence

from torch import Tensor

from trainables.config.protocol import Protocol
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset
from trainables.data.labels import default_order_labels
from trainables.evaluation.training import evaluate
from trainables.networks.network import Network

__all__ = ["validation_accuracy"]


def validation_accuracy(
    network: Network,
    dataset: ImageDataset,
    images: Tensor,
    *,
    protocol: Protocol,
    augmentation: Augmentation,
    seeds: Sequence[int],
) -> float:
    """Return the mean validation accuracy, in [0, 1], of fresh networks trained on a set with the challenge's labels.

    The networks are trained one after the other.

    Args:
        network: The network to train, once per seed, on the images' device.
        dataset: The dataset with the validation split.
        images: Normalised float [ipc·C, ch, H, W], in default order.
        protocol: Settings of the training.
        augmentation: DSA families of the training.
        seeds: One seed per network.
    """
    labels = default_order_labels(len(images) // dataset.classes, dataset.classes).to(images.device)
    accuracies = [
        evaluate(
            network, dataset, "validation", images, labels,
            protocol=protocol, augmentation=augmentation, seed=seed,
        ).accuracy
        for seed in seeds
    ]  # fmt: skip
    return sum(accuracies) / len(accuracies)
