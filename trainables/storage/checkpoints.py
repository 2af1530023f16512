"""A trial's checkpoint: one safetensors file that replaces its predecessor, in a folder or at a URI of pyarrow.fs.

Tensors are stored as tensors; everything else is JSON in the file's metadata. A reader sees the old file or the
complete new one: on a disk the file is written aside, fsynced and renamed; an object store shows only complete objects.
"""

import json
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from trainables.errors import CheckpointError
from trainables.storage.shared_folder import SharedFolder
from trainables.storage.tensor_file import safetensors_content

__all__ = ["checkpoint_place", "iteration_within_rung", "read_checkpoint", "write_checkpoint"]

FORMAT_VERSION = 2
"""2: a checkpoint holds only the settings that vary between trials."""


def checkpoint_place(root: str, trial: int, *, within_rung: bool = False) -> str:
    """Return the path or URI of a trial's checkpoint.

    Args:
        root: Folder or URI of all checkpoints.
        trial: The trial's number.
        within_rung: Whether the checkpoint of the unfinished rung is meant, not that of the last finished one.
    """
    return f"{root.rstrip('/')}/trial-{trial:03d}{'-under-way' if within_rung else ''}.safetensors"


def write_checkpoint(place: str, state: Mapping[str, Any]) -> None:
    """Write a state, replacing the one at this place.

    Args:
        place: A path, or a URI that pyarrow.fs knows (s3://, gs://, file://).
        state: Tensors, and values that JSON can represent, by name.

    Raises:
        OSError: The state cannot be written; the previous checkpoint is intact.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items() if isinstance(value, Tensor)}
    values = {name: value for name, value in state.items() if name not in tensors}
    content = safetensors_content(tensors, {"format_version": str(FORMAT_VERSION), "values": json.dumps(values)})
    folder, name = _split(place)
    folder.write(name, content)


def read_checkpoint(place: str) -> dict[str, Any] | None:
    """Return the state at a place, its tensors on the CPU; None if there is no checkpoint.

    Raises:
        CheckpointError: The file is not a checkpoint, or has another format version.
    """
    folder, name = _split(place)
    content = folder.read(name)
    if content is None:
        return None
    remedy = "delete it to run its trial again"
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        version, values = header["format_version"], json.loads(header["values"])
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{place} is not a trial's checkpoint ({error}); {remedy}") from error
    if version != str(FORMAT_VERSION):
        raise CheckpointError(f"{place} has format version {version}, this program reads {FORMAT_VERSION}; {remedy}")
    return {**values, **tensors}


def iteration_within_rung(root: str, trial: int) -> int:
    """Return the iterations in a trial's checkpoint of an unfinished rung, of which only the header is read.

    Args:
        root: Folder or URI of all checkpoints.
        trial: The trial's number.

    Returns:
        Distillation iterations done; 0 if there is no such checkpoint. An older rung's may be left behind.

    Raises:
        CheckpointError: The file is not a checkpoint.
    """
    place = checkpoint_place(root, trial, within_rung=True)
    folder, name = _split(place)
    try:
        with folder.open(name) as file:
            length = int.from_bytes(file.read(8), "little")
            if length > file.size():
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))["__metadata__"]
        return int(json.loads(header["values"])["iteration"])
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{place} is not a trial's checkpoint ({error})") from error


def _split(place: str) -> tuple[SharedFolder, str]:
    folder, _, name = place.rpartition("/")
    return SharedFolder(folder or "/"), name
