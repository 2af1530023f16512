"""Text files are written completely or not at all."""

import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from trainables.storage.atomic import write_folder, write_json, write_text


class TestText:
    def test_the_old_file_stays_where_the_new_one_fails(self, tmp_path: Path) -> None:
        file = tmp_path / "a.txt"
        write_text(file, "old")
        with pytest.raises(UnicodeEncodeError):
            write_text(file, "new, then half of a pair: \ud800")
        assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]

    def test_a_reader_holds_the_old_file_open(self, tmp_path: Path) -> None:
        file = tmp_path / "a.txt"
        write_text(file, "old")
        with file.open() as reader:
            write_text(file, "new")
            assert (reader.read(), file.read_text()) == ("old", "new")

    def test_a_link_stays_one(self, tmp_path: Path) -> None:
        file, link = tmp_path / "a.txt", tmp_path / "link"
        link.symlink_to(file)
        for text in ("first", "second"):
            write_text(link, text)
            assert link.is_symlink() and file.read_text() == text

    def test_a_pipe_is_written_to(self, tmp_path: Path) -> None:
        os.mkfifo(pipe := tmp_path / "pipe")
        got: list[str] = []
        reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
        reader.start()
        write_text(pipe, "through")
        reader.join()
        assert got == ["through"] and pipe.is_fifo()


class TestJson:
    def test_comes_back(self, tmp_path: Path) -> None:
        content = {"a": [1, 0.1, None], "b": "é"}
        write_json(tmp_path / "a.json", content)
        assert json.loads((tmp_path / "a.json").read_text()) == content

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_a_value_that_json_cannot_represent_is_refused(self, tmp_path: Path, value: float) -> None:
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_json(tmp_path / "a.json", [value])
        assert list(tmp_path.iterdir()) == []


class TestFolder:
    @staticmethod
    def two_files(folder: Path) -> None:
        (folder / "below").mkdir()
        for place in ("a.txt", "below/b.txt"):
            (folder / place).write_text(place)

    def test_all_files_appear_at_once(self, tmp_path: Path) -> None:
        def write(folder: Path) -> None:
            self.two_files(folder)
            assert not any((tmp_path / "above").glob("out/*"))

        for _ in range(2):  # the second time it replaces an empty folder
            write_folder(tmp_path / "above" / "out", write)
            assert (tmp_path / "above" / "out" / "below" / "b.txt").read_text() == "below/b.txt"
            assert [path.name for path in (tmp_path / "above").iterdir()] == ["out"]
            shutil.rmtree(tmp_path / "above" / "out")
            (tmp_path / "above" / "out").mkdir()

    def test_a_failure_leaves_nothing(self, tmp_path: Path) -> None:
        def write(folder: Path) -> None:
            self.two_files(folder)
            raise OSError("no more")

        with pytest.raises(OSError, match="no more"):
            write_folder(tmp_path / "out", write)
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_with_files_is_not_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").touch()
        with pytest.raises(OSError):
            write_folder(tmp_path / "out", self.two_files)
        assert [path.name for path in tmp_path.iterdir()] == ["out"] and (tmp_path / "out" / "mine").exists()
