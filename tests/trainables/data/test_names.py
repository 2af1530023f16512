"""Names of classes: one line, shortened, as folders that every system can make, and as files in UTF-8 hold them."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.names import HOSTILE
from trainables.data.names import LONGEST_FOLDER_BYTES, folder_names, one_line, shortened, text_names

ANY_TEXT = st.text(st.characters(), max_size=300)  # lone surrogates too


@given(ANY_TEXT)
def test_one_line_has_no_control_characters_and_is_utf_8(name: str) -> None:
    line = one_line(name)
    assert len(line.splitlines()) <= 1 and line == line.strip()
    assert not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in line)
    line.encode()
    assert one_line(line) == line


def test_what_is_left_of_a_name_is_the_name() -> None:
    assert one_line("two\r\n lines") == "two lines"
    assert one_line("caf\udce9") == "caf�"
    assert one_line("\x1b[31mred") == "[31mred"
    assert one_line("right \u202eleft") == "right left"
    for name in ("猫と犬", "قطة جميلة", "👩‍🚀 ❤️", "$a$ |b| <c>"):
        assert one_line(name) == name


def test_a_long_name_ends_in_an_ellipsis() -> None:
    assert shortened("x" * 200, 24) == "x" * 23 + "…"
    assert shortened("x" * 24, 24) == "x" * 24
    assert shortened("four word", 6) == "four…"


@given(st.lists(ANY_TEXT, unique=True, max_size=8))
def test_folders_are_different_and_can_be_made_on_every_system(names: list[str]) -> None:
    folders = folder_names(names)
    assert len({unicodedata.normalize("NFC", folder).casefold() for folder in folders}) == len(names)
    for folder in folders:
        assert 0 < len(folder.encode()) <= LONGEST_FOLDER_BYTES + len(" (9)")
        assert not set(folder) & set('<>:"/\\|?*') and folder[0] not in "=+-@. ~" and folder[-1] not in ". "


def test_folders_of_hostile_names_are_made(tmp_path: Path) -> None:
    folders = folder_names(HOSTILE)
    for folder in folders:
        (tmp_path / folder).mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(folders)


@pytest.mark.parametrize("name", ["cat", "Maine Coon", "猫と犬", "$0_to_$10", "n01440764", "latest", "evaluate", "x_y"])
def test_a_name_that_can_be_a_folder_is_one(name: str) -> None:
    assert folder_names([name]) == [name]


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("a/b", "a_b"), ("=1+1", "_1+1"), ("..", "_"), ("con", "_con"), ("CON.png", "_CON.png"), ("a. ", "a"),
        ("test", "test~"), ("Train set", "Train~ set"), ("my-val", "my-val~"), ("", "_"),
    ],
)  # fmt: skip
def test_what_is_changed_in_a_folders_name(name: str, folder: str) -> None:
    assert folder_names([name]) == [folder]


def test_names_that_some_systems_do_not_tell_apart_get_a_number() -> None:
    assert folder_names(["Cat", "cat", "CAT", "caf\u00e9", "cafe\u0301"]) == [
        "Cat", "cat (2)", "CAT (3)", "caf\u00e9", "cafe\u0301 (2)"
    ]  # fmt: skip


def test_names_in_files_stay_as_they_are_and_different() -> None:
    assert text_names(["a\nb", "caf\udce9", "caf\udcea", "$x$"]) == ["a\nb", "caf�", "caf� (2)", "$x$"]
