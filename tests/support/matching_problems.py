"""Settings and small problems that the tests of distribution and of gradient matching share."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from tests.support.settings import distillation_config
from trainables.config.protocol import Protocol
from trainables.data.augmentation import Augmentation, Draw
from trainables.data.datasets import ImageDataset, Split
from trainables.data.labels import default_order_labels
from trainables.data.real_images import real_images
from trainables.distillation.distribution import DistributionMatching
from trainables.distillation.gradient import GradientMatching
from trainables.distillation.real_matching import RealMatching
from trainables.evaluation.training import evaluate
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator

_Matching = TypeVar("_Matching", bound=RealMatching)

FAMILIES = ("color", "crop", "cutout", "flip", "scale", "rotate")

NOT_READ = {"N": 1, "M": 1, "T_minus": 0, "T": 1, "T_plus": 1, "interval": 1, "lr_alpha": 0.0}
"""What every configuration needs, and only trajectory matching reads."""


def start(
    kind: type[_Matching],
    dataset: ImageDataset,
    network: ConvNet,
    *,
    images: Tensor | None = None,
    seed: int = 0,
    families: tuple[str, ...] = (),
    micro_batch: int | None = None,
    **settings: Any,
) -> _Matching:
    """A distillation of real images in float64, unless other images are given."""
    config = distillation_config(**{**NOT_READ, "ipc": 2, "lr_pixel": 1.0, "batch_syn": 8, **settings})
    return kind(
        config,
        network=network,
        augmentation=Augmentation(families=families),
        dataset=dataset,
        images=real_images(dataset, config.ipc, 0).double() if images is None else images,
        seed=seed,
        micro_batch=micro_batch,
    )


def first_of_each_class(dataset: ImageDataset, count: int) -> ImageDataset:
    """A dataset whose training images are the first few of each class, in default order."""
    labels = dataset.labels("train")
    rows = np.concatenate([(labels == label).nonzero().flatten()[:count].numpy() for label in range(dataset.classes)])
    train = dataset.split("train")
    part = Split(train.images[rows], train.labels[rows], "a part")
    return dataclasses.replace(dataset, splits={**dataset.splits, "train": part})


def one_by_one(augmentation: Augmentation, images: Tensor, draw: Draw | None) -> Tensor:
    """Images each transformed alone by the same draw for one image."""
    return torch.cat([augmentation.apply(image[None], draw) for image in images])


def directional_error(
    build: Callable[[Tensor], DistributionMatching | GradientMatching],
    images: Tensor,
    gradient: Tensor,
    step: float = 1e-6,
) -> float:
    """|slope − ⟨gradient, d⟩| / |⟨gradient, d⟩| along a random direction d, the slope by central differences."""
    direction = torch.randn(images.shape, dtype=images.dtype, generator=generator("direction"))
    ahead, behind = (build(images + sign * step * direction).loss_and_gradient()[0] for sign in (1, -1))
    expected = float((gradient * direction).sum())
    return abs((ahead - behind) / (2 * step) - expected) / abs(expected)


def same_state(one: RealMatching, other: RealMatching) -> None:
    state, expected = one.state_dict(), other.state_dict()
    assert state.keys() == expected.keys()
    for name, value in state.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(expected[name])), name


def accuracies(network: ConvNet, dataset: ImageDataset, *sets: Tensor) -> list[float]:
    """Mean validation accuracy over three networks of each set of images, in default order."""

    def of(images: Tensor) -> float:
        labels = default_order_labels(len(images) // dataset.classes, dataset.classes)
        protocol = Protocol(epochs=100, drop_after_epochs=60, learning_rate=0.05)
        networks = [
            evaluate(
                network,
                dataset,
                "validation",
                images.__getitem__,
                labels,
                protocol=protocol,
                augmentation=Augmentation(),
                seed=seed,
            )
            for seed in range(3)
        ]
        return sum(each.accuracy for each in networks) / 3

    return [of(images.float()) for images in sets]
