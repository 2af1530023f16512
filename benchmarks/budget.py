"""The time budget of a headline run: what its stages may take, and what an evaluation is going to take."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.problem import Problem
from trainables.config import Protocol
from trainables.evaluation import predict, train_networks
from trainables.labels import default_order_labels
from trainables.seeding import generator

__all__ = ["EXPERT_SHARE", "FINAL_SHARE", "Clock", "EvaluationCost", "Plan", "cost_of", "plan_of"]

EXPERT_SHARE = 0.4
"""Of the budget that preparing the dataset leaves: what the experts may take."""
FINAL_SHARE = 0.25
"""Of the budget: what is kept at most for the evaluation on the test split."""
VALIDATION_SHARE = 0.02
"""Of the budget: what one evaluation on the validation split may take."""
MOST_VALIDATION_EPOCHS, LEAST_VALIDATION_EPOCHS = 300, 10
MARGIN = 1.1
"""How much longer an evaluation may take than its first epochs promise."""


class Clock:
    """The budget, from the construction on."""

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self._began = time.perf_counter()

    @property
    def spent(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._began

    @property
    def left(self) -> float:
        """Seconds of the budget that are left; negative once it is overdrawn."""
        return self.budget - self.spent


@dataclass(frozen=True)
class EvaluationCost:
    """What evaluating so many networks takes, measured."""

    epoch: float
    """Seconds of an epoch of all of them."""
    image: float
    """Seconds of testing all of them on an image."""

    def times(self, networks: int) -> "EvaluationCost":
        """Return what so many of these take one after the other."""
        return EvaluationCost(self.epoch * networks, self.image * networks)

    def epochs_within(self, seconds: float, images: int) -> int:
        """Return how many epochs fit, with a test on so many images."""
        return int((seconds / MARGIN - images * self.image) / self.epoch)

    def seconds(self, epochs: int, images: int) -> float:
        """Return what so many epochs and a test on so many images take at most."""
        return MARGIN * (epochs * self.epoch + images * self.image)


@dataclass(frozen=True)
class Plan:
    """How the time after the experts is shared out."""

    validation_epochs: int
    """Epochs that each validation trains its network for."""
    deadline: float
    """On the run's clock: when the distillation has to end."""
    test_cost: EvaluationCost

    def test_epochs(self, clock: Clock, images: int) -> int:
        """Return how many epochs of the challenge's the rest of the budget allows, one at least."""
        return max(1, min(Protocol().epochs, self.test_cost.epochs_within(clock.left, images)))


def plan_of(problem: Problem, networks: int, clock: Clock) -> Plan:
    """Measure what evaluations take, and share out the rest of the budget; so many networks are to be tested."""
    once = cost_of(problem, 1)
    # As `evaluate_networks` has it: side by side on a GPU, one after the other elsewhere.
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
    predict(problem.network, theta, lambda index: dataset.normalized("validation", index).to(device), rows)
    return EvaluationCost(epoch, (time.perf_counter() - began) / rows * networks)
