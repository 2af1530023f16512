"""Many tensors in one copy: the same bits, dtypes and shapes on the other side."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.pretended_cuda import TO_DEVICE, TO_HOST, PretendedTensor, pretended_cuda, real
from trainables.data.augmentation import FAMILIES, Augmentation, Draw
from trainables.data.transfer import moved
from trainables.seeding import generator

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
DRAWS = generator("transfer")
TENSORS = [
    torch.randn(3, 2, generator=DRAWS),
    torch.tensor(True),
    torch.randn(5, generator=DRAWS).double(),
    torch.randint(2, (7,), generator=DRAWS) > 0,
    torch.randn(3, generator=DRAWS).bfloat16(),
    torch.empty(0, 4),
    torch.randint(256, (2, 3), generator=DRAWS).to(torch.uint8),
    torch.arange(12).view(3, 4).T,
    torch.tensor([float("nan"), float("-inf"), -0.0]),
]


@dataclass(frozen=True)
class Parcel:
    name: str
    draw: Draw | None
    rows: Tensor
    span: slice


def bits(tensor: Tensor) -> Any:
    return tensor.dtype, tensor.shape, tensor.reshape(-1).view(torch.uint8).tolist()


def test_one_copy_brings_all_bits_there_and_another_back() -> None:
    with pretended_cuda() as device:
        there = moved(TENSORS, CUDA)
        assert device.syncs.by_kind == {TO_DEVICE: 1}
        assert all(isinstance(tensor, PretendedTensor) for tensor in there)
        assert [bits(real(tensor)) for tensor in there] == [bits(tensor) for tensor in TENSORS]
        back = moved(there, CPU)
        assert device.syncs.by_kind == {TO_DEVICE: 1, TO_HOST: 1}
    assert [type(tensor) for tensor in back] == [Tensor] * len(back)
    assert [bits(tensor) for tensor in back] == [bits(tensor) for tensor in TENSORS]


def test_what_lies_there_is_neither_copied_nor_rebuilt() -> None:
    parcels = [Parcel("one", None, torch.arange(3), slice(1, 2))]
    assert moved(parcels, CPU) is parcels
    with pretended_cuda() as device:
        there = torch.zeros(2, device=CUDA)
        mixed = moved((there, torch.ones(2)), CUDA)
        assert mixed[0] is there and real(mixed[1]).tolist() == [1, 1] and device.syncs.total == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_nested_values_keep_their_form(family: str) -> None:
    draw = Augmentation(families=(family,)).draw(4, 8, generator("transfer", family))
    parcels = [[Parcel("one", draw, torch.arange(3), slice(1, 2))], [Parcel("two", None, torch.arange(2), slice(3))]]
    with pretended_cuda() as device:
        there = moved((parcels, {"end": None}), CUDA)
        assert device.syncs.total == 1
    assert there[1] == {"end": None} and [len(part) for part in there[0]] == [1, 1]
    one, two = there[0][0][0], there[0][1][0]
    assert (one.name, one.span, two.name, two.draw, two.span) == ("one", slice(1, 2), "two", None, slice(3))
    assert real(one.rows).tolist() == [0, 1, 2] and real(two.rows).tolist() == [0, 1]
    assert draw is not None and one.draw is not None
    assert one.draw.family == family and one.draw.values.keys() == draw.values.keys()
    for name, value in draw.values.items():
        assert torch.equal(real(one.draw.values[name]), value)
