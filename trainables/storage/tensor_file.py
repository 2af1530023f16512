"""The content of tensor files: the same tensors and metadata give the same bytes, in every process.

safetensors writes the metadata in the order of a hash map, which differs from process to process; torch.save writes the
name of its file into the file.
"""

import io
import json
from collections.abc import Mapping

import torch
from safetensors.torch import save
from torch import Tensor

__all__ = ["safetensors_content", "torch_content"]

_LENGTH = 8  # bytes of a safetensors file that hold the header's length, to a multiple of which the header is padded


def safetensors_content(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return the content of a safetensors file, whose metadata is in alphabetical order.

    Args:
        tensors: Contiguous tensors by name.
        metadata: Texts by name.
    """
    content = save(dict(tensors), dict(metadata))
    data = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    header = json.loads(content[_LENGTH:data])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _LENGTH)
    return b"".join([len(text).to_bytes(_LENGTH, "little"), text, memoryview(content)[data:]])


def torch_content(tensor: Tensor) -> bytes:
    """Return the content of a file of torch.save that holds a tensor."""
    content = io.BytesIO()
    torch.save(tensor, content)
    return content.getvalue()
