"""What a set is worth while something is still to be chosen: networks trained on it, on the validation split."""

from collections.abc import Sequence

from torch import Tensor

from trainables.augmentation import Augmentation
from trainables.config import Protocol
from trainables.datasets import ImageDataset
from trainables.evaluation import evaluate
from trainables.labels import default_order_labels
from trainables.networks import ConvNet

__all__ = ["validation_accuracy"]


def validation_accuracy(
    network: ConvNet,
    dataset: ImageDataset,
    images: Tensor,
    *,
    protocol: Protocol,
    augmentation: Augmentation,
    seeds: Sequence[int],
) -> float:
    """Return the mean accuracy of fresh networks, one after the other, trained on a set with the challenge's labels.

    Args:
        network: What is trained, once a seed, on the images' device.
        dataset: Has the validation split.
        images: Normalised float [ipc·C, ch, H, W], in default order.
        protocol: How they are trained.
        augmentation: DSA families of the training.
        seeds: One a network.
    """
    labels = default_order_labels(len(images) // dataset.classes, dataset.classes).to(images.device)
    accuracies = [
        evaluate(
            network, dataset, "validation", images.__getitem__, labels,
            protocol=protocol, augmentation=augmentation, seed=seed,
        ).accuracy
        for seed in seeds
    ]  # fmt: skip
    return sum(accuracies) / len(accuracies)
