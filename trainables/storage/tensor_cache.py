"""A cache of tensors that are slow to compute, addressed by everything that determines them.

    <folder>/<kind>-<address>.safetensors      metadata: identity, SHA-256; torch version and device for information

Two processes that need the same tensors at once may both compute them; the last rename wins.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trainables.errors import DatasetError
from trainables.storage.atomic import write_atomically
from trainables.storage.tensor_file import safetensors_content

__all__ = ["load_or_make"]

FORMAT_VERSION = 1


def load_or_make(
    folder: Path, kind: str, identity: Mapping[str, Any], make: Callable[[], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """Return tensors, on the CPU, read from a folder; if the folder does not hold them, make and write them first.

    Args:
        folder: The cache; created if it does not exist.
        kind: What the tensors are, in one word; part of the file's name and of its identity.
        identity: Everything that determines them, in values that JSON can represent. The device is not part of it:
            devices agree to rounding.
        make: Computes them, on any device.

    Raises:
        DatasetError: The file is damaged or has another identity; the message is one line that says to delete it.
    """
    text = json.dumps({"format_version": FORMAT_VERSION, "kind": kind, **identity}, sort_keys=True)
    path = folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:20]}.safetensors"
    if not path.is_file():
        _write(path, text, make())
    return _read(path, kind, text)


def _write(path: Path, text: str, made: Mapping[str, Tensor]) -> None:
    device = next(iter(made.values())).device
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in made.items()}
    metadata = {"identity": text, "sha256": _sha256(tensors), "torch": torch.__version__, "device": str(device)}
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not save_file(), which makes files that only their owner may read.
    write_atomically(path, lambda aside: aside.write_bytes(safetensors_content(tensors, metadata)))


def _read(path: Path, kind: str, text: str) -> dict[str, Tensor]:
    remedy = "delete it, it is made again"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies: the mapped file may be replaced.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise DatasetError(f"{path} is truncated or not a {kind} ({error}): {remedy}") from error
    if metadata.get("identity") != text:
        raise DatasetError(f"{path} holds another {kind} than its name says: {remedy}")
    if metadata.get("sha256") != _sha256(tensors):
        raise DatasetError(f"{path} is damaged, its SHA-256 differs from the one in its metadata: {remedy}")
    return tensors


def _sha256(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {list(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().data)
    return digest.hexdigest()
