"""The work of a sweep, counted from its settings alone: how many images go through which step of which network.

Work is counted in images, because the time of an image is the device's matter: see `planning/devices.py`. Operations
are multiplications and additions of the convolutions and the linear layer.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from orchestrator.state.settings import SweepSettings
from search_spaces import Comparison
from search_spaces.name_lists import REGIMES, listed

__all__ = ["BATCH", "MATCHING_PASSES", "TRAINING_PASSES", "NetworkCost", "SweepWork", "Work", "count_work"]

TRAINING_PASSES = 3
"""Forward passes that a step of training takes as long as: forward, and backward through images and weights."""
MATCHING_PASSES = 11
"""The same for an inner step with its derivatives: its gradient along the path, the gradient again with a graph, and
what derives that."""
BATCH = 256
"""Images of a batch in every protocol: trainables/config/protocol.py."""
EXPERT_STEPS = {"sgd": 1, "gsam": 2}
"""Gradients of a step of an expert."""
SCORING_EPOCHS = 10 * 10
"""Epochs of the early runs that score images for coresets, beside one full training: see `coresets.scoring_runs`."""
DIAGNOSED = 4 * 25
"""Inner loops whose loss the diagnostics measure for a set: experts and start epochs of `stages/diagnostics.py`."""


@dataclass(frozen=True, kw_only=True)
class NetworkCost:
    """What an image costs in a ConvNet."""

    forward: float
    """Operations of a forward pass."""
    outputs: int
    """Values that the convolutions put out."""
    parameters: int
    pixels: int
    """Values of an image."""
    depth: int

    @classmethod
    def of(cls, channels: int, side: int, classes: int, depth: int, width: int) -> "NetworkCost":
        """Count the cost of a ConvNet on images of so many channels, and pixels a side."""
        operations, parameters, outputs, inputs, pixels = 0.0, 0, 0, channels, channels * side**2
        for _ in range(depth):
            operations += 2 * 9 * inputs * width * side * side
            parameters += 9 * inputs * width + 3 * width
            outputs += width * side * side
            inputs, side = width, side // 2
        features = width * side * side
        return cls(
            forward=operations + 2 * features * classes, outputs=outputs,
            parameters=parameters + features * classes + classes, pixels=pixels, depth=depth,
        )  # fmt: skip

    @property
    def activations(self) -> int:
        """Values that the graph of a forward pass keeps: the image, and three for every block's output."""
        return self.pixels + 3 * self.outputs


@dataclass(frozen=True, kw_only=True)
class Work:
    """Steps, and the images that go through them."""

    trained: float = 0.0
    """Images through steps of training."""
    training_steps: float = 0.0
    matched: float = 0.0
    """Images through inner steps with their derivatives."""
    matching_steps: float = 0.0
    whitened: float = 0.0
    """Images that are whitened."""

    @classmethod
    def training(cls, images: float, batch: int, times: float = 1.0) -> "Work":
        """Return an epoch of training on so many images, or so many of them."""
        return cls(trained=images, training_steps=math.ceil(images / batch)) * times

    @classmethod
    def matching(cls, N: int, chunk: int, times: float = 1.0) -> "Work":
        """Return an iteration of N inner steps on chunks of so many images, or so many of them."""
        return cls(matched=N * chunk, matching_steps=N) * times

    def __add__(self, other: "Work") -> "Work":
        """Return the work of both."""
        return Work(**{part.name: getattr(self, part.name) + getattr(other, part.name) for part in fields(self)})

    def __mul__(self, times: float) -> "Work":
        """Return the work done so many times."""
        return Work(**{part.name: times * getattr(self, part.name) for part in fields(self)})

    def operations(self, network: NetworkCost) -> float:
        """Return the floating-point operations of this work."""
        steps = TRAINING_PASSES * self.trained + MATCHING_PASSES * self.matched
        return steps * network.forward + self.whitening(network)

    def whitening(self, network: NetworkCost) -> float:
        """Return the operations of the whitening alone."""
        return self.whitened * 2 * network.pixels**2


@dataclass(frozen=True, kw_only=True)
class SweepWork:
    """The work of a sweep if no trial is stopped early and nothing is stored."""

    network: NetworkCost
    experts: Work
    search: Work
    """All distillations of a search, a study or a comparison."""
    repeats: Work = Work()
    """The distillations of the finals."""
    networks: Work
    """The networks of the finals, and the baselines' scoring."""
    diagnostics: Work = Work()
    iteration: Work = Work()
    """An iteration of trial 0. Nothing for a comparison, as all that follows."""
    trial: Work = Work()
    """One distillation on average: where N and the batch are searched, trial 0's."""
    first: Work = Work()
    """The distillation of trial 0."""
    largest: Work = Work()
    """That with the largest N and batch of the space."""

    @property
    def stages(self) -> dict[str, Work]:
        """The work by stage, as `--plan` shows it."""
        return {
            "experts": self.experts,
            "search": self.search,
            "finals": self.repeats + self.networks + self.diagnostics,
        }


