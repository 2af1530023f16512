"""Folders that nodes share at a URI: every node fetches a file once, verified, and never reads half a file.

A node is simulated by its own cache folder, $XDG_CACHE_HOME; the URI is file://, which pyarrow.fs handles like s3://
and gs://.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.experts import IDENTITY, random_snapshots
from tests.support.paths import ROOT
from tests.support.servers import BUCKET, gs_server, s3_server
from trainables.data import datasets
from trainables.errors import ExpertFileError
from trainables.experts.file import ExpertFile
from trainables.experts.store import TrajectoryStore
from trainables.seeding import generator
from trainables.storage.shared_file import local_path, share
from trainables.storage.shared_folder import (
    CorruptObject,
    SharedFolder,
    StorageError,
    addressed,
    cache_of,
    sha256_of,
    shared_folder,
)

CONTENT = (
    torch.randint(256, (9_000_000,), generator=generator("storage", "content"), dtype=torch.uint8).numpy().tobytes()
)


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    return tmp_path / "bucket"


@pytest.fixture
def on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Continue as the node of this name."""

    def node(name: str) -> Path:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        return tmp_path / name

    node("driver")
    return node


@pytest.fixture
def shared(bucket: Path, on: Callable[[str], Path]) -> SharedFolder:
    return SharedFolder(f"file://{bucket}", "some/folder")


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that this process downloads, in order."""
    names: list[str] = []
    download = SharedFolder.download

    def noted(self: SharedFolder, name: str, path: Path) -> str:
        names.append(name)
        return download(self, name, path)

    monkeypatch.setattr(SharedFolder, "download", noted)
    return names


def published(shared: SharedFolder) -> tuple[Path, str]:
    """Publish a file; return its path on this machine and its checksum."""
    draft = shared.draft("file.arrow")
    draft.write_bytes(CONTENT)
    sha256 = sha256_of(draft)
    return shared.publish("file.arrow", draft, sha256), sha256


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def in_process(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Run code in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def check_small_files(folder: Any) -> None:
    """Small files are written, read, listed and removed."""
    assert (folder.read("a"), folder.sizes(), folder.folders()) == (None, {}, [])
    for content in (b"first", b"2nd"):
        folder.write("a", content)
        assert folder.read("a") == content
    (folder / "below").write("b", b"")
    assert (folder.sizes(), folder.folders()) == ({"a": 3}, ["below"])
    folder.remove("a")
    folder.remove("a")
    assert folder.read("a") is None


class TestFolder:
    def test_on_a_path_the_file_is_the_path_and_nothing_is_copied(self, tmp_path: Path) -> None:
        shared = shared_folder(tmp_path) / "some" / "folder"
        draft = shared.draft("file.arrow")
        draft.write_bytes(b"content")
        assert shared.publish("file.arrow", draft, "any") == shared.fetch("file.arrow", "any") == draft
        assert shared.place("file.arrow") == str(tmp_path / "some" / "folder" / "file.arrow")
        assert files(tmp_path) == ["some/folder/file.arrow"]

    @pytest.mark.parametrize("at_uri", [False, True])
    def test_small_files_are_written_read_listed_and_removed(
        self, tmp_path: Path, shared: SharedFolder, at_uri: bool
    ) -> None:
        check_small_files(shared if at_uri else shared_folder(tmp_path / "plain"))

    def test_what_is_published_is_fetched_by_another_node_and_not_by_its_own(
        self, shared: SharedFolder, on: Callable[[str], Path], downloads: list[str], bucket: Path
    ) -> None:
        own, sha256 = published(shared)
        assert shared.fetch("file.arrow", sha256) == own and downloads == []
        other = on("other")
        fetched = shared.fetch("file.arrow", sha256)
        assert fetched.is_relative_to(other) and sha256 in fetched.name
        assert fetched.read_bytes() == CONTENT and downloads == ["file.arrow"]
        assert files(bucket) == ["some/folder/file.arrow"]

    def test_two_uris_have_two_caches(self, on: Callable[[str], Path]) -> None:
        assert cache_of("s3://bucket/a-b") != cache_of("s3://bucket/a/b")
        assert SharedFolder("s3://bucket/a", "x").local == cache_of("s3://bucket/a") / "x"

    def test_threads_of_a_node_fetch_once(
        self, shared: SharedFolder, on: Callable[[str], Path], downloads: list[str]
    ) -> None:
        _, sha256 = published(shared)
        on("other")
        paths = []
        threads = [threading.Thread(target=lambda: paths.append(shared.fetch("file.arrow", sha256))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(paths) == 8 and len(set(paths)) == 1 and downloads == ["file.arrow"]

    def test_processes_of_a_node_fetch_once(self, shared: SharedFolder, on: Callable[[str], Path]) -> None:
        _, sha256 = published(shared)
        on("other")
        code = """
