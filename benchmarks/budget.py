"""The time budget of a headline run: limits of its stages, and the estimated time of an evaluation."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.problem import Problem
from trainables.config.protocol import Protocol
from trainables.data.labels import default_order_labels
from trainables.evaluation.training import predict, train_networks
from trainables.seeding import generator

__all__ = ["EXPERT_SHARE", "FINAL_SHARE", "Clock", "EvaluationCost", "Plan", "cost_of", "plan_of"]

EXPERT_SHARE = 0.4
"""Most of the budget left after preparing the dataset that experts may take."""
FINAL_SHARE = 0.25
"""Most of the budget that is reserved for the evaluation on the test split."""
VALIDATION_SHARE = 0.02
"""Most of the budget that one evaluation on the validation split may take."""
MOST_VALIDATION_EPOCHS, LEAST_VALIDATION_EPOCHS = 300, 10
MARGIN = 1.1
"""Ratio of the time planned for an evaluation to the estimate from its first epochs."""


class Clock:
    """A time budget in seconds, which starts at construction."""

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self._began = time.perf_counter()

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._began

    @property
    def left(self) -> float:
        """Seconds of the budget that are left; negative once it is exceeded."""
        return self.budget - self.spent


@dataclass(frozen=True)
class EvaluationCost:
    """Measured time of evaluating a number of networks."""

    epoch: float
    """Seconds of an epoch of all networks."""
    image: float
    """Seconds of testing all networks on an image."""

    def times(self, networks: int) -> "EvaluationCost":
        """Return the cost of `networks` such evaluations one after the other."""
        return EvaluationCost(self.epoch * networks, self.image * networks)

    def epochs_within(self, seconds: float, images: int) -> int:
        """Return the number of epochs that fit into `seconds`, with a test on `images` images."""
        return int((seconds / MARGIN - images * self.image) / self.epoch)

    def seconds(self, epochs: int, images: int) -> float:
        """Return the planned seconds of `epochs` epochs and a test on `images` images."""
        return MARGIN * (epochs * self.epoch + images * self.image)


@dataclass(frozen=True)
class Plan:
    """How the time after the expert stage is divided."""

    validation_epochs: int
    """Training epochs of a validation's network."""
    deadline: float
    """End of the distillation on the run's clock, s."""
    test_cost: EvaluationCost

    def test_epochs(self, clock: Clock, images: int) -> int:
        """Return how many of the challenge's epochs fit into the rest of the budget, one at least."""
        return max(1, min(Protocol().epochs, self.test_cost.epochs_within(clock.left, images)))


def plan_of(problem: Problem, networks: int, clock: Clock) -> Plan:
    """Measure the cost of evaluations, and divide the rest of the budget.

    Args:
        problem: The problem of the run.
        networks: Number of networks to test.
        clock: The run's.
    """
    once = cost_of(problem, 1)
    # As in `evaluate_networks`: side by side on a GPU, one after the other elsewhere.
    tested = cost_of(problem, networks) if problem.device.type == "cuda" else once.times(networks)
    validation = len(problem.dataset.split("validation"))
    affordable = once.epochs_within(VALIDATION_SHARE * clock.budget, validation)
    epochs = min(MOST_VALIDATION_EPOCHS, max(LEAST_VALIDATION_EPOCHS, affordable))
    wish = min(FINAL_SHARE * clock.budget, tested.seconds(Protocol().epochs, 2 * validation))
    return Plan(epochs, clock.budget - wish - once.seconds(epochs, validation), tested)


def cost_of(problem: Problem, networks: int) -> EvaluationCost:
    """Measure an evaluation of networks side by side, on noise in the shape of the synthetic set."""
    dataset, device = problem.dataset, problem.device
    labels = default_order_labels(problem.config.ipc, dataset.classes).to(device)
    shape = (len(labels), dataset.channels, dataset.image_size, dataset.image_size)
    images = torch.randn(shape, generator=generator("benchmark", "images")).to(device)

    def train(epochs: int) -> Tensor:
        thetas = train_networks(
            problem.network,
            images.__getitem__,
            labels,
            protocol=Protocol.challenge(epochs),
            augmentation=problem.evaluator,
            seeds=range(networks),
        )
        float(thetas.sum())  # waits for the device
        return thetas

    theta = train(1)[0]  # the first steps allocate and choose algorithms
    began = time.perf_counter()
    train(2)
    epoch = (time.perf_counter() - began) / 2
    rows = min(512, len(dataset.split("validation")))
    began = time.perf_counter()
    predict(problem.network, theta, lambda index: dataset.normalized("validation", index, device), rows)
    return EvaluationCost(epoch, (time.perf_counter() - began) / rows * networks)
