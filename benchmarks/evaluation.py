"""The evaluator's training on random images in two ways: networks one after the other, and side by side."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from trainables.config.protocol import Protocol
from trainables.data.augmentation import FAMILIES, Augmentation
from trainables.evaluation.training import train_network, train_networks
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator

__all__ = ["ALONE", "TOGETHER", "Work", "prepared"]

ALONE, TOGETHER = "one at a time", "side by side"


@dataclass(frozen=True, kw_only=True)
class Work:
    """The training that every repeat does in every way."""

    device: str
    networks: int
    epochs: int
    images: int
    classes: int
    channels: int
    size: int
    """Side of an image, in pixels."""
    depth: int
    width: int

    @property
    def images_seen(self) -> int:
        """Training images of all networks and epochs together."""
        return self.networks * self.epochs * self.images


def prepared(work: Work) -> dict[str, Callable[[], object]]:
    """Return the ways of training by name, as functions that do all of the work."""
    network = ConvNet(
        channels=work.channels, image_size=work.size, classes=work.classes, depth=work.depth, width=work.width
    )
    shape = (work.images, work.channels, work.size, work.size)
    images = torch.randn(shape, generator=generator("benchmark", "images")).to(work.device)
    labels = (torch.arange(work.images) % work.classes).to(work.device)
    protocol = Protocol(epochs=work.epochs)
    augmentation = Augmentation(families=tuple(FAMILIES)).for_evaluation()
    seeds = range(work.networks)

    def one_at_a_time() -> None:
        for seed in seeds:
            train_network(network, images, labels, protocol=protocol, augmentation=augmentation, seed=seed)

    def side_by_side() -> None:
        train_networks(network, images, labels, protocol=protocol, augmentation=augmentation, seeds=seeds)

    return {ALONE: one_at_a_time, TOGETHER: side_by_side}