import sys
from trainables.storage.shared_folder import SharedFolder
download = SharedFolder.download
def counted(self, name, path):
    print("fetched")
    return download(self, name, path)
SharedFolder.download = counted
print(SharedFolder(*sys.argv[1:3]).fetch("file.arrow", sys.argv[3]))
"""
        running = [in_process(code, shared.root, shared.inside, sha256) for _ in range(3)]
        said = [process.communicate(timeout=60)[0].split() for process in running]
        assert sum(words.count("fetched") for words in said) == 1
        assert {words[-1] for words in said} == {str(shared.fetch("file.arrow", sha256))}

    def test_a_fetch_that_went_wrong_is_tried_again(
        self, shared: SharedFolder, on: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, sha256 = published(shared)
        on("other")
        download, tries = SharedFolder.download, []

        def flip(self: SharedFolder, name: str, path: Path) -> str:
            actual = download(self, name, path)
            tries.append(name)
            return actual if len(tries) > 1 else "f" * 64

        monkeypatch.setattr(SharedFolder, "download", flip)
        assert shared.fetch("file.arrow", sha256).read_bytes() == CONTENT
        assert len(tries) == 2

    def test_a_corrupt_object_is_fetched_twice_and_refused_by_name(
        self, shared: SharedFolder, on: Callable[[str], Path], downloads: list[str], bucket: Path
    ) -> None:
        _, sha256 = published(shared)
        damaged = bytearray(CONTENT)
        damaged[4_500_000] ^= 1
        (bucket / "some" / "folder" / "file.arrow").write_bytes(damaged)
        other = on("other")
        with pytest.raises(CorruptObject, match=rf"^file://{bucket}/some/folder/file\.arrow is corrupt: .*{sha256}$"):
            shared.fetch("file.arrow", sha256)
        assert downloads == ["file.arrow"] * 2
        assert [name for name in files(other) if not name.endswith(".lock")] == []

    def test_a_missing_object_of_a_folder(self, shared: SharedFolder) -> None:
        with pytest.raises(FileNotFoundError, match=r"file\.arrow does not exist"):
            shared.fetch("file.arrow", "0" * 64)
        with pytest.raises(FileNotFoundError, match=r"file\.arrow does not exist"):
            shared.open("file.arrow")

    @pytest.mark.parametrize("killed", [False, True])
    def test_an_interrupted_upload_leaves_the_old_object(
        self, shared: SharedFolder, bucket: Path, killed: bool, tmp_path: Path
    ) -> None:
        """Files are limited to a megabyte: the process gets an error, or is killed."""
        shared.write("file.arrow", b"old")
        (tmp_path / "new").write_bytes(CONTENT)
        code = """
