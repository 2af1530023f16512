"""The expert store: expert trajectories on disk, addressed by everything that determines them, memory-mapped.

    experts/<address>/manifest.json     their identity, the parameter layout, and each file's rows and SHA-256
    experts/<address>/expert-0000.arrow one Arrow IPC file per expert: one row per epoch, float32 [P] in one column

An expert with more epochs replaces a shorter one, whose snapshots it repeats; during training its file grows. A file
certifies itself: if its writer died before it wrote the manifest, the file is recovered, and extended if it is short.

The store is a folder that all nodes can read, or is at a URI (`storage`). At a URI every node fetches a file once,
verifies it by the manifest's SHA-256 and maps its own copy.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.errors import ExpertFileError
from trainables.experts import file as expert_file
from trainables.experts.file import FORMAT_VERSION, ExpertFile, StoredExpert
from trainables.experts.identity import ExpertIdentity
from trainables.networks.network import Network
from trainables.storage.atomic import remove_leftovers, write_atomically
from trainables.storage.shared_folder import CorruptObject, SharedFolder, sha256_of, shared_folder

__all__ = ["ExpertFile", "StoredExpert", "Trajectories", "TrajectoryStore"]


_MANIFEST = "manifest.json"
_FETCHES = 8
"""Files fetched from a URI at once: a single connection is slower than a disk."""


class TrajectoryStore:
    """The experts of one identity, in one folder. At a URI every method may raise `shared_folder.StorageError`.

    A store can be pickled: a worker receives the store, and takes network, recipe and augmentation from it.
    """

    def __init__(self, root: Path | SharedFolder, identity: ExpertIdentity) -> None:
        """Address the store of an identity under `root`; creates nothing."""
        self.identity = identity
        self.shared = shared_folder(root) / identity.address
        self._published: dict[int, Path] = {}
        """At a URI, this machine's copy of the last file that this process wrote of each expert."""
        self._verified: dict[int, tuple[str, _Stamp]] = {}
        """On a disk, the checksum of each expert's file that this process has read, and the stamp of that file."""

    def __getstate__(self) -> dict[str, Any]:
        """Drop what this process knows about this machine's files."""
        return {**self.__dict__, "_published": {}, "_verified": {}}

    @property
    def address(self) -> str:
        """The name of the store's folder."""
        return self.identity.address

    @property
    def network(self) -> Network:
        """The network whose parameters are stored."""
        return self.identity.network

    @property
    def folder(self) -> Path:
        """The store's folder; for a store at a URI, this machine's cache of it."""
        return self.shared.local

    @property
    def manifest_path(self) -> Path:
        """The manifest's path, if the store is not at a URI."""
        return self.folder / _MANIFEST

    def path(self, expert: int) -> Path:
        """The path of an expert's file, if the store is not at a URI."""
        return self.folder / _file(expert)

    def place(self, expert: int) -> str:
        """The path or URI of an expert's file, for messages."""
        return self.shared.place(_file(expert))

    def read(self) -> dict[int, ExpertFile]:
        """Return the manifest's entries by expert; none if there is no manifest yet.

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
        """Return the experts that are missing or have fewer than `epochs` epochs."""
        listed = self.read()
        return [expert for expert in experts if expert not in listed or listed[expert].rows < epochs + 1]

    def corrupt(self, experts: Iterable[int], *, every_byte: bool = False) -> dict[int, str]:
        """Return the faults, by expert, of files that neither match the manifest nor are complete, longer ones.

        On a disk this reads every byte; a process reads an unchanged file only once. Run it before a sweep, not in
        every worker. At a URI it compares sizes, and fetches files only with `every_byte`: a node verifies what it
        fetches.

        Args:
            experts: The experts to check; those that the manifest does not list are skipped.
            every_byte: Whether to verify checksums at a URI also.

        Raises:
            ExpertFileError: The manifest cannot be read, or is of another version or network.
        """
        listed, sizes, faults = self.read(), self.shared.sizes(), {}
        for expert in experts:
            if expert in listed:
                entry, size = listed[expert], sizes.get(_file(expert))
                fault = self._fault(expert, entry, size, every_byte)
                # A file of another size with as many snapshots is complete too: two unlike machines trained it at once.
                more_than = entry.rows if size == entry.bytes else entry.rows - 1
                if fault and self.certified(expert, more_than) is None:
                    faults[expert] = fault
        return faults

    def _fault(self, expert: int, entry: ExpertFile, size: int | None, every_byte: bool) -> str | None:
        """Return how an expert's file differs from its manifest entry; None if it does not."""
        if size is None:
            return "it is missing"
        if size != entry.bytes:
            return f"it has {size} bytes, its manifest says {entry.bytes}"
        if self.shared.uri is not None and not every_byte:
            return None
        wrong_checksum = "its SHA-256 is not the one in its manifest"
        try:
            path = self.shared.fetch(_file(expert), entry.sha256)
        except CorruptObject:
            return wrong_checksum
        matches = self.shared.uri is not None or self._sha256(expert, path) == entry.sha256
        return None if matches else wrong_checksum

    def _sha256(self, expert: int, path: Path) -> str:
        """Return the checksum of an expert's file on a disk; an unchanged file is read at most once."""
        stamp = _stamp(path)  # before the read: a file that changes during it is read again
        known = self._verified.get(expert)
        if known is not None and known[1] == stamp:
            return known[0]
        sha256 = sha256_of(path)
        self._verified[expert] = sha256, stamp
        return sha256

    def recover(self, experts: Iterable[int]) -> None:
        """Enter complete files, also short ones, whose writer died before it entered them; remove its temporary files.

        Only one process at a time may do this, and no process may be writing these experts.
        """
        listed, sizes, recovered = self.read(), self.shared.sizes(), {}
        remove_leftovers(self.manifest_path)
        for expert in experts:
            remove_leftovers(self.path(expert))
            before = listed.get(expert)
            if before is None or sizes.get(_file(expert), before.bytes) != before.bytes:  # a longer file is larger
                entry = self.certified(expert, more_than=0 if before is None else before.rows - 1)
                if entry is not None:
                    recovered[expert] = entry
        if recovered:
            self.record(recovered)

    def certified(self, expert: int, more_than: int) -> ExpertFile | None:
        """Return the entry of an expert's file if its digest is correct and it has more than `more_than` snapshots.

        Otherwise, and if there is no file, the result is None. A file at a URI is fetched only if its footer says that
        it has enough snapshots.
        """
        try:
            if self.shared.uri is not None:
                with self.shared.open(_file(expert)) as file:
                    if expert_file.snapshots_in(file) <= more_than:
                        return None
            path = self.shared.fetch(_file(expert))
            stamp = _stamp(path)
        except FileNotFoundError:
            return None
        entry = expert_file.certified(path, self.network.parameters, more_than)
        if entry is None:
            return None
        self._verified[expert] = entry.sha256, stamp
        return replace(entry, file=_file(expert))

    def forget(self, experts: Iterable[int]) -> None:
        """Remove experts' files and entries, to train them from the start. Only one process at a time."""
        entries = self.read()
        for expert in experts:
            self.shared.remove(_file(expert))  # first: a listed file that is missing is known to be corrupt
            entries.pop(expert, None)
        self._write_manifest(entries)

    def most_bytes(self, epochs: int) -> int:
        """Return an upper bound, in bytes, on the size of an expert's file with this many epochs."""
        return expert_file.most_bytes(self.network.parameters, epochs)

    def write(
        self, expert: int, snapshots: Sequence[Tensor], losses: Sequence[float], velocity: Tensor | None = None
    ) -> ExpertFile:
        """Write an expert's file and return its entry for the manifest; see `record`.

        Args:
            expert: Its number.
            snapshots: Parameters before the first and after each epoch, each float32 [P].
            losses: Mean training loss of each epoch.
            velocity: SGD's momentum buffer after the last epoch, float32 [P]; None if experts have no momentum.

        Raises:
            OSError: The file cannot be written; the old one is intact. See `atomic.is_disk_full`.
        """
        draft = self.shared.draft(_file(expert))
        write_atomically(draft, lambda aside: expert_file.write(aside, snapshots, losses, velocity))
        entry = expert_file.describe(draft, len(snapshots), list(losses))
        path = self.shared.publish(_file(expert), draft, entry.sha256)
        before = self._published.get(expert, path)
        self._published[expert] = path
        if before != path:  # a shorter file, no longer needed
            before.unlink(missing_ok=True)
        return replace(entry, file=_file(expert))

    def record(self, written: Mapping[int, ExpertFile]) -> None:
        """Enter files in the manifest. Only one process at a time: hold the lock on `lock_path`."""
        self._write_manifest({**self.read(), **written})

    def _write_manifest(self, entries: Mapping[int, ExpertFile]) -> None:
        manifest = {
            "version": FORMAT_VERSION,
            "address": self.address,
            "identity": self.identity.record(),
            "layout": [[name, list(shape)] for name, shape in self.network.layout],
            "torch": ".".join(torch.__version__.split(".")[:2]),
            "experts": {str(expert): asdict(entry) for expert, entry in sorted(entries.items())},
        }
        self.shared.write(_MANIFEST, json.dumps(manifest, indent=1).encode())

    @property
    def lock_path(self) -> Path:
        """The file to lock while experts are trained into this store; it excludes other processes of this machine.

        Two machines that train the same experts at one URI do the work twice; see docs/design/storage.md.
        """
        return self.folder / ".lock"

    def open(self, experts: Sequence[int], epochs: int) -> "Trajectories":
        """Map experts into memory, each with snapshots 0 to `epochs`.

        On a disk no checksum is computed: the driver has verified the files before any worker opens a store
        (`corrupt`), or an actor has just written the file; and files are replaced by complete ones, never changed. At
        a URI a node verifies what it fetches.

        Raises:
            ExpertFileError: An expert is missing, short, truncated or corrupt; the message names the file.
        """
        listed = self.read()
        with ThreadPoolExecutor(_FETCHES) as pool:
            maps = pool.map(lambda expert: self._map(expert, listed.get(expert), epochs), experts)
            return Trajectories(list(maps))

    def load(self, expert: int) -> StoredExpert:
        """Return a copy of a listed expert's whole file, to extend it; it may have grown since it was listed.

        Raises:
            ExpertFileError: The file is missing, short or truncated, or its momentum buffer is damaged.
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
        """Return the path, on this machine, of the file of an entry, or of a complete one with as many rows.

        Raises:
            ExpertFileError: The object at the URI is missing or corrupt.
        """
        try:
            return self.shared.fetch(_file(expert), entry.sha256)
        except FileNotFoundError as error:
            raise _unreadable(self.place(expert), error) from error
        except CorruptObject as error:
            # Or another process has extended the expert since the manifest was read.
            extended = self.certified(expert, more_than=entry.rows - 1)
            if extended is None:
                raise ExpertFileError(f"{error}; train it again with --retrain-corrupt") from error
            return self.shared.fetch(_file(expert), extended.sha256)

    def _map(self, expert: int, entry: ExpertFile | None, epochs: int) -> list[np.ndarray]:
        """Return snapshots 0 to `epochs` of an expert, each read-only float32 [P], as views on the memory map."""
        if entry is None or entry.rows < epochs + 1:
            present = "none" if entry is None else entry.rows - 1
            raise ExpertFileError(
                f"{self.place(expert)} needs {epochs} epochs and has {present}; train it with orchestrator.experts"
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
    """Memory-mapped snapshots of several experts; all processes of a node share the pages."""

    def __init__(self, rows: list[list[np.ndarray]]) -> None:
        """Keep the maps: `rows[expert][epoch]` is read-only float32 [P]."""
        self._rows = rows

    def __len__(self) -> int:
        """Return the number of experts."""
        return len(self._rows)

    def snapshot(self, expert: int, epoch: int) -> Tensor:
        """Return a copy of an expert's parameters, float32 [P], after `epoch` epochs.

        It is a copy because writing into a view on the map would crash the process.
        """
        return torch.from_numpy(self._rows[expert][epoch].copy())


_Stamp = tuple[int, int, int]
"""What identifies the state of a file on a disk: inode, size in bytes, time of modification in nanoseconds."""


def _stamp(path: Path) -> _Stamp:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _file(expert: int) -> str:
    """Return the name of an expert's file."""
    return f"expert-{expert:04d}.arrow"


def _unreadable(path: Path | str, error: Exception) -> ExpertFileError:
    return ExpertFileError(f"{path} cannot be read ({error}); train it again with --retrain-corrupt")


def _too_few(path: Path, rows: int, entry: ExpertFile) -> ExpertFileError:
    return ExpertFileError(f"{path} holds {rows} snapshots, its manifest says {entry.rows}")
