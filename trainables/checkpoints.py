"""A trial's checkpoint: one safetensors file that replaces the one before it, in a folder or at a URI of pyarrow.fs.

Tensors are tensors of the file; everything else is JSON in its metadata. A reader sees the old file or the whole new
one: on a disk it is written aside, forced out and renamed; an object store shows an object only when it is complete.
"""

import json
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from trainables.errors import CheckpointError
from trainables.storage import SharedFolder

__all__ = ["checkpoint_place", "read_checkpoint", "write_checkpoint"]

FORMAT_VERSION = 1


def checkpoint_place(root: str, trial: int, *, within_rung: bool = False) -> str:
    """Return where a trial's checkpoint of its last rung lies under a folder or URI, or that of the rung under way."""
    return f"{root.rstrip('/')}/trial-{trial:03d}{'-under-way' if within_rung else ''}.safetensors"


def write_checkpoint(place: str, state: Mapping[str, Any]) -> None:
    """Write a state, replacing the one that is there.

    Args:
        place: A path, or a URI that pyarrow.fs knows (s3://, gs://, file://).
        state: Tensors, and values that JSON knows, by name.

    Raises:
        OSError: It cannot be written; what was there is still there.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items() if isinstance(value, Tensor)}
    values = {name: value for name, value in state.items() if name not in tensors}
    content = save(tensors, {"format_version": str(FORMAT_VERSION), "values": json.dumps(values)})
    folder, name = _parted(place)
    folder.write(name, content)


def read_checkpoint(place: str) -> dict[str, Any] | None:
    """Return the state at a place, its tensors on the CPU; None if there is none.

    Raises:
        CheckpointError: What is there is no checkpoint, or one of another version.
    """
    folder, name = _parted(place)
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


def _parted(place: str) -> tuple[SharedFolder, str]:
    folder, _, name = place.rpartition("/")
    return SharedFolder(folder or "/"), name