import resource, signal, sys
from pathlib import Path
from trainables.storage.shared_folder import SharedFolder
if sys.argv[4] == "True":
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
SharedFolder(*sys.argv[1:3]).upload("file.arrow", Path(sys.argv[3]))
"""
        process = in_process(code, shared.root, shared.inside, tmp_path / "new", killed)
        said = process.communicate(timeout=60)[0]
        assert process.returncode == (-signal.SIGXFSZ if killed else 1)
        assert ("StorageError" in said) is not killed
        assert (shared.read("file.arrow"), shared.sizes()) == (b"old", {"file.arrow": 3})
        shared.upload("file.arrow", tmp_path / "new")
        assert shared.read("file.arrow") == CONTENT

    def test_what_does_not_work_is_one_line_with_the_uri(self, shared: SharedFolder, bucket: Path) -> None:
        bucket.write_text("no folder")
        with pytest.raises(StorageError, match=rf"^file://{bucket}/some/folder/a does not work \(.*\)$"):
            shared.write("a", b"")


class TestServices:
    """The same with real servers, which have no folders, no renaming, and requests that can be interrupted."""

    @pytest.fixture(scope="class", params=["s3", "gs"])
    def root(self, request: pytest.FixtureRequest) -> Iterator[str]:
        server = {"s3": s3_server, "gs": gs_server}[request.param]
        with server() as environment, pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            yield f"{request.param}://{BUCKET}/with a blank"

    def test_small_files(self, root: str, on: Callable[[str], Path]) -> None:
        check_small_files(SharedFolder(root, "small"))

    def test_large_files(self, root: str, on: Callable[[str], Path], downloads: list[str]) -> None:
        folder = SharedFolder(root, "large")
        own, sha256 = published(folder)
        assert folder.fetch("file.arrow", sha256) == own and downloads == []
        on("other")
        assert folder.fetch("file.arrow", sha256).read_bytes() == CONTENT
        on("third")
        folder.write("file.arrow", CONTENT[:-1])
        with pytest.raises(CorruptObject, match=rf"^{root}/large/file\.arrow is corrupt"):
            folder.fetch("file.arrow", sha256)
        with pytest.raises(FileNotFoundError, match=r"other\.arrow does not exist"):
            folder.fetch("other.arrow", sha256)

    def test_experts(self, root: str, on: Callable[[str], Path]) -> None:
        store = TrajectoryStore(SharedFolder(root, "experts"), IDENTITY)
        entry = store.write(0, random_snapshots(5), [0.5] * 4)
        on("other")
        store.recover([0, 1])
        assert store.read() == {0: entry} and store.corrupt([0], every_byte=True) == {}
        assert torch.equal(store.open([0], 4).snapshot(0, 4), random_snapshots(5)[4])
        store.forget([0])
        assert store.short([0], 1) == [0]

    @pytest.mark.parametrize("size", [1, len(CONTENT)])
    def test_a_missing_bucket(self, root: str, on: Callable[[str], Path], tmp_path: Path, size: Any) -> None:
        """For a small file the server reports it only at the end of the upload."""
        folder = SharedFolder(root.replace(BUCKET, "nobodys"), "any")
        (tmp_path / "file").write_bytes(CONTENT[:size])
        for put in (lambda: folder.write("a", CONTENT[:size]), lambda: folder.upload("a", tmp_path / "file")):
            with pytest.raises(StorageError, match=rf"^{root.replace(BUCKET, 'nobodys')}/any/a does not work \("):
                put()


class TestDataset:
    @pytest.mark.parametrize("zca", [False, True])
    def test_any_node_opens_what_the_driver_has_shared_and_fetches_it_once(
        self, digits_path: Path, bucket: Path, on: Callable[[str], Path], downloads: list[str], zca: bool
    ) -> None:
        folder = SharedFolder(f"file://{bucket}", "datasets")
        images = folder.draft("x").with_name(digits_path.name)
        shutil.copy(digits_path, images)
        path = datasets.whiten(images) if zca else images
        work = share(path, folder, beside=share(images, folder) if zca else None)
        assert datasets.load(local_path(work)).digest == datasets.load(path).digest
        assert downloads == []  # the driver's own processes have it

        on("other")
        for _ in range(2):
            dataset = datasets.load(local_path(work), datasets.SPLITS)
            assert dataset.digest == datasets.load(path).digest and (dataset.whitening is not None) == zca
        assert len(downloads) == len(set(downloads)) == (2 if zca else 1)
        if zca:  # one copy in memory, with and without whitening
            assert work.beside is not None
            assert local_path(work.beside).stat().st_nlink == 2

    def test_sharing_again_uploads_nothing(
        self, digits_path: Path, bucket: Path, on: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = SharedFolder(f"file://{bucket}", "datasets")
        images = folder.draft("x").with_name(digits_path.name)
        shutil.copy(digits_path, images)
        first = share(images, folder)
        monkeypatch.setattr(SharedFolder, "upload", lambda self, name, path: pytest.fail("uploaded"))
        assert share(images, folder) == first
        assert local_path(images) == images


class TestExperts:
    """A store at a URI: trained on one node, opened by another."""

    @pytest.fixture
    def store(self, bucket: Path, on: Callable[[str], Path]) -> TrajectoryStore:
        return TrajectoryStore(SharedFolder(f"file://{bucket}", "experts"), IDENTITY)

    @pytest.fixture
    def filled(self, store: TrajectoryStore) -> TrajectoryStore:
        """Experts 0 and 1 of four epochs."""
        for expert in (0, 1):
            store.record({expert: self.written(store, expert)})
        return store

    def written(self, store: TrajectoryStore, expert: int, rows: int = 5) -> ExpertFile:
        return store.write(expert, random_snapshots(rows, expert), [0.5**n for n in range(rows - 1)])

    def object(self, store: TrajectoryStore, bucket: Path, expert: int) -> Path:
        return bucket / "experts" / store.address / f"expert-{expert:04d}.arrow"

    def assert_opened(self, store: TrajectoryStore, expert: int, epochs: int) -> None:
        opened = store.open([expert], epochs)
        for epoch, snapshot in enumerate(random_snapshots(epochs + 1, expert)):
            assert torch.equal(opened.snapshot(0, epoch), snapshot)

    def test_another_node_opens_and_extends_what_one_has_trained(
        self, filled: TrajectoryStore, on: Callable[[str], Path], downloads: list[str]
    ) -> None:
        self.assert_opened(filled, 0, 4)
        assert downloads == []  # it is on the node that trained it
        on("other")
        for _ in range(2):
            self.assert_opened(filled, 0, 4)
        self.assert_opened(filled, 1, 3)
        assert filled.load(1).losses == filled.read()[1].losses
        assert sorted(downloads) == ["expert-0000.arrow", "expert-0001.arrow"]
        assert filled.corrupt([0, 1]) == {} and filled.short([0, 1, 2], 4) == [2]

    def test_entries_are_those_of_a_store_on_a_disk(self, filled: TrajectoryStore, tmp_path: Path) -> None:
        plain = TrajectoryStore(tmp_path / "plain", IDENTITY)
        for expert in (0, 1):
            plain.record({expert: self.written(plain, expert)})
        assert plain.read() == filled.read()

    def test_files_that_were_never_recorded_are_entered(
        self, filled: TrajectoryStore, on: Callable[[str], Path], downloads: list[str]
    ) -> None:
        self.written(filled, 0, rows=7)
        self.written(filled, 2, rows=3)
        on("next driver")
        assert filled.corrupt([0, 1, 2]) == {}
        downloads.clear()
        filled.recover(range(4))
        assert {expert: entry.rows for expert, entry in filled.read().items()} == {0: 7, 1: 5, 2: 3}
        assert sorted(downloads) == ["expert-0000.arrow", "expert-0002.arrow"]  # and no file that is as listed
        self.assert_opened(filled, 0, 6)
        self.assert_opened(filled, 2, 2)

    def test_an_expert_that_is_being_extended_is_opened_as_far_as_it_is_asked_for(
        self, filled: TrajectoryStore, on: Callable[[str], Path]
    ) -> None:
        self.written(filled, 0, rows=7)
        on("other")
        self.assert_opened(filled, 0, 4)
        assert len(filled.load(0).snapshots) == 7

    def test_only_the_last_file_of_an_expert_stays_where_it_is_trained(
        self, store: TrajectoryStore, on: Callable[[str], Path]
    ) -> None:
        for rows in (3, 4, 5):
            entry = self.written(store, 0, rows)
        assert [path.name for path in store.folder.glob("*.arrow")] == [addressed("expert-0000.arrow", entry.sha256)]

    def test_whether_a_file_holds_more_is_seen_at_its_end(
        self, filled: TrajectoryStore, on: Callable[[str], Path], downloads: list[str]
    ) -> None:
        on("other")
        assert filled.certified(0, more_than=5) is None and filled.certified(9, more_than=0) is None
        assert downloads == []
        assert filled.certified(0, more_than=4) == filled.read()[0]

    @pytest.mark.parametrize("damage", ["bit", "end", "all"])
    def test_a_damaged_object_is_named_and_never_opened(
        self, filled: TrajectoryStore, on: Callable[[str], Path], bucket: Path, damage: str
    ) -> None:
        place = self.object(filled, bucket, 1)
        content = bytearray(place.read_bytes())
        content[len(content) // 2] ^= 1
        place.write_bytes({"bit": bytes(content), "end": bytes(content[:-9]), "all": b""}[damage])
        size = place.stat().st_size
        word = "its SHA-256 is not the one in its manifest"
        if damage != "bit":
            word = f"it has {size} bytes, its manifest says {filled.read()[1].bytes}"
        on("other")
        assert filled.corrupt([0, 1]) == ({} if damage == "bit" else {1: word})  # sizes alone
        assert filled.corrupt([0, 1], every_byte=True) == {1: word}
        with pytest.raises(ExpertFileError, match=r"^file://.*/expert-0001\.arrow is corrupt: .* --retrain-corrupt$"):
            filled.open([0, 1], 4)

    def test_a_missing_object(self, filled: TrajectoryStore, on: Callable[[str], Path], bucket: Path) -> None:
        self.object(filled, bucket, 1).unlink()
        on("other")
        assert filled.corrupt([0, 1]) == {1: "it is missing"}
        with pytest.raises(ExpertFileError, match=r"expert-0001\.arrow cannot be read .* --retrain-corrupt$"):
            filled.open([1], 4)

    def test_forgotten_experts_are_short_again_and_the_others_stay(
        self, filled: TrajectoryStore, on: Callable[[str], Path], bucket: Path
    ) -> None:
        filled.forget([1, 7])
        assert filled.short([0, 1], 4) == [1] and not self.object(filled, bucket, 1).exists()
        on("other")
        filled.recover([0, 1])
        assert sorted(filled.read()) == [0]

    def test_two_processes_that_train_the_same_experts_leave_complete_files(
        self, store: TrajectoryStore, on: Callable[[str], Path]
    ) -> None:
        """Both do the same work: equal files replace equal files, whichever process writes the manifest last."""
        on("one")
        first = self.written(store, 0)
        on("other")
        second = self.written(store, 0)
        assert first == second
        store.record({0: second})
        on("third")
        self.assert_opened(store, 0, 4)
