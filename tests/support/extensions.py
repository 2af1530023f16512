"""A user's own coreset, distillation method, dataset and network, in files outside the packages."""

from pathlib import Path

CORESET = '''
import torch

from trainables.baselines.coresets.selection import balanced


def select(evidence, ipc, seed):
    """The images nearest to their class's mean image."""
    pixels = evidence.dataset.normalized("train").flatten(1).double()

    def nearest(rows):
        distances = (pixels[rows] - pixels[rows].mean(dim=0)).square().sum(dim=1)
        return distances.argsort(stable=True)[:ipc]

    return balanced(evidence, ipc, nearest)
'''

METHOD = '''
from trainables.distillation.distribution import DistributionMatching


class HalvedDistribution(DistributionMatching):
    """Distribution matching whose loss is half of DM's."""

    def loss_and_gradient(self):
        loss, gradient = super().loss_and_gradient()
        return loss / 2, gradient / 2
'''

NETWORK = '''
from dataclasses import dataclass
from functools import cached_property

import math

import torch
import torch.nn.functional as F


@dataclass(frozen=True, kw_only=True)
class Perceptron:
    """One hidden layer of `width` units, whatever the depth."""

    channels: int
    image_size: int
    classes: int
    depth: int
    width: int

    @cached_property
    def layout(self):
        pixels = self.channels * self.image_size**2
        return (
            ("hidden.weight", (self.width, pixels)), ("hidden.bias", (self.width,)),
            ("linear.weight", (self.classes, self.width)), ("linear.bias", (self.classes,)),
        )

    @cached_property
    def sizes(self):
        return [math.prod(shape) for _, shape in self.layout]

    @property
    def parameters(self):
        return sum(self.sizes)

    @property
    def outputs(self):
        return self.width + self.classes

    def unflatten(self, theta):
        parts = theta.split(self.sizes)
        return {name: part.view(shape) for (name, shape), part in zip(self.layout, parts, strict=True)}

    def initial(self, generator):
        parts = [
            torch.empty(shape).uniform_(-1, 1, generator=generator) / math.sqrt(shape[-1]) for _, shape in self.layout
        ]
        return torch.cat([part.flatten() for part in parts])

    def logits(self, theta, images):
        last = self.unflatten(theta)
        return F.linear(self.features(theta, images), last["linear.weight"], last["linear.bias"])

    def features(self, theta, images):
        first = self.unflatten(theta)
        return torch.tanh(F.linear(images.flatten(1), first["hidden.weight"], first["hidden.bias"]))
'''

DATASET = '''
import hashlib

import numpy as np

from trainables.data.catalog import DatasetFacts
from trainables.data.source import FoundImages, FoundSplit, Source

FACTS = DatasetFacts(
    name="stripes", classes=3, channels=1, image_size=8, train_images=90, test_images=30, mean=None, std=None,
    augmentation=(), instructions="nothing: the images are computed",
)


def find(data, reading):
    """Upright, lying and slanting stripes, with noise."""

    def split(count, seed):
        labels = np.arange(count, dtype=np.int64) % 3
        draws = np.random.default_rng(seed)
        row, column = np.mgrid[:8, :8]
        patterns = np.stack([row % 2, column % 2, (row + column) % 4 // 2])
        pixels = 120 * patterns[labels] + draws.integers(0, 120, (count, 8, 8))
        return FoundSplit.of_pixels("the stripes", pixels[:, None].astype(np.uint8), labels)

    def open_images():
        return FoundImages(train=split(90, 1), test=split(30, 2), class_names=("upright", "lying", "slanting"))

    return Source(facts=FACTS, fingerprint=hashlib.sha256(b"stripes 1").hexdigest(), open=open_images)
'''

REGISTERED = """
from search_spaces import Comparison, Fixed, Study, load, register

register("coreset", "nearest_mean", label="nearest the mean", implementation="coreset.py:select")
register("method", "halved", label="DM, halved", implementation="method.py:HalvedDistribution")
register("network", "perceptron", label="perceptron", implementation="network.py:Perceptron")
register("dataset", "stripes", label="stripes", implementation="dataset.py:find")
"""

STUDY = """
SPACE = Study(
    name="mine", title="Do a user's own parts work together?", dataset="stripes", reference="ours: DM",
    parameters={
        **load("digits").pinned(),
        "network": Fixed("perceptron"), "net_width": Fixed(16), "baselines": Fixed("nearest_mean,k_center"),
        "iterations": Fixed(4), "validation_every_iterations": Fixed(2), "validation_epochs": Fixed(5),
        "protocol_epochs": Fixed(20), "full_data_epochs": Fixed(3), "final_networks": Fixed(2), "repeats": Fixed(2),
        "expert_count": Fixed(2), "initialization": Fixed("real"), "batch_real": Fixed(16),
    },
    variants={
        "dm": {"method": "distribution"}, "halved": {"method": "halved"}, "m_datm": {"method": "trajectory"},
    },
)
"""

COMPARISON = """
SPACE = Comparison(
    name="mine", title="Do a user's own parts work together?", dataset="stripes", reference="ours: DM",
    parameters={
        **load("digits").pinned(),
        "network": Fixed("perceptron"), "net_width": Fixed(16), "ipcs": Fixed("1"),
        "methods": Fixed("nearest_mean,halved"), "regimes": Fixed("hard,soft"),
        "iterations": Fixed(4), "validation_every_iterations": Fixed(2), "regime_epochs": Fixed(20),
        "full_data_epochs": Fixed(3), "repeats": Fixed(2), "expert_count": Fixed(2), "initialization": Fixed("real"),
        "batch_real": Fixed(16),
    },
    variants={"halved": {"method": "halved"}},
)
"""


def write_extensions(folder: Path, space: str) -> Path:
    """Write the four files and a space's, and return the latter."""
    folder.mkdir()
    for name, text in {"coreset": CORESET, "method": METHOD, "network": NETWORK, "dataset": DATASET}.items():
        (folder / f"{name}.py").write_text(text)
    path = folder / "mine.py"
    path.write_text(REGISTERED + space)
    return path
