"""One expert's file: its snapshots, its losses and their digest. The store of such files is `experts.store`.

A file holds snapshots 0 (initial) to E (after E epochs), one record batch per snapshot. It certifies itself: its
metadata holds the losses and a digest of all snapshots.

Experts with momentum are extended with the momentum buffer after the last epoch. The buffer is custom metadata of the
last record batch, in base64, so code that reads rows does not see it. A file without the buffer is complete.
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
from trainables.storage.shared_folder import sha256_of

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
"""What reading a damaged file, or one of another format, may raise."""


@dataclass(frozen=True, kw_only=True)
class ExpertFile:
    """The manifest's entry of one expert's file."""

    file: str
    """Name inside the store's folder."""
    rows: int
    """Snapshots: epochs + 1."""
    bytes: int
    """Size of the file, in bytes."""
    sha256: str
    """SHA-256 of the file, in hexadecimal digits."""
    losses: list[float]
    """Mean training loss of each epoch."""


@dataclass(frozen=True, kw_only=True)
class StoredExpert:
    """The whole content of an expert's file, copied from the memory map."""

    snapshots: list[Tensor]
    """Parameters before the first and after each epoch, each float32 [P]."""
    losses: list[float]
    """Mean training loss of each epoch."""
    velocity: Tensor | None
    """SGD's momentum buffer after the last epoch, float32 [P]; None if the file has no buffer."""


def write(path: Path, snapshots: Sequence[Tensor], losses: Sequence[float], velocity: Tensor | None) -> None:
    """Write a file, not atomically; for the arguments see `TrajectoryStore.write`, which writes it atomically."""
    rows = [_as_row(snapshot) for snapshot in snapshots]
    parameters = rows[0].size
    velocity_metadata = None if velocity is None else _velocity_metadata(_as_row(velocity))
    metadata = {
        "format_version": str(FORMAT_VERSION),
        "losses": json.dumps(list(losses)),
        "digest": _digest(rows, list(losses)),
    }
    schema = pa.schema([pa.field("parameters", pa.list_(pa.float32(), parameters), nullable=False)], metadata=metadata)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for number, row in enumerate(rows):
            # Not `pa.array`, which imports pandas: the first write would be measured as almost a second slower.
            column = pa.Array.from_buffers(pa.float32(), row.size, [None, pa.py_buffer(row)])
            values = pa.FixedSizeListArray.from_arrays(column, parameters)
            batch = pa.record_batch([values], schema=schema)
            writer.write_batch(batch, custom_metadata=velocity_metadata if number == len(rows) - 1 else None)


def most_bytes(parameters: int, epochs: int) -> int:
    """Return an upper bound, in bytes, on the size of a file with this many epochs of P parameters."""
    batch, metadata = 4 * parameters + 512, 4096 + 32 * epochs
    return (epochs + 1) * batch + metadata + 6 * parameters  # the last term: the momentum buffer in base64


def map_snapshots(path: Path, parameters: int) -> list[np.ndarray]:
    """Return the snapshots of a file, each read-only float32 [P], as views on its memory map."""
    return _rows(_open(path), parameters)


def read(path: Path, parameters: int) -> StoredExpert:
    """Return a copy of a file's whole content; it is of one file, even if the file is replaced meanwhile.

    Raises:
        ExpertFileError: The momentum buffer is damaged.
        OSError, ValueError, KeyError, pa.ArrowException: The file cannot be read.
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
    """Return the manifest entry of a file with more than `more_than` snapshots and a correct digest, else None.

    Reads the file's footer first, and all bytes only if the file has enough snapshots.
    """
    try:
        reader = _open(path)
        rows, metadata = _rows(reader, parameters), reader.schema.metadata or {}
        losses = json.loads(metadata[b"losses"])
        version, digest = metadata[b"format_version"].decode(), metadata[b"digest"].decode()
        if len(rows) <= more_than:
            return None  # before the snapshots are read: the manifest lists as many
        _velocity(reader, parameters)
    except UNREADABLE:
        return None
    complete = version == str(FORMAT_VERSION) and len(rows) == len(losses) + 1 and digest == _digest(rows, losses)
    return describe(path, len(rows), losses) if complete else None


def describe(path: Path, rows: int, losses: list[float]) -> ExpertFile:
    """Return the manifest entry of a file that was just written or certified."""
    return ExpertFile(file=path.name, rows=rows, bytes=path.stat().st_size, sha256=sha256_of(path), losses=losses)


def snapshots_in(file: Any) -> int:
    """Return the number of snapshots in an open Arrow file, read from its footer; 0 if the footer cannot be read."""
    try:
        count: int = pa.ipc.open_file(file).num_record_batches
    except UNREADABLE:
        return 0
    return count


def _open(path: Path) -> pa.ipc.RecordBatchFileReader:
    return pa.ipc.open_file(pa.memory_map(str(path)))


def _rows(reader: pa.ipc.RecordBatchFileReader, parameters: int) -> list[np.ndarray]:
    """Return the snapshots, each read-only float32 [P], as views on the memory map."""
    rows = []
    for index in range(reader.num_record_batches):
        values = reader.get_batch(index).column(0).values
        rows.append(np.frombuffer(values.buffers()[1], dtype=np.float32, count=parameters, offset=4 * values.offset))
    return rows


def _as_row(values: Tensor) -> np.ndarray:
    """Return values as a contiguous float32 array [P] on the CPU."""
    return values.detach().cpu().float().contiguous().numpy()


def _velocity_metadata(velocity: np.ndarray) -> dict[str, str]:
    return {
        "velocity": base64.b64encode(velocity.tobytes()).decode(),
        "velocity_digest": hashlib.sha256(velocity.data).hexdigest(),
    }


def _velocity(reader: pa.ipc.RecordBatchFileReader, parameters: int) -> np.ndarray | None:
    """Return a copy of the momentum buffer of a readable file, float32 [P], or None if the file has no buffer.

    Raises:
        ValueError: The buffer has another size, or does not match its digest.
        KeyError: The digest is missing.
    """
    _, metadata = reader.get_batch_with_custom_metadata(reader.num_record_batches - 1)
    if metadata is None or b"velocity" not in metadata:
        return None
    content = base64.b64decode(metadata[b"velocity"], validate=True)
    if len(content) != 4 * parameters:
        raise ValueError(f"it has {len(content)} bytes, a network's has {4 * parameters}")
    if hashlib.sha256(content).hexdigest() != metadata[b"velocity_digest"].decode():
        raise ValueError("its SHA-256 is not the one beside it")
    return np.frombuffer(bytearray(content), dtype=np.float32)


def _digest(rows: Sequence[np.ndarray], losses: list[float]) -> str:
    digest = hashlib.sha256(json.dumps(losses).encode())
    for row in rows:
        digest.update(row.data)
    return digest.hexdigest()
