"""What addresses an expert store: everything that determines an expert, and the addresses of existing stores."""

import hashlib
import pickle
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from tests.support.experts import expert_identity
from trainables.config.arithmetic import Arithmetic
from trainables.config.experts import ExpertRecipe
from trainables.data import datasets
from trainables.data.augmentation import Augmentation
from trainables.data.whitening import EPS
from trainables.experts.identity import ExpertIdentity
from trainables.experts.store import TrajectoryStore
from trainables.networks.convnet import ConvNet

NETWORK = ConvNet(channels=1, image_size=8, classes=10, depth=2, width=16)
IDENTITY = expert_identity(
    NETWORK,
    ("crop", "flip"),
    dataset="digits",
    dataset_digest="d75dbd7b80353ca929cc8998d36298a394627e1eed06e6f335aa50931e59ff9d",
    seed=3,
)


class TestStoresThatExist:
    """Addresses and the manifest were computed by the version before this class existed."""

    @pytest.mark.parametrize(
        ("epsilon", "address"), [(None, "3659e0c29e9a3e41c0e9"), (0.1, "2042809007b977f101f0")], ids=["plain", "zca"]
    )
    def test_are_found_again(self, epsilon: float | None, address: str) -> None:
        assert replace(IDENTITY, zca_epsilon=epsilon).address == address

    def test_have_the_manifest_that_would_be_written_now(self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch, "__version__", "2.15.0")
        store = TrajectoryStore(tmp_path, replace(IDENTITY, zca_epsilon=0.1))
        store.record({})
        digest = hashlib.sha256(store.manifest_path.read_bytes()).hexdigest()
        assert digest == "db6eeab17cca871dbc7d7164d2ced11f5c64bff6044aabddc5bb8b867f68e8dc"


def other(value: Any) -> Any:
    """A value of the same kind that a network, recipe or augmentation may have too."""
    match value:
        case bool():
            return not value
        case "fp32":
            return "tf32"
        case "gsam":
            return "sgd"
        case str():
            return f"{value}'"
        case int():
            return value + 1
        case float():
            return value / 2 + 0.05
        case None:
            return 0.1
        case tuple():
            return (*value, "color")
        case _:
            raise AssertionError(value)


def changed(value: Any) -> list[Any]:
    """Every value that differs from a dataclass in one leaf."""
    variants = []
    for field in fields(value):
        part = getattr(value, field.name)
        parts = changed(part) if isinstance(part, ConvNet | ExpertRecipe | Augmentation | Arithmetic) else [other(part)]
        variants += [replace(value, **{field.name: one}) for one in parts]
    return variants


def test_every_field_changes_the_address() -> None:
    variants = [IDENTITY, *changed(replace(IDENTITY, network=replace(NETWORK, image_size=16)))]
    leaves = sum(len(fields(kind)) for kind in (ExpertIdentity, ConvNet, ExpertRecipe, Augmentation, Arithmetic)) - 4
    assert len(variants) == leaves + 1
    assert len({variant.address for variant in variants}) == len(variants)


def test_ieee_float32_leaves_the_address_as_it_was() -> None:
    assert "arithmetic" not in IDENTITY.record()
    assert replace(IDENTITY, arithmetic=Arithmetic(precision="bf16", deterministic=False)).address == IDENTITY.address


@pytest.mark.parametrize("zca", [False, True])
def test_of_a_dataset_it_has_name_digest_and_whitening(tmp_path: Any, zca: bool) -> None:
    path = datasets.prepare("digits", cache=tmp_path, validation_share=0.5)
    dataset = datasets.load(datasets.whiten(path) if zca else path)
    identity = ExpertIdentity.of(
        dataset, network=NETWORK, recipe=IDENTITY.recipe, augmentation=IDENTITY.augmentation, seed=3
    )
    expected = replace(IDENTITY, dataset="digits", dataset_digest=dataset.digest, zca_epsilon=EPS if zca else None)
    assert identity == expected


def test_a_store_travels_to_another_process_with_all_that_shapes_its_experts(tmp_path: Any) -> None:
    store = TrajectoryStore(tmp_path, IDENTITY)
    store.record({0: store.write(0, [torch.zeros(NETWORK.parameters), torch.ones(NETWORK.parameters)], [0.5])})
    unpickled = pickle.loads(pickle.dumps(store))
    assert (unpickled.identity, unpickled.address, unpickled.network) == (IDENTITY, store.address, NETWORK)
    assert torch.equal(unpickled.open([0], 1).snapshot(0, 1), torch.ones(NETWORK.parameters))
