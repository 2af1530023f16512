"""The expert store: expert trajectories on disk, addressed by what shaped them, read through a memory map.

    experts/<address>/manifest.json     what shaped them, the parameter layout, and each file's rows and SHA-256
    experts/<address>/expert-0000.arrow one Arrow IPC file an expert: one row an epoch, float32 [P] in one column

An expert with more epochs replaces a shorter one whose snapshots it repeats; while it is trained its file grows. A file
certifies itself, so that one whose writer died before the manifest was written is recovered, and extended if it is
short.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
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

__all__ = ["ExpertFile", "StoredExpert", "Trajectories", "TrajectoryStore"]


class TrajectoryStore:
    """The experts of one recipe on one dataset, in one folder."""

    def __init__(self, root: Path, identity: Mapping[str, Any], network: ConvNet) -> None:
        """Address the store of `identity` (JSON: everything that shapes a trajectory) under `root`; creates nothing."""
        self.identity = dict(identity)
        canonical = json.dumps(self.identity, sort_keys=True)
        self.address = hashlib.sha256(canonical.encode()).hexdigest()[:20]
        self.folder = root / self.address
        self.network = network

    @property
    def manifest_path(self) -> Path:
        """Where the manifest lies."""
        return self.folder / "manifest.json"

    def path(self, expert: int) -> Path:
        """Where an expert's file lies."""
        return self.folder / f"expert-{expert:04d}.arrow"

    def read(self) -> dict[int, ExpertFile]:
        """Return what the manifest lists, by expert; nothing if there is no manifest yet.

        Raises:
            ExpertFileError: The manifest cannot be read, or is of another version or network.
        """
        if not self.manifest_path.exists():
            return {}
        remedy = "delete its folder to train these experts again"
        try:
            manifest = json.loads(self.manifest_path.read_text())
            if (version := manifest["version"]) != FORMAT_VERSION:
                raise ExpertFileError(
                    f"{self.manifest_path} has format version {version}, this program reads {FORMAT_VERSION}; {remedy}"
                )
            layout = manifest["layout"]
            entries = {int(expert): ExpertFile(**entry) for expert, entry in manifest["experts"].items()}
        except ExpertFileError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ExpertFileError(f"{self.manifest_path} is not a manifest of experts ({error}); {remedy}") from error
        if layout != [[name, list(shape)] for name, shape in self.network.layout]:
            raise ExpertFileError(f"{self.manifest_path} describes another network than {self.network}; {remedy}")
        return entries

    def short(self, experts: Iterable[int], epochs: int) -> list[int]:
        """Return those experts that are missing or have fewer than `epochs` epochs."""
        listed = self.read()
        return [expert for expert in experts if expert not in listed or listed[expert].rows < epochs + 1]

    def corrupt(self, experts: Iterable[int]) -> dict[int, str]:
        """Return what is wrong with each of those experts whose file is neither as the manifest says nor a longer one.

        Reads every byte: run it once before a sweep, not once a trial.
        """
        listed, faults = self.read(), {}
        for expert in experts:
            if expert in listed:
                fault = expert_file.fault(self.path(expert), listed[expert])
                if fault and self.certified(expert, more_than=listed[expert].rows) is None:
                    faults[expert] = fault
        return faults

    def recover(self, experts: Iterable[int]) -> None:
        """Enter whole files, also short ones, whose writer died before it did so, and remove what it left aside.

        One process at a time, and none that writes these experts.
        """
        listed, found = self.read(), {}
        remove_leftovers(self.manifest_path)
        for expert in experts:
            remove_leftovers(self.path(expert))
            entry = self.certified(expert, more_than=listed[expert].rows if expert in listed else 0)
            if entry is not None:
                found[expert] = entry
        if found:
            self.record(found)

    def certified(self, expert: int, more_than: int) -> ExpertFile | None:
        """Return the entry of an expert's file if that certifies itself and holds more than so many snapshots."""
        return expert_file.certified(self.path(expert), self.network.parameters, more_than)

    def forget(self, experts: Iterable[int]) -> None:
        """Remove experts' files and entries, to train them from the start. One process at a time."""
        entries = self.read()
        for expert in experts:
            self.path(expert).unlink(missing_ok=True)  # first: a listed file that is missing is known to be corrupt
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
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(expert)
        write_atomically(path, lambda aside: expert_file.write(aside, snapshots, losses, velocity))
        return expert_file.describe(path, len(snapshots), list(losses))

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
        write_atomically(self.manifest_path, lambda aside: aside.write_text(json.dumps(manifest, indent=1)))

    @property
    def lock_path(self) -> Path:
        """The file to lock while experts are trained into this store."""
        return self.folder / ".lock"

    def open(self, experts: Sequence[int], epochs: int) -> "Trajectories":
        """Map experts into memory, each with snapshots 0 to `epochs`.

        Raises:
            ExpertFileError: An expert is missing, short or truncated; the message names the file.
        """
        listed = self.read()
        return Trajectories([self._map(expert, listed.get(expert), epochs) for expert in experts])

    def load(self, expert: int) -> StoredExpert:
        """Return a copy of all that a listed expert's file holds, to extend it; more than listed, if it has grown.

        Raises:
            ExpertFileError: The file is missing, short or truncated, or its momentum buffer is not the one written.
        """
        path, entry = self.path(expert), self.read()[expert]
        try:
            stored = expert_file.read(path, self.network.parameters)
        except ExpertFileError:
            raise
        except expert_file.UNREADABLE as error:
            raise _unreadable(path, error) from error
        if not entry.rows <= len(stored.snapshots) == len(stored.losses) + 1:
            raise _too_few(path, len(stored.snapshots), entry)
        return stored

    def _map(self, expert: int, entry: ExpertFile | None, epochs: int) -> list[np.ndarray]:
        path = self.path(expert)
        if entry is None or entry.rows < epochs + 1:
            have = "none" if entry is None else entry.rows - 1
            raise ExpertFileError(f"{path} needs {epochs} epochs and has {have}; train it with orchestrator.experts")
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


def _unreadable(path: Path, error: Exception) -> ExpertFileError:
    return ExpertFileError(f"{path} cannot be read ({error}); train it again with --retrain-corrupt")


def _too_few(path: Path, rows: int, entry: ExpertFile) -> ExpertFileError:
    return ExpertFileError(f"{path} holds {rows} snapshots, its manifest says {entry.rows}")