def count_work(settings: SweepSettings) -> SweepWork:
    """Count the work of a sweep.

    Raises:
        DatasetError: The dataset is unknown, has fewer classes than asked for, or lacks the files that describe it.
        ConfigError: The network is too deep for the images.
    """
    fixed = settings.fixed
    settings.check_depth()
    data = settings.facts.first(fixed["classes"])
    images = round(data.train_images * (1 - fixed["validation_share"]))
    whitened = Work(whitened=images if fixed["zca"] else 0)
    expert = Work.training(images, fixed["expert_batch_size"], EXPERT_STEPS[fixed["expert_optimizer"]]) + whitened
    full = Work.training(images, BATCH, fixed["full_data_epochs"])
    scoring = full + Work.training(images, BATCH, SCORING_EPOCHS)
    full += whitened * fixed["full_data_epochs"]
    network = NetworkCost.of(data.channels, data.image_size, data.classes, fixed["net_depth"], fixed["net_width"])
    experts = expert * (settings.space.horizon_epochs * fixed["expert_count"])
    if isinstance(settings.space, Comparison):
        return _comparison(settings.space, fixed, data.classes, scoring, network, experts)
    return _sweep(settings, data.classes, full, scoring, network, experts)


def _sweep(
    settings: SweepSettings, classes: int, full: Work, scoring: Work, network: NetworkCost, experts: Work
) -> SweepWork:
    """Return the work of a search or a study; `full` trains a network on all images."""
    space, fixed, set_size = settings.space, settings.fixed, settings.fixed["ipc"] * classes
    points = [space.resolve(point) for point in space.points()]
    rungs = fixed["iterations"] / fixed["validation_every_iterations"]
    validation = Work.training(set_size, BATCH, rungs * fixed["validation_networks"] * fixed["validation_epochs"])

    def distillation(point: Mapping[str, Any]) -> Work:
        chunk = min(point["batch_syn"], set_size)
        return Work.matching(point["N"], chunk, fixed["iterations"]) + validation

    distillations = [distillation(point) for point in points]
    largest = [*distillations, *(distillation(point) for point in space.extremes(("N", "batch_syn")))]
    trial = sum(distillations, Work()) * (1 / len(points))
    # Sets: a search's winner and reference, both repeated with fresh seeds, or all of a study; random real images.
    again = 2 * fixed["final_seeds"]
    baselines = [name for name in space.baselines if name != "random"]
    sets = 1 + len(baselines) + (len(points) if space.is_grid else 2 + again)
    in_regimes = len(listed(fixed["regimes"], REGIMES)) * (2 + len(baselines))
    set_epochs = sets * fixed["protocol_epochs"] + in_regimes * fixed["regime_epochs"]
    networks = (Work.training(set_size, BATCH, set_epochs) + full) * fixed["final_networks"]
    first, chunk = points[0], min(points[0]["batch_syn"], set_size)
    return SweepWork(
        network=network,
        experts=experts,
        search=trial * fixed["trials"],
        repeats=trial * again,
        networks=networks + scoring if baselines else networks,
        diagnostics=Work.training(chunk, chunk, 3 * DIAGNOSED * first["N"]),
        iteration=Work.matching(first["N"], chunk),
        trial=trial,
        first=distillations[0],
        largest=max(largest, key=lambda work: work.matched),
    )


def _comparison(
    space: Comparison, fixed: Mapping[str, Any], classes: int, scoring: Work, network: NetworkCost, experts: Work
) -> SweepWork:
    """Return the work of a comparison: its distillations, and the networks on all its sets."""
    distilled, networks = Work(), scoring
    for ipc in space.ipcs:
        set_size = ipc * classes
        in_regimes = len(space.methods) * len(listed(fixed["regimes"], REGIMES))
        networks += Work.training(set_size, BATCH, in_regimes * fixed["regime_epochs"])
        for name in space.distilled:
            point = space.resolve({"variant": name, "repeat": 0})
            real = point["batch_real"] * classes + set_size
            of_method = {
                "distribution": Work(trained=real, training_steps=1),
                "trajectory": Work.matching(point["N"], min(point["batch_syn"], set_size)),
            }
            once = of_method.get(point["method"], Work(matched=real, matching_steps=1))  # another method: as DC
            distilled += once * point["iterations"]
    return SweepWork(
        network=network, experts=experts, search=distilled * fixed["repeats"], networks=networks * fixed["repeats"]
    )
