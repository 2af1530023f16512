"""Shared by the tests of the numerics: one thread, a real dataset of 1,078 images, and experts trained on it."""

import pytest
import torch

from trainables import datasets
from trainables.augmentation import Augmentation
from trainables.config import ExpertRecipe
from trainables.experts import ExpertTrainer
from trainables.networks import ConvNet
from trainables.trajectories import Trajectories

EXPERTS, EPOCHS = 3, 6


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Threads wait for one another far longer than such small tensors take; set before any other fixture computes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits_path(tmp_path_factory):
    return datasets.prepare("digits", cache=tmp_path_factory.mktemp("prepared"), validation_share=0.25)


@pytest.fixture(scope="session")
def small_digits(digits_path):
    return datasets.load(digits_path, datasets.SPLITS)


@pytest.fixture(scope="session")
def small_network():
    return ConvNet(channels=1, image_size=8, classes=10, depth=1, width=8)


@pytest.fixture(scope="session")
def snapshots(small_digits, small_network):
    """Snapshots float32 [P] by expert and epoch."""
    trainer = ExpertTrainer(
        dataset=small_digits,
        network=small_network,
        recipe=ExpertRecipe(expert_lr=0.02, expert_batch_size=64),
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
def trajectories(snapshots):
    return Trajectories([[theta.numpy() for theta in expert] for expert in snapshots])
