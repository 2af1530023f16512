"""A budget of waits for the device: what a loop knows before it starts is sent at once, and losses are read at its end.

Waits are counted on pretended CUDA after a first round, which fills the caches of constants. A step of a loop costs
what a longer loop waits more than a shorter one.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests.support.pretended_cuda import TO_DEVICE, Syncs, pretended_cuda
from tests.support.small_numerics import CLASSES, CUDA, DATASET, distillation, of_regime, trainer
from trainables.data.datasets import ImageDataset, Split
from trainables.evaluation.training import measure_network

STEPS_OF_EPOCH = 3
TRAJECTORY: dict[str, tuple[dict[str, Any], int]] = {
    # Two snapshots and the draws go there; loss, α's derivative and whether all is finite come back.
    "exact": ({}, 6),
    "truncated": ({"gradient": "truncated"}, 6),
    "unrolled": ({"gradient": "unrolled"}, 7),  # and α, as a tensor
    "soft labels": ({"label_mode": "soft", "lr_label": 1.0}, 7),  # and whether the labels are finite
}


def waits(compute: Callable[[], Any]) -> Syncs:
    """Return the waits of the second of two computations."""
    with pretended_cuda() as device:
        compute()
        device.syncs.clear()
        compute()
        return device.syncs


def within(budget: int, syncs: Syncs) -> None:
    assert syncs.total <= budget, f"{syncs.total} waits for the device, the budget is {budget}:\n{syncs.report()}"


@pytest.mark.parametrize("case", TRAJECTORY)
@pytest.mark.parametrize("N", [2, 8])
def test_an_iteration_waits_as_often_for_many_inner_steps_as_for_few(N: int, case: str) -> None:
    settings, budget = TRAJECTORY[case]
    with pretended_cuda() as device:
        running = distillation(CUDA, "trajectory", N=N, **settings)
        running.step()  # type: ignore[attr-defined]
        device.syncs.clear()
        running.step()  # type: ignore[attr-defined]
    within(budget, device.syncs)


@pytest.mark.parametrize(
    ("method", "loops", "budget"),
    [
        (
            "distribution",
            {},
            CLASSES + 4,
        ),  # each class's images, the draws, the network; the loss, whether it is finite
        ("gradient", {"outer_loop": 1, "inner_loop": 1}, CLASSES + 5),  # a new network is drawn for loss and state
        (
            "gradient",
            {"outer_loop": 9, "inner_loop": 1},
            CLASSES + 4,
        ),  # no new network, but the batches of its training
        ("gradient", {"outer_loop": 9, "inner_loop": 5}, CLASSES + 4),
    ],
)
def test_an_iteration_on_real_images_waits_once_a_class(method: str, loops: dict[str, int], budget: int) -> None:
    with pretended_cuda() as device:
        running = distillation(CUDA, method, **loops)
        running.step()  # type: ignore[attr-defined]
        device.syncs.clear()
        running.step()  # type: ignore[attr-defined]
    within(budget, device.syncs)


def more_often(dataset: ImageDataset) -> ImageDataset:
    """Return a dataset with every training image three times."""
    train = dataset.split("train")
    images, labels = (part.repeat(3, axis=0) for part in (train.images, train.labels))
    return replace(dataset, splits={**dataset.splits, "train": Split(images, labels, "thrice")})


@pytest.mark.parametrize("experts", [1, 3])
@pytest.mark.parametrize("resident", [True, False], ids=["resident", "read"])
@pytest.mark.parametrize("optimizer", ["sgd", "gsam"])
def test_an_experts_step_waits_for_its_images_alone(optimizer: str, resident: bool, experts: int) -> None:
    """An epoch sends each expert's batches, and reads the losses and whether all is finite. Images come as bytes."""
    for dataset, steps in ((DATASET, STEPS_OF_EPOCH), (more_often(DATASET), 8)):
        with pretended_cuda() as device:
            training = trainer(CUDA, optimizer, resident=resident, dataset=dataset)
            states: list[Any] = [training.start(expert) for expert in range(experts)]
            states = [*training.train_epoch_together(range(experts), states)]
            device.syncs.clear()
            training.train_epoch_together(range(experts), states)
        within(experts + 2 + (0 if resident else experts * steps), device.syncs)


@pytest.mark.parametrize("networks", [1, 3])
@pytest.mark.parametrize("regime", ["hard", "soft", "soft_kd"])
def test_a_training_on_a_set_waits_once_an_epoch(regime: str, networks: int) -> None:
    """However many steps it has."""
    for batch in (2, 12):
        few, many = (waits(partial(of_regime, CUDA, regime, networks, batch=batch, epochs=epochs)) for epochs in (2, 5))
        assert many.total - few.total <= 3, many.report()


def test_a_test_waits_for_each_batch_of_images_and_once_for_the_predictions() -> None:
    with pretended_cuda() as device:
        training = trainer(CUDA, "sgd", resident=True)
        theta = training.start(0).theta
        measure_network(training.network, theta, DATASET, "validation")
        device.syncs.clear()
        measure_network(training.network, theta, DATASET, "validation")
    within(2, device.syncs)


def test_a_step_that_sends_its_own_draws_is_over_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget would find draws that are sent step by step, and say the line."""
    monkeypatch.setattr("trainables.distillation.matching.moved", lambda chunks, device: chunks)
    with pretended_cuda() as device:
        running = distillation(CUDA, "trajectory", N=8)
        running.step()  # type: ignore[attr-defined]
    assert device.syncs.by_kind[TO_DEVICE] > 16
    with pytest.raises(AssertionError, match=r"waits for the device(.|\n)*trainables/data/augmentation.py:\d+"):
        within(6, device.syncs)
