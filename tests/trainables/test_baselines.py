"""A worker's baselines: every method makes its set, keeps it where it is wanted, and makes none twice."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trainables import coresets
from trainables.augmentation import Augmentation
from trainables.baselines import BaselineMaker, BaselineWork
from trainables.checkpoints import read_checkpoint
from trainables.config import Protocol
from trainables.errors import ConfigError
from trainables.final import images_of


@pytest.fixture(scope="module")
def work(digits_path, small_network, tmp_path_factory):
    return BaselineWork(
        dataset=digits_path, network=small_network, augmentation=Augmentation(families=("crop",), align_corners=False),
        kept=tmp_path_factory.mktemp("kept"), full_data_protocol=Protocol.challenge(4),
        validation_protocol=Protocol.challenge(5), validation_networks=1, squeeze_epochs=2,
        recover_iterations=5, device="cpu",
    )  # fmt: skip


@pytest.fixture(scope="module")
def maker(work):
    return BaselineMaker(work, 3)


@pytest.mark.parametrize("method", (*coresets.NAMES, "rded", "ca2d", "sre2l"))
def test_every_method_makes_as_many_images_of_every_class(maker, small_digits, tmp_path, method):
    place = str(tmp_path / "sets" / f"{method}.safetensors")
    assert maker.make(method, 2, place) == place
    images = images_of(place, small_digits)
    assert images.shape == (20, 1, 8, 8) and images.dtype == torch.float32 and bool(images.isfinite().all())
    kept = read_checkpoint(place)
    if "rows" in kept:
        assert small_digits.labels("train", kept["rows"]).tolist() == [label for label in range(10) for _ in range(2)]
        assert torch.equal(images, small_digits.normalized("train", kept["rows"]))


def test_a_set_that_is_there_is_not_made_again(maker, work, tmp_path):
    place = tmp_path / "rded.safetensors"
    maker.make("rded", 1, str(place))
    before = place.stat().st_mtime_ns, place.read_bytes()
    os.utime(place, ns=(1, 1))
    BaselineMaker(replace(work, kept=Path("/nowhere/that/can/be/made")), 3).make("rded", 1, str(place))
    assert place.stat().st_mtime_ns == 1 and place.read_bytes() == before[1]


def test_another_process_makes_the_same_set_and_another_seed_another(maker, work, small_digits, tmp_path):
    images = {}
    for name, other in {"one": maker, "again": BaselineMaker(work, 3), "seed": BaselineMaker(work, 4)}.items():
        images[name] = images_of(other.make("random", 2, str(tmp_path / name)), small_digits)
    assert torch.equal(images["one"], images["again"]) and not torch.equal(images["one"], images["seed"])


def test_ca2d_is_not_rded_where_a_class_has_fewer_images_than_its_pool(maker, small_digits, tmp_path):
    pair = [images_of(maker.make(name, 2, str(tmp_path / name)), small_digits) for name in ("rded", "ca2d")]
    assert not torch.equal(*pair)


def test_the_teacher_knows_the_digits(maker, small_digits, small_network):
    theta = torch.tensor(maker.teacher())
    logits = small_network.logits(theta, small_digits.normalized("validation"))
    assert float((logits.argmax(1) == small_digits.labels("validation")).float().mean()) > 0.2  # chance: .1


def test_an_unknown_method_is_refused(maker, tmp_path):
    with pytest.raises(ConfigError, match=r"a baseline is one of random, .*sre2l, not best"):
        maker.make("best", 1, str(tmp_path / "set"))


def test_a_set_that_is_not_there_is_said(small_digits, tmp_path):
    with pytest.raises(FileNotFoundError):
        images_of(str(tmp_path / "none"), small_digits)
