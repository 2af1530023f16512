"""Implementations as values: the project's own, and files' contents."""

import dataclasses
import pickle
import sys
from typing import Any

import pytest
import torch
from ray import cloudpickle

from search_spaces.own_entries import OWN
from tests.support.extensions import NETWORK
from trainables import implementation
from trainables.errors import ConfigError
from trainables.implementation import Implementation
from trainables.networks.convnet import ConvNet
from trainables.networks.network import network_identity

SIZES = {"channels": 1, "image_size": 8, "classes": 3, "depth": 2, "width": 4}
PERCEPTRON = Implementation(name="perceptron", address="network.py:Perceptron", source=NETWORK)


@pytest.mark.parametrize("each", OWN, ids=lambda each: f"{each.kind}-{each.name}")
def test_every_own_entrys_implementation_is_there(each: Any) -> None:
    assert callable(Implementation(name=each.name, address=each.implementation).load())


def test_a_files_content_is_loaded_once_and_leaves_no_module() -> None:
    before = set(sys.modules)
    assert PERCEPTRON.load() is PERCEPTRON.load()
    assert not {name for name in set(sys.modules) - before if name.startswith("extension_")}


def test_a_content_that_fails_is_one_line() -> None:
    broken = Implementation(name="a", address="mine.py:f", source="import nothing_of_this_name\ndef f(): pass\n")
    with pytest.raises(ConfigError, match=r"^mine.py, an implementation .*: ModuleNotFoundError: No module named"):
        broken.load()


@pytest.mark.parametrize("how", [pickle, cloudpickle])
def test_its_objects_bring_the_content_to_a_process_without_it(how: Any) -> None:
    network = PERCEPTRON.load()(**SIZES)
    theta = network.initial(torch.Generator().manual_seed(0))
    images = torch.ones(2, 1, 8, 8)
    written = how.dumps(network)
    implementation._run.cache_clear()
    read = how.loads(written)
    assert type(read) is not type(network) and vars(read).items() <= vars(network).items()
    assert torch.equal(read.logits(theta, images), network.logits(theta, images))
    assert network_identity(read) == network_identity(network)


def test_a_networks_identity_has_its_content_where_it_is_not_the_convnet() -> None:
    assert network_identity(ConvNet(**SIZES)) == SIZES
    other = dataclasses.replace(PERCEPTRON, source=NETWORK.replace("torch.tanh", "torch.sin"))
    one, another = (network_identity(network.load()(**SIZES)) for network in (PERCEPTRON, other))
    assert {key: value for key, value in one.items() if key != "class"} == SIZES
    assert one["class"] != another["class"]
