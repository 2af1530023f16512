"""Settings and small problems that the tests of distribution and of gradient matching share."""

import dataclasses

import numpy as np
import torch

from trainables.augmentation import Augmentation
from trainables.config import DistillationConfig, Protocol
from trainables.datasets import Split
from trainables.evaluation import evaluate
from trainables.initialization import real_images
from trainables.labels import default_order_labels
from trainables.seeding import generator

FAMILIES = ("color", "crop", "cutout", "flip", "scale", "rotate")

NOT_READ = {"N": 1, "M": 1, "T_minus": 0, "T": 1, "T_plus": 1, "interval": 1, "lr_alpha": 0.0}
"""What every configuration needs, and only trajectory matching reads."""


def start(kind, dataset, network, *, images=None, seed=0, families=(), micro_batch=None, **settings):
    """A distillation of real images in float64, unless other images are given."""
    config = DistillationConfig(**{**NOT_READ, "ipc": 2, "lr_pixel": 1.0, "batch_syn": 8, **settings})
    return kind(
        config,
        network=network,
        augmentation=Augmentation(families=families),
        dataset=dataset,
        images=real_images(dataset, config.ipc, 0).double() if images is None else images,
        seed=seed,
        micro_batch=micro_batch,
    )


def first_of_each_class(dataset, count):
    """A dataset whose training images are the first few of each class, in default order."""
    labels = dataset.labels("train")
    rows = np.concatenate([(labels == label).nonzero().flatten()[:count].numpy() for label in range(dataset.classes)])
    train = dataset.split("train")
    part = Split(train.images[rows], train.labels[rows], "a part")
    return dataclasses.replace(dataset, splits={**dataset.splits, "train": part})


def one_by_one(augmentation, images, draw):
    """Images each transformed alone by the same draw for one image."""
    return torch.cat([augmentation.apply(image[None], draw) for image in images])


def directional_error(build, images, gradient, step=1e-6):
    """|slope − ⟨gradient, d⟩| / |⟨gradient, d⟩| along a random direction d, the slope by central differences."""
    direction = torch.randn(images.shape, dtype=images.dtype, generator=generator("direction"))
    ahead, behind = (build(images + sign * step * direction).loss_and_gradient()[0] for sign in (1, -1))
    expected = float((gradient * direction).sum())
    return abs((ahead - behind) / (2 * step) - expected) / abs(expected)


def same_state(one, other):
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[name])), name


def accuracies(network, dataset, *sets):
    """Mean validation accuracy over three networks of each set of images, in default order."""

    def of(images):
        labels = default_order_labels(len(images) // dataset.classes, dataset.classes)
        protocol = Protocol(epochs=100, drop_after_epochs=60, learning_rate=0.05)
        arguments = {"protocol": protocol, "augmentation": Augmentation()}
        networks = [
            evaluate(network, dataset, "validation", images.__getitem__, labels, **arguments, seed=seed)
            for seed in range(3)
        ]
        return sum(each.accuracy for each in networks) / 3

    return [of(images.float()) for images in sets]
