"""A worker's baselines: every method makes its set, keeps it where it is wanted, and makes none twice."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from search_spaces.entry import Kind
from search_spaces.registry import names
from tests.support.implementations import own
from trainables.config.arithmetic import IEEE
from trainables.config.protocol import Protocol
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset
from trainables.errors import ConfigError
from trainables.networks.convnet import ConvNet
from trainables.storage.checkpoints import read_checkpoint
from trainables.workers.baselines import BaselineMaker, BaselineWork
from trainables.workers.final import images_of


@pytest.fixture(scope="module")
def work(digits_path: Path, small_network: ConvNet, tmp_path_factory: pytest.TempPathFactory) -> BaselineWork:
    return BaselineWork(
        dataset=digits_path, coresets=own(Kind.CORESET), others=own(Kind.BASELINE), network=small_network,
        augmentation=Augmentation(families=("crop",), align_corners=False),
        kept=tmp_path_factory.mktemp("kept"), full_data_protocol=Protocol.challenge(4),
        validation_protocol=Protocol.challenge(5), validation_networks=1, squeeze_epochs=2,
        recover_iterations=5, device="cpu", arithmetic=IEEE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def maker(work: BaselineWork) -> BaselineMaker:
    return BaselineMaker(work, 3)


@pytest.mark.parametrize("method", names(Kind.CORESET, Kind.BASELINE))
def test_every_method_makes_as_many_images_of_every_class(
    maker: BaselineMaker, small_digits: ImageDataset, tmp_path: Path, method: str
) -> None:
    place = str(tmp_path / "sets" / f"{method}.safetensors")
    assert maker.make(method, 2, place) == place
    images = images_of(place, small_digits)
    assert images.shape == (20, 1, 8, 8) and images.dtype == torch.float32 and bool(images.isfinite().all())
    kept = read_checkpoint(place)
    assert kept is not None
    if "rows" in kept:
        assert small_digits.labels("train", kept["rows"]).tolist() == [label for label in range(10) for _ in range(2)]
        assert torch.equal(images, small_digits.normalized("train", kept["rows"]))


def test_a_set_that_is_there_is_not_made_again(maker: BaselineMaker, work: BaselineWork, tmp_path: Path) -> None:
    place = tmp_path / "rded.safetensors"
    maker.make("rded", 1, str(place))
    before = place.stat().st_mtime_ns, place.read_bytes()
    os.utime(place, ns=(1, 1))
    BaselineMaker(replace(work, kept=Path("/nowhere/that/can/be/made")), 3).make("rded", 1, str(place))
    assert place.stat().st_mtime_ns == 1 and place.read_bytes() == before[1]


def test_another_process_makes_the_same_set_and_another_seed_another(
    maker: BaselineMaker, work: BaselineWork, small_digits: ImageDataset, tmp_path: Path
) -> None:
    images = {}
    for name, other in {"one": maker, "again": BaselineMaker(work, 3), "seed": BaselineMaker(work, 4)}.items():
        images[name] = images_of(other.make("random", 2, str(tmp_path / name)), small_digits)
    assert torch.equal(images["one"], images["again"]) and not torch.equal(images["one"], images["seed"])


def test_ca2d_is_not_rded_where_a_class_has_fewer_images_than_its_pool(
    maker: BaselineMaker, small_digits: ImageDataset, tmp_path: Path
) -> None:
    pair = [images_of(maker.make(name, 2, str(tmp_path / name)), small_digits) for name in ("rded", "ca2d")]
    assert not torch.equal(*pair)


def test_the_teacher_knows_the_digits(maker: BaselineMaker, small_digits: ImageDataset, small_network: ConvNet) -> None:
    theta = torch.tensor(maker.teacher())
    logits = small_network.logits(theta, small_digits.normalized("validation"))
    assert float((logits.argmax(1) == small_digits.labels("validation")).float().mean()) > 0.2  # chance: .1


def test_an_unknown_method_is_refused(maker: BaselineMaker, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a baseline is one of random, .*sre2l, not best"):
        maker.make("best", 1, str(tmp_path / "set"))


def test_a_set_that_is_not_there_is_said(small_digits: ImageDataset, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        images_of(str(tmp_path / "none"), small_digits)
