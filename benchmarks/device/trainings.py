"""The time of training experts and networks on a set: alone, and several in the same kernels."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from benchmarks.device.results import Measurement
from benchmarks.device.timing import sample
from benchmarks.evaluation import ALONE, TOGETHER, Work, prepared
from benchmarks.made_images import random_dataset
from benchmarks.measure import use_precision
from search_spaces.vocabulary import DEFAULTS
from trainables.config.experts import ExpertRecipe
from trainables.data.augmentation import FAMILIES, Augmentation
from trainables.experts.training import ExpertTrainer
from trainables.networks.convnet import ConvNet

__all__ = ["ExpertWork", "experts", "networks"]


@dataclass(frozen=True, kw_only=True)
class ExpertWork:
    """The experts that are trained: by GSAM, on random images."""

    images: int
    """Training images, kept on the device."""
    classes: int
    size: int
    """Side of an image, in pixels."""
    width: int
    depth: int
    batch: int
    """Images of a step."""


def experts(
    work: ExpertWork, at_once: int, precision: str, device: str, most: int, deadline: float
) -> Iterator[Measurement]:
    """Measure a step of `at_once` experts trained side by side, in seconds for one expert.

    Raises:
        TooLittleTime: A sample does not fit.
    """
    where = torch.device(device)
    use_precision(precision, device)
    trainer = ExpertTrainer(
        dataset=random_dataset(work.images, work.size, work.classes),
        network=ConvNet(
            channels=3, image_size=work.size, classes=work.classes, depth=work.depth, width=work.width
        ),
        recipe=ExpertRecipe.from_settings({**DEFAULTS, "expert_batch_size": work.batch}),
        augmentation=Augmentation(families=tuple(FAMILIES)),
        seed=0,
        device=where,
        resident=True,
    )  # fmt: skip
    seconds: list[float] = []

    def measure() -> None:
        seconds.append(trainer.seconds_per_step(at_once))

    taken = sample(measure, measure, 1, device=device, deadline=deadline, most=most)
    yield Measurement(
        name=f"experts, {at_once} at once, {precision}",
        unit="s a step and expert",
        samples=tuple(seconds[-len(taken.seconds) :]),
        peak_bytes=taken.peak_bytes,
        note=f"{work.size} × {work.size}, batches of {work.batch}, {work.width} wide",
    )


def networks(work: Work, precision: str, most: int, deadline: float) -> Iterator[Measurement]:
    """Measure the training of networks on a set in both ways, in seconds for an epoch of one network.

    Raises:
        TooLittleTime: A sample does not fit.
    """
    use_precision(precision, work.device)
    ways, one_epoch = prepared(work), prepared(replace(work, epochs=1))
    for way in (ALONE, TOGETHER):
        taken = sample(
            ways[way], one_epoch[way], work.epochs, device=work.device, deadline=deadline, most=most
        )  # fmt: skip
        yield Measurement(
            name=f"{work.networks} networks on a set, {way}, {precision}",
            unit="s an epoch and network",
            samples=tuple(seconds / work.epochs / work.networks for seconds in taken.seconds),
            peak_bytes=taken.peak_bytes,
            note=f"{work.images} images, {work.size} × {work.size}, {work.width} wide",
        )
