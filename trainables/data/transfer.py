"""Copies between devices: many small tensors in one transfer.

A program waits for a GPU at every copy from and to it, however small. What is known before a loop is therefore sent
before it, in one piece.
"""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["moved"]

_T = TypeVar("_T")
_ALIGNMENT = 8
"""Bytes: the largest element of a tensor here, whose start a view needs to be a multiple of."""


def moved(value: _T, device: torch.device) -> _T:
    """Return lists, tuples, dicts and dataclasses, nested, with all their tensors on a device, in one copy.

    Dtypes, shapes and bits are kept. Tensors that lie there are not copied. The copies share one block of memory, which
    is free when the last of them is gone.

    Args:
        value: Holds tensors of one device, or of the target; dataclasses may have further fields that are no tensors.
        device: The target; `cuda` means any CUDA device.
    """
    tensors = [tensor for tensor in _tensors(value) if tensor.device.type != device.type]
    if not tensors:
        return value
    ends, end = [], 0
    for tensor in tensors:
        end += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
        ends.append(end)
    block = torch.empty(end, dtype=torch.uint8, device=tensors[0].device)
    starts = [0, *ends[:-1]]
    for start, tensor in zip(starts, tensors, strict=True):
        block[start : start + tensor.nbytes] = tensor.reshape(-1).view(torch.uint8)
    block = block.to(device)
    copies = {
        id(tensor): block[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        for start, tensor in zip(starts, tensors, strict=True)
    }
    result: _T = _with_tensors(value, copies)
    return result


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif is_dataclass(value):
        yield from _tensors([getattr(value, field.name) for field in fields(value)])


def _with_tensors(value: Any, copies: dict[int, Tensor]) -> Any:
    """Return a value with its tensors replaced by their copies, which are named by the tensors' ids."""
    if isinstance(value, Tensor):
        return copies.get(id(value), value)
    if isinstance(value, dict):
        return {key: _with_tensors(part, copies) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_with_tensors(part, copies) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        changed = {field.name: _with_tensors(getattr(value, field.name), copies) for field in fields(value)}
        return replace(value, **changed)
    return value
