"""Shared by the tests of the numerics: one thread, a real dataset of 1,078 images, and experts trained on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.settings import expert_recipe
from trainables.data import datasets
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset
from trainables.experts.store import Trajectories
from trainables.experts.training import ExpertTrainer
from trainables.networks.convnet import ConvNet

EXPERTS, EPOCHS = 3, 6


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Set one thread, before any other fixture computes: with small tensors, synchronising threads costs most time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return datasets.prepare("digits", cache=tmp_path_factory.mktemp("prepared"), validation_share=0.25)


@pytest.fixture(scope="session")
def small_digits(digits_path: Path) -> ImageDataset:
    return datasets.load(digits_path, datasets.SPLITS)


@pytest.fixture(scope="session")
def small_network() -> ConvNet:
    return ConvNet(channels=1, image_size=8, classes=10, depth=1, width=8)


@pytest.fixture(scope="session")
def snapshots(small_digits: ImageDataset, small_network: ConvNet) -> list[list[Tensor]]:
    """Snapshots float32 [P] by expert and epoch."""
    trainer = ExpertTrainer(
        dataset=small_digits,
        network=small_network,
        recipe=expert_recipe(expert_lr=0.02, expert_batch_size=64),
        augmentation=Augmentation(),
        seed=0,
        device=torch.device("cpu"),
    )
    experts = []
    for expert in range(EXPERTS):
        states = [trainer.start(expert)]
        for _ in range(EPOCHS):
            states.append(trainer.train_epoch(expert, states[-1]))
        experts.append([state.theta for state in states])
    return experts


@pytest.fixture(scope="session")
def trajectories(snapshots: list[list[Tensor]]) -> Trajectories:
    return Trajectories([[theta.numpy() for theta in expert] for expert in snapshots])
