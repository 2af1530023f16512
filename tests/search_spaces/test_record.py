"""A space written down as plain data is the same space when it is read."""

import json

import pytest

from search_spaces import SpaceError, load, names
from search_spaces.record import from_record, to_record


@pytest.mark.parametrize("name", names())
def test_every_registered_space_survives_json(name: str) -> None:
    space = load(name)
    read = from_record(json.loads(json.dumps(to_record(space))))
    assert read == space
    assert read.points() == space.points()


def test_a_record_without_a_kind_is_of_the_kind_that_its_content_says() -> None:
    """Releases before had one kind of space, which every record was of; a search had no variants."""
    for name in ("digits", "digits_range_study", "digits_regimes"):
        space = load(name)
        record = {"variants": {}, **to_record(space)}
        del record["kind"]
        assert from_record(json.loads(json.dumps(record))) == space


def test_overrides_are_part_of_it() -> None:
    space = load("digits").override({"iterations": 50, "N": 7, "lr_pixel": 20.5})
    assert from_record(json.loads(json.dumps(to_record(space)))) == space != load("digits")


def test_what_is_no_record_is_refused() -> None:
    record = to_record(load("digits"))
    with pytest.raises(SpaceError, match="no record of a space: 'reference'"):
        from_record({key: value for key, value in record.items() if key != "reference"})
    record["parameters"]["N"]["kind"] = "Whole"
    with pytest.raises(SpaceError, match="no record of a space: 'Whole'"):
        from_record(record)
