"""One expert's file: its snapshots and losses, and what proves that it is whole. The store is `trajectories`.

A file holds snapshots 0 (initial) to E (after E epochs), one record batch each. It certifies itself: its metadata holds
the losses and a digest of all snapshots.

Where experts have momentum, the buffer after the last epoch, by which the expert is extended, is a note on the last
epoch's record batch (its custom metadata, in base64): whoever reads rows does not meet it. A file without it is whole.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from trainables.errors import ExpertFileError
from trainables.storage import sha256_of

__all__ = [
    "FORMAT_VERSION",
    "UNREADABLE",
    "ExpertFile",
    "StoredExpert",
    "certified",
    "describe",
    "map_snapshots",
    "most_bytes",
    "read",
    "snapshots_in",
    "write",
]

FORMAT_VERSION = 1
UNREADABLE = (OSError, ValueError, KeyError, pa.ArrowException)
"""What reading a file that is not one of ours, or no longer, may raise."""


@dataclass(frozen=True, kw_only=True)
class ExpertFile:
    """What the manifest says of one expert's file."""

    file: str
    """Name inside the store's folder."""
    rows: int
    """Snapshots: epochs + 1."""
    bytes: int
    """Size of the file."""
    sha256: str
    """Checksum of the file."""
    losses: list[float]
    """Mean training loss of each epoch."""


@dataclass(frozen=True, kw_only=True)
class StoredExpert:
    """All that a file holds of an expert, copied from the map."""

    snapshots: list[Tensor]
    """Parameters before the first and after each epoch, each float32 [P]."""
    losses: list[float]
    """Mean training loss of each epoch."""
    velocity: Tensor | None
    """SGD's momentum buffer after the last epoch, float32 [P]; None: the file has none."""


def write(path: Path, snapshots: Sequence[Tensor], losses: Sequence[float], velocity: Tensor | None) -> None:
    """Write a file in place; see `TrajectoryStore.write`."""
    rows = [_as_row(snapshot) for snapshot in snapshots]
    parameters = rows[0].size
    note = None if velocity is None else _velocity_note(_as_row(velocity))
    metadata = {
        "format_version": str(FORMAT_VERSION),
        "losses": json.dumps(list(losses)),
        "digest": _digest(rows, list(losses)),
    }
    schema = pa.schema([pa.field("parameters", pa.list_(pa.float32(), parameters), nullable=False)], metadata=metadata)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for number, row in enumerate(rows):
            # Not `pa.array`, which imports pandas: the first writing would seem to cost most of a second.
            column = pa.Array.from_buffers(pa.float32(), row.size, [None, pa.py_buffer(row)])
            values = pa.FixedSizeListArray.from_arrays(column, parameters)
            batch = pa.record_batch([values], schema=schema)
            writer.write_batch(batch, custom_metadata=note if number == len(rows) - 1 else None)


def most_bytes(parameters: int, epochs: int) -> int:
    """Return what a file of so many epochs of P parameters takes at most, in bytes."""
    batch, metadata = 4 * parameters + 512, 4096 + 32 * epochs
    return (epochs + 1) * batch + metadata + 6 * parameters  # the last term: the momentum buffer in base64


def map_snapshots(path: Path, parameters: int) -> list[np.ndarray]:
    """Return the snapshots of a file, each read-only float32 [P], as views on its memory map."""
    return _rows(_open(path), parameters)


def read(path: Path, parameters: int) -> StoredExpert:
    """Return a copy of all that a file holds; of one file, also while another is put in its place.

    Raises:
        ExpertFileError: The momentum buffer is not the one written.
        OSError, ValueError, KeyError, pa.ArrowException: It cannot be read.
    """
    reader = _open(path)
    rows, losses = _rows(reader, parameters), json.loads(reader.schema.metadata[b"losses"])
    try:
        velocity = _velocity(reader, parameters)
    except (ValueError, KeyError) as error:
        raise ExpertFileError(
            f"the momentum buffer in {path} is damaged ({error}); train it again with --retrain-corrupt"
        ) from error
    return StoredExpert(
        snapshots=[torch.from_numpy(row.copy()) for row in rows],
        losses=losses,
        velocity=None if velocity is None else torch.from_numpy(velocity),
    )


def certified(path: Path, parameters: int, more_than: int) -> ExpertFile | None:
    """Return the manifest entry of a file with more than so many snapshots whose own digest holds, else None.

    Reads the file's footer, and every byte only where it has as many snapshots.
    """
    try:
        reader = _open(path)
        rows, metadata = _rows(reader, parameters), reader.schema.metadata or {}
        losses = json.loads(metadata[b"losses"])
        version, digest = metadata[b"format_version"].decode(), metadata[b"digest"].decode()
        if len(rows) <= more_than:
            return None  # before anything is read: the manifest knows of as much
        _velocity(reader, parameters)
    except UNREADABLE:
        return None
    whole = version == str(FORMAT_VERSION) and len(rows) == len(losses) + 1 and digest == _digest(rows, losses)
    return describe(path, len(rows), losses) if whole else None


def describe(path: Path, rows: int, losses: list[float]) -> ExpertFile:
    """Return the manifest entry of a file that has just been written or certified."""
    return ExpertFile(file=path.name, rows=rows, bytes=path.stat().st_size, sha256=sha256_of(path), losses=losses)


def snapshots_in(file: Any) -> int:
    """Return how many snapshots an open file of Arrow's says that it has; 0 if it cannot be read. Reads its end."""
    try:
        count: int = pa.ipc.open_file(file).num_record_batches
    except UNREADABLE:
        return 0
    return count


def _open(path: Path) -> pa.ipc.RecordBatchFileReader:
    return pa.ipc.open_file(pa.memory_map(str(path)))


def _rows(reader: pa.ipc.RecordBatchFileReader, parameters: int) -> list[np.ndarray]:
    rows = []
    for index in range(reader.num_record_batches):
        values = reader.get_batch(index).column(0).values
        rows.append(np.frombuffer(values.buffers()[1], dtype=np.float32, count=parameters, offset=4 * values.offset))
    return rows


def _as_row(values: Tensor) -> np.ndarray:
    """Return float32 [P] on the CPU, in one piece."""
    return values.detach().cpu().float().contiguous().numpy()


def _velocity_note(velocity: np.ndarray) -> dict[str, str]:
    return {
        "velocity": base64.b64encode(velocity.tobytes()).decode(),
        "velocity_digest": hashlib.sha256(velocity.data).hexdigest(),
    }


def _velocity(reader: pa.ipc.RecordBatchFileReader, parameters: int) -> np.ndarray | None:
    """Return the momentum buffer of a readable file, float32 [P] of its own, or None if there is none.

    Raises:
        ValueError: It is not what was written.
        KeyError: Nothing says what was written.
    """
    _, note = reader.get_batch_with_custom_metadata(reader.num_record_batches - 1)
    if note is None or b"velocity" not in note:
        return None
    content = base64.b64decode(note[b"velocity"], validate=True)
    if len(content) != 4 * parameters:
        raise ValueError(f"it has {len(content)} bytes, a network's has {4 * parameters}")
    if hashlib.sha256(content).hexdigest() != note[b"velocity_digest"].decode():
        raise ValueError("its SHA-256 is not the one beside it")
    return np.frombuffer(bytearray(content), dtype=np.float32)


def _digest(rows: Sequence[np.ndarray], losses: list[float]) -> str:
    digest = hashlib.sha256(json.dumps(losses).encode())
    for row in rows:
        digest.update(row.data)
    return digest.hexdigest()
