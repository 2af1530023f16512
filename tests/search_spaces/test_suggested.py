"""Settings for one's own data: a valid space at every size, whose cost grows with the data."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import Fixed, Integer, Real, Space
from search_spaces.suggested import suggested


def space_of(parameters: Any) -> Space:
    return Space(name="own", title="t", dataset="folder", reference="r", parameters=parameters)


@given(
    train_images=st.integers(1, 2_000_000), classes=st.integers(2, 1000), image_size=st.integers(8, 256),
    channels=st.sampled_from([1, 3]), ipc=st.integers(1, 100),
)  # fmt: skip
def test_any_dataset_gets_a_valid_space(**sizes: Any) -> None:
    """A `Space` checks every rule and the horizon at all its points."""
    given = suggested(**sizes)
    space = space_of(given.parameters)
    assert space.last_epoch == space.horizon_epochs
    assert sizes["image_size"] >> int(space.fixed["net_depth"].value) >= 1  # the last block sees a pixel
    assert space.fixed["alpha_init"].value == "auto" and space.fixed["alpha_update"].value == "log"
    assert space.fixed["ipc"].value == sizes["ipc"]


def test_the_source_of_a_dimension_is_its_repr() -> None:
    parameters = suggested(train_images=300, classes=3, image_size=64, channels=3, ipc=1).parameters
    names = {"Fixed": Fixed, "Integer": Integer, "Real": Real}
    assert {name: eval(repr(dimension), names) for name, dimension in parameters.items()} == parameters


def test_an_epoch_of_few_images_still_has_steps_and_goes_about_as_far() -> None:
    for images, steps in ((300, 15), (5_000, 71), (50_000, 176)):
        found = suggested(train_images=images, classes=10, image_size=32, channels=3, ipc=1)
        assert found.steps_per_epoch == steps
        assert 0.5 < found.epoch_reach < 2


def work_of(images: int, image_size: int) -> float:
    """Multiply-adds of experts and inner steps, in arbitrary units."""
    space = space_of(suggested(train_images=images, classes=3, image_size=image_size, channels=3, ipc=1).parameters)
    point = space.resolve(space.first())
    experts = point["expert_count"] * point["horizon_epochs"] * images * 6
    trials = point["trials"] * point["iterations"] * point["N"] * point["batch_syn"] * 12
    return float((experts + trials) * point["net_width"] ** 2 * image_size**2)


@pytest.mark.parametrize("image_size", [32, 64])
def test_the_work_grows_with_the_data(image_size: int) -> None:
    works = [work_of(images, image_size) for images in (100, 300, 1_000, 5_000, 50_000, 500_000)]
    assert works == sorted(works)
    assert works[-1] > 1000 * works[0]


def test_the_pixels_rate_is_that_of_published_sets_of_the_size() -> None:
    """30 for the digits, 1000 for CIFAR-100 and 10,000 for Tiny ImageNet, within a factor of the range."""
    for classes, side, channels, rate in ((10, 8, 1, 30.0), (100, 32, 3, 1000.0), (200, 64, 3, 10_000.0)):
        found = suggested(train_images=50_000, classes=classes, image_size=side, channels=channels, ipc=1)
        pixel_rate = found.parameters["lr_pixel"]
        assert isinstance(pixel_rate, Real)
        assert pixel_rate.low <= rate <= pixel_rate.high
