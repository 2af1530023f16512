"""Identities of experts, and files of random snapshots for the stores that hold them."""

from typing import Any

import torch
from torch import Tensor

from tests.support.settings import expert_recipe
from trainables.data.augmentation import Augmentation
from trainables.experts.identity import ExpertIdentity
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator

__all__ = ["IDENTITY", "NETWORK", "expert_identity", "random_snapshots"]


def expert_identity(network: ConvNet, families: tuple[str, ...] = (), **changed: Any) -> ExpertIdentity:
    """Return the identity of experts of a network, on no particular dataset unless one is named."""
    values = {
        "dataset": "any", "dataset_digest": "d1", "zca_epsilon": None, "network": network, "recipe": expert_recipe(),
        "augmentation": Augmentation(families=families), "seed": 0,
    }  # fmt: skip
    return ExpertIdentity(**{**values, **changed})


NETWORK = ConvNet(channels=1, image_size=4, classes=3, depth=1, width=2)
IDENTITY = expert_identity(NETWORK, ("flip",))


def random_snapshots(rows: int, name: int | str = 0) -> list[Tensor]:
    """Return that many normally distributed snapshots, float32 [P], the same for the same name."""
    draws = generator("snapshots", name)
    return [torch.randn(NETWORK.parameters, generator=draws) for _ in range(rows)]
