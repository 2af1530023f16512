"""Paths as a person writes them: the home folder, relative ones, and those that no system stores."""

from pathlib import Path

import pytest

from trainables.errors import InputError
from trainables.storage.paths import absolute_place, absolute_uri, path_of


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "stores").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")


def test_a_tilde_is_the_home_folder_and_a_relative_path_stays_so(tmp_path: Path) -> None:
    assert path_of("~/runs", "--workdir") == tmp_path / "home" / "runs"
    assert path_of("~", "--workdir") == tmp_path / "home"
    assert path_of("runs/~", "--workdir") == Path("runs/~")
    assert absolute_place("~/runs", "--storage-path") == f"{tmp_path}/home/runs"
    assert absolute_place("runs", "--storage-path") == f"{tmp_path}/here/runs"
    assert absolute_place("s3://bucket/~", "--storage-path") == "s3://bucket/~"


@pytest.mark.parametrize(
    ("written", "absolute"),
    [
        ("sqlite:///a.db", "sqlite:///{}/here/a.db"),
        ("sqlite+pysqlite:///~/a.db?timeout=9", "sqlite+pysqlite:///{}/home/a.db?timeout=9"),
        ("sqlite:////data/a.db", "sqlite:////data/a.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("postgresql://me@host/a", "postgresql://me@host/a"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("file:stores", "file:{}/here/stores"),
        ("file:///data/stores", "file:///data/stores"),
        ("~/stores", "{}/home/stores"),
        ("stores", "{}/here/stores"),
        ("databricks", "databricks"),
    ],
)
def test_files_in_addresses_are_absolute(written: str, absolute: str, tmp_path: Path) -> None:
    assert absolute_uri(written, "--tracking-uri") == absolute.format(tmp_path)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("", "is empty"),
        (" ", "is empty"),
        ("a\nb", r"without line breaks .*'a\\nb'"),
        ("a\0b", "control characters"),
        ("~nobody-of-this-name/runs", "~nobody-of-this-name in .* is nobody's home"),
        ("a" * 300, "part of more than 255 bytes"),
    ],
)
def test_what_cannot_be_a_path_is_refused(written: str, words: str) -> None:
    with pytest.raises(InputError, match=f"--data.*{words}") as refused:
        path_of(written, "--data")
    assert len(str(refused.value).splitlines()) == 1 and len(str(refused.value)) < 200
    with pytest.raises(InputError):
        absolute_uri(f"{written}/" if written.strip() else written, "--tracking-uri")
