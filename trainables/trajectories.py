"""The expert store: expert trajectories on disk, addressed by what shaped them, read through a memory map.

    experts/<address>/manifest.json     what shaped them, the parameter layout, and each file's rows and SHA-256
    experts/<address>/expert-0000.arrow one Arrow IPC file an expert: one row an epoch, float32 [P] in one column

An expert with more epochs replaces a shorter one whose snapshots it repeats; while it is trained its file grows. A file
certifies itself, so that one whose writer died before the manifest was written is recovered, and extended if it is
short.

The store is a folder that all nodes reach, or lies at a URI (`storage`). There every node fetches a file once, verified
by the manifest's SHA-256, and maps its own copy.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables import expert_file
from trainables.errors import ExpertFileError
from trainables.expert_file import FORMAT_VERSION, ExpertFile, StoredExpert
from trainables.files import remove_leftovers, write_atomically
from trainables.networks import ConvNet
from trainables.storage import CorruptObject, SharedFolder, sha256_of, shared_folder

__all__ = ["ExpertFile", "StoredExpert", "Trajectories", "TrajectoryStore"]


_MANIFEST = "manifest.json"
_FETCHES = 8
"""Files of a URI that are fetched at once: one connection alone is slower than a disk."""


class TrajectoryStore:
    """The experts of one recipe on one dataset, in one folder. At a URI all may raise `storage.StorageError`."""

    def __init__(self, root: Path | SharedFolder, identity: Mapping[str, Any], network: ConvNet) -> None:
        """Address the store of `identity` (JSON: everything that shapes a trajectory) under `root`; creates nothing."""
        self.identity = dict(identity)
        canonical = json.dumps(self.identity, sort_keys=True)
        self.address = hashlib.sha256(canonical.encode()).hexdigest()[:20]
        self.shared = shared_folder(root) / self.address
        self.network = network
        self._published: dict[int, Path] = {}
        """At a URI, this machine's copy of the last file that this process wrote of each expert."""

    @property
    def folder(self) -> Path:
        """The store's folder; of one at a URI this machine's side of it."""
        return self.shared.local

    @property
    def manifest_path(self) -> Path:
        """Where the manifest lies, if the store is at no URI."""
        return self.folder / _MANIFEST

    def path(self, expert: int) -> Path:
        """Where an expert's file lies, if the store is at no URI."""
        return self.folder / _file(expert)

    def place(self, expert: int) -> str:
        """Where an expert's file lies, as people write it."""
        return self.shared.place(_file(expert))

    def read(self) -> dict[int, ExpertFile]:
        """Return what the manifest lists, by expert; nothing if there is no manifest yet.

        Raises:
            ExpertFileError: The manifest cannot be read, or is of another version or network.
        """
        content = self.shared.read(_MANIFEST)
        if content is None:
            return {}
        place, remedy = self.shared.place(_MANIFEST), "delete its folder to train these experts again"
        try:
            manifest = json.loads(content)
            if (version := manifest["version"]) != FORMAT_VERSION:
                raise ExpertFileError(
                    f"{place} has format version {version}, this program reads {FORMAT_VERSION}; {remedy}"
                )
            layout = manifest["layout"]
            entries = {int(expert): ExpertFile(**entry) for expert, entry in manifest["experts"].items()}
        except ExpertFileError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ExpertFileError(f"{place} is not a manifest of experts ({error}); {remedy}") from error
        if layout != [[name, list(shape)] for name, shape in self.network.layout]:
            raise ExpertFileError(f"{place} describes another network than {self.network}; {remedy}")
        return entries

    def short(self, experts: Iterable[int], epochs: int) -> list[int]:
        """Return those experts that are missing or have fewer than `epochs` epochs."""
        listed = self.read()
        return [expert for expert in experts if expert not in listed or listed[expert].rows < epochs + 1]

    def corrupt(self, experts: Iterable[int], *, every_byte: bool = False) -> dict[int, str]:
        """Return what is wrong with each of those experts whose file is neither as the manifest says nor a longer one.

        On a disk this reads every byte: run it once before a sweep, not once a trial. At a URI it compares sizes, and
        fetches files only if `every_byte` is asked for: whoever needs one verifies it as he fetches it.
        """
        listed, sizes, faults = self.read(), self.shared.sizes(), {}
        for expert in experts:
            if expert in listed:
                entry, size = listed[expert], sizes.get(_file(expert))
                fault = self._fault(expert, entry, size, every_byte)
                # One of another size and with as many snapshots is whole too: trained on two unlike machines at once.
                least = entry.rows if size == entry.bytes else entry.rows - 1
                if fault and self.certified(expert, more_than=least) is None:
                    faults[expert] = fault
        return faults

    def _fault(self, expert: int, entry: ExpertFile, size: int | None, every_byte: bool) -> str | None:
        """Return in what an expert's file differs from its manifest entry."""
        if size is None:
            return "it is missing"
        if size != entry.bytes:
            return f"it has {size} bytes, its manifest says {entry.bytes}"
        if self.shared.uri is not None and not every_byte:
            return None
        wrong = "its SHA-256 is not the one in its manifest"
        try:
            path = self.shared.fetch(_file(expert), entry.sha256)
        except CorruptObject:
            return wrong
        return None if self.shared.uri is not None or sha256_of(path) == entry.sha256 else wrong

    def recover(self, experts: Iterable[int]) -> None:
        """Enter whole files, also short ones, whose writer died before it did so, and remove what it left aside.

        One process at a time, and none that writes these experts.
        """
        listed, sizes, found = self.read(), self.shared.sizes(), {}
        remove_leftovers(self.manifest_path)
        for expert in experts:
            remove_leftovers(self.path(expert))
            before = listed.get(expert)
            if before is None or sizes.get(_file(expert), before.bytes) != before.bytes:  # a longer file is larger
                entry = self.certified(expert, more_than=0 if before is None else before.rows - 1)
                if entry is not None:
                    found[expert] = entry
        if found:
            self.record(found)

    def certified(self, expert: int, more_than: int) -> ExpertFile | None:
        """Return the entry of an expert's file if that certifies itself and holds more than so many snapshots.

        From a URI it is fetched if its end says that it does.
        """
        try:
            if self.shared.uri is not None:
                with self.shared.open(_file(expert)) as file:
                    if expert_file.snapshots_in(file) <= more_than:
                        return None
            path = self.shared.fetch(_file(expert))
        except FileNotFoundError:
            return None
        entry = expert_file.certified(path, self.network.parameters, more_than)
        return None if entry is None else replace(entry, file=_file(expert))

    def forget(self, experts: Iterable[int]) -> None:
        """Remove experts' files and entries, to train them from the start. One process at a time."""
        entries = self.read()
        for expert in experts:
            self.shared.remove(_file(expert))  # first: a listed file that is missing is known to be corrupt
            entries.pop(expert, None)
        self._write_manifest(entries)

    def most_bytes(self, epochs: int) -> int:
        """Return what the file of an expert of so many epochs takes at most."""
        return expert_file.most_bytes(self.network.parameters, epochs)

    def write(
        self, expert: int, snapshots: Sequence[Tensor], losses: Sequence[float], velocity: Tensor | None = None
    ) -> ExpertFile:
        """Write an expert's file and return what the manifest must say of it; see `record`.

        Args:
            expert: Its number.
            snapshots: Parameters before the first and after each epoch, each float32 [P].
            losses: Mean training loss of each epoch.
            velocity: SGD's momentum buffer after the last epoch, float32 [P]; None where experts have no momentum.

        Raises:
            OSError: It cannot be written, and the old file is whole; see `files.is_disk_full`.
        """
        draft = self.shared.draft(_file(expert))
        write_atomically(draft, lambda aside: expert_file.write(aside, snapshots, losses, velocity))
        entry = expert_file.describe(draft, len(snapshots), list(losses))
        path = self.shared.publish(_file(expert), draft, entry.sha256)
        before = self._published.get(expert, path)
        self._published[expert] = path
        if before != path:  # a shorter one, which nobody needs any more
            before.unlink(missing_ok=True)
        return replace(entry, file=_file(expert))

    def record(self, written: Mapping[int, ExpertFile]) -> None:
        """Enter files in the manifest. One process at a time: hold `lock_path` locked."""
        self._write_manifest({**self.read(), **written})

    def _write_manifest(self, entries: Mapping[int, ExpertFile]) -> None:
        manifest = {
            "version": FORMAT_VERSION,
            "address": self.address,
            "identity": self.identity,
            "layout": [[name, list(shape)] for name, shape in self.network.layout],
            "torch": ".".join(torch.__version__.split(".")[:2]),
            "experts": {str(expert): asdict(entry) for expert, entry in sorted(entries.items())},
        }
        self.shared.write(_MANIFEST, json.dumps(manifest, indent=1).encode())

    @property
    def lock_path(self) -> Path:
        """The file to lock while experts are trained into this store; it keeps off processes of this machine.

        Two machines that train the same experts at one URI do the work twice; see docs/design/storage.md.
        """
        return self.folder / ".lock"

    def open(self, experts: Sequence[int], epochs: int) -> "Trajectories":
        """Map experts into memory, each with snapshots 0 to `epochs`.

        Raises:
            ExpertFileError: An expert is missing, short, truncated or corrupt; the message names the file.
        """
        listed = self.read()
        with ThreadPoolExecutor(_FETCHES) as pool:
            maps = pool.map(lambda expert: self._map(expert, listed.get(expert), epochs), experts)
            return Trajectories(list(maps))

    def load(self, expert: int) -> StoredExpert:
        """Return a copy of all that a listed expert's file holds, to extend it; more than listed, if it has grown.

        Raises:
            ExpertFileError: The file is missing, short or truncated, or its momentum buffer is not the one written.
        """
        entry = self.read()[expert]
        path = self._local(expert, entry)
        try:
            stored = expert_file.read(path, self.network.parameters)
        except ExpertFileError:
            raise
        except expert_file.UNREADABLE as error:
            raise _unreadable(path, error) from error
        if not entry.rows <= len(stored.snapshots) == len(stored.losses) + 1:
            raise _too_few(path, len(stored.snapshots), entry)
        return stored

    def _local(self, expert: int, entry: ExpertFile) -> Path:
        """Return where this machine has an expert as its manifest entry says, or a whole file that holds as much.

        Raises:
            ExpertFileError: What is at the URI is missing, or corrupt.
        """
        try:
            return self.shared.fetch(_file(expert), entry.sha256)
        except FileNotFoundError as error:
            raise _unreadable(self.place(expert), error) from error
        except CorruptObject as error:
            # Or somebody has extended the expert since the manifest was read, or is doing so.
            whole = self.certified(expert, more_than=entry.rows - 1)
            if whole is None:
                raise ExpertFileError(f"{error}; train it again with --retrain-corrupt") from error
            return self.shared.fetch(_file(expert), whole.sha256)

    def _map(self, expert: int, entry: ExpertFile | None, epochs: int) -> list[np.ndarray]:
        if entry is None or entry.rows < epochs + 1:
            have = "none" if entry is None else entry.rows - 1
            raise ExpertFileError(
                f"{self.place(expert)} needs {epochs} epochs and has {have}; train it with orchestrator.experts"
            )
        path = self._local(expert, entry)
        try:
            rows = expert_file.map_snapshots(path, self.network.parameters)
        except expert_file.UNREADABLE as error:
            raise _unreadable(path, error) from error
        if len(rows) < epochs + 1:
            raise _too_few(path, len(rows), entry)
        return rows[: epochs + 1]


class Trajectories:
    """Memory-mapped snapshots of several experts; the pages are shared by every process of a node."""

    def __init__(self, rows: list[list[np.ndarray]]) -> None:
        """Hold the maps: `rows[expert][epoch]` is read-only float32 [P]."""
        self._rows = rows

    def __len__(self) -> int:
        """Return the number of experts."""
        return len(self._rows)

    def snapshot(self, expert: int, epoch: int) -> Tensor:
        """Return a copy, float32 [P], of an expert after `epoch` epochs.

        A copy, because writing into a view on the map would crash the process.
        """
        return torch.from_numpy(self._rows[expert][epoch].copy())


def _file(expert: int) -> str:
    """Return the name of an expert's file."""
    return f"expert-{expert:04d}.arrow"


def _unreadable(path: Path | str, error: Exception) -> ExpertFileError:
    return ExpertFileError(f"{path} cannot be read ({error}); train it again with --retrain-corrupt")


def _too_few(path: Path, rows: int, entry: ExpertFile) -> ExpertFileError:
    return ExpertFileError(f"{path} holds {rows} snapshots, its manifest says {entry.rows}")
