"""The text of a space's file: it loads as the same space, and is formatted."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import Choice, Fixed, Integer, Real, SpaceError, load, names
from search_spaces.dimensions import Dimension
from search_spaces.space import Space
from search_spaces.space_file import _literal, name_of_file, space_text
from search_spaces.vocabulary import DEFAULTS

LONG = "a source that is so long that the arguments do not fit on one line of a file that others format"


def a_space() -> Space:
    digits = load("digits")
    changed: dict[str, Dimension] = {
        "N": Integer(1, 5, first=2, log=True),
        "lr_pixel": Real(1e-05, 3.5, first=0.1, source='a "quoted" source'),
        "batch_syn": Choice((5,), first=5, source=LONG),
        "gradient": Choice(("exact", "truncated"), first="exact"),
        "zca": Fixed(True, source="it's whitened \\ back\u2028slash"),
        "ipc": Fixed(2),
    }
    return Space(
        name="mine", title='what "suits" it?', dataset="folder", reference="none",
        parameters={**digits.parameters, **changed},
    )  # fmt: skip


def values(space: Space) -> dict[str, object]:
    return {key: dimension.values for key, dimension in space.parameters.items()}


def test_it_loads_as_the_same_space(tmp_path: Path) -> None:
    space, file = a_space(), tmp_path / "mine.py"
    file.write_text(space_text(space, ['Summary with """quotes""" and \\.', "", "More."]), encoding="utf-8")
    read = load(file)
    assert (read.name, read.title, read.dataset, read.reference) == ("mine", 'what "suits" it?', "folder", "none")
    changed = [key for key, dimension in space.parameters.items() if dimension.values != (DEFAULTS.get(key),)]
    assert {key: read.parameters[key] for key in changed} == {key: space.parameters[key] for key in changed}
    assert values(read) == values(space)


@pytest.mark.parametrize("name", [name for name in names() if type(load(name)) is Space])
def test_a_registered_space_survives_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.py").write_text(space_text(load(name), ["A space."]), encoding="utf-8")
    assert values(load(tmp_path / "mine.py")) == values(load(name))


def test_only_the_named_keys_are_written(tmp_path: Path) -> None:
    space = load("digits")
    needed = [key for key in space.parameters if key not in DEFAULTS]
    text = space_text(space, ["A space."], keys=[*needed, "net_depth"])
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    read = load(tmp_path / "mine.py")
    assert "net_width" not in text and read.parameters["net_width"].values == (DEFAULTS["net_width"],)
    assert read.parameters["net_depth"].values == (2,)


@pytest.mark.parametrize("name", ["mine", "digits", "cifar10_ranges", "ti_ranges"])
def test_it_is_formatted_and_has_no_fault(tmp_path: Path, name: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(space_text(a_space() if name == "mine" else load(name), ["One.", "", "Two."]), encoding="utf-8")
    for command in (["format", "--check"], ["check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--isolated", "--no-cache", "--line-length=120", str(file)]
        done = subprocess.run(ruff, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr + file.read_text()


@given(st.one_of(st.text(), st.floats(allow_nan=False, allow_infinity=False), st.integers(), st.booleans()))
@settings(max_examples=200, deadline=None)
def test_a_literal_is_its_value(value: str | float | int | bool) -> None:
    assert eval(_literal(value)) == value


def test_a_file_whose_name_is_no_space_name_is_refused() -> None:
    assert name_of_file("my_space-2") == "my_space-2"
    for stem in ("", "my space", "-x", "ä"):
        with pytest.raises(SpaceError, match="letters, digits"):
            name_of_file(stem)
