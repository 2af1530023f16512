"""The pretended device keeps CUDA's rules: what CUDA refuses raises, what it takes is computed, waiting is counted."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support.pretended_cuda import READ, SIZED, TO_DEVICE, TO_HOST, PretendedTensor, pretended_cuda, real
from trainables.data.augmentation import Augmentation
from trainables.seeding import generator

CUDA = torch.device("cuda")


def there(*shape: int) -> Tensor:
    """Return zeros on the device; no dimensions: 3 of them."""
    return torch.zeros(shape or (3,)).to(CUDA)


class _Doubled(torch.autograd.Function):
    """A function whose backward pass makes a tensor on the device of its gradient, or forgets to."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, careful: bool) -> Tensor:
        ctx.careful = careful
        return 2 * values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        twos = torch.full((3,), 2.0, device=gradient.device) if ctx.careful else torch.full((3,), 2.0)
        return gradient * twos, None


def slope(careful: bool) -> Tensor:
    leaf = there().requires_grad_()
    return torch.autograd.grad(_Doubled.apply(leaf, careful).sum(), leaf)[0]


REFUSED: dict[str, Callable[[], Any]] = {
    "a CPU tensor in a sum": lambda: there() + torch.zeros(3),
    "a tensor made without a device": lambda: there() * torch.arange(3),
    "a CPU tensor added in place": lambda: there().add_(torch.zeros(3)),
    "added in place to a CPU tensor": lambda: torch.zeros(3).add_(there()),
    "added in place to a CPU number": lambda: torch.zeros(()).add_(there().sum()),
    "a number of the device beside CPU values": lambda: torch.zeros(3) + there().sum(),
    "a mask on the CPU": lambda: torch.where(torch.ones(3, dtype=torch.bool), there(), there()),
    "a CPU tensor in cat": lambda: torch.cat([torch.zeros(3), there()]),
    "a CPU number in stack": lambda: torch.stack([torch.zeros(()), there().sum()]),
    "a CPU matrix": lambda: there(2, 3) @ torch.zeros(3, 2),
    "a CPU matrix under vmap": lambda: torch.func.vmap(lambda x: x @ torch.zeros(3, 2))(there(4, 5, 3)),
    "labels on the CPU": lambda: F.cross_entropy(there(3, 4), torch.zeros(3, dtype=torch.long)),
    "a CPU tensor indexed from the device": lambda: torch.zeros(3)[there().long()],
    "a CPU value put at an index": lambda: there().index_put_((there(2).long(),), torch.zeros(2)),
    "rows on the CPU for index_select": lambda: there().index_select(0, torch.zeros(2, dtype=torch.long)),
    "a CPU generator": lambda: torch.randn(3, device=CUDA, generator=torch.Generator()),
    "a CPU generator in place": lambda: there().uniform_(generator=torch.Generator()),
    "numpy": lambda: there().numpy(),
    "asarray": lambda: np.asarray(there()),
    "a backward pass that forgets the device": lambda: slope(careful=False),
}

TAKEN: dict[str, tuple[Callable[[], Tensor], list[float]]] = {
    "a CPU number in a sum": (lambda: there() + torch.tensor(2.0), [2, 2, 2]),
    "a CPU number in where": (lambda: torch.where(there() > 0, there(), torch.tensor(1.0)), [1, 1, 1]),
    "a CPU number as fill": (lambda: there().masked_fill(there() == 0, torch.tensor(4.0)), [4, 4, 4]),
    "rows on the CPU": (lambda: torch.arange(3.0).to(CUDA)[torch.tensor([2, 0])], [2, 0]),
    "a copy from the CPU": (lambda: there().copy_(torch.ones(3)), [1, 1, 1]),
    "a tensor made there": (lambda: there() + torch.arange(3, device=CUDA), [0, 1, 2]),
    "a tensor like another": (
        lambda: torch.ones_like(torch.zeros(3), device=CUDA) + there().new_tensor(1.0),
        [2, 2, 2],
    ),
    "a backward pass that keeps the device": (lambda: slope(careful=True), [2, 2, 2]),
    "one hot": (lambda: F.one_hot(torch.arange(2).to(CUDA), 2).flatten(), [1, 0, 0, 1]),
}

WAITING: dict[str, tuple[Callable[[], Any], str, int]] = {
    "to": (lambda: torch.zeros(3).to(CUDA), TO_DEVICE, 1),
    "tensor": (lambda: torch.tensor([1.0], device=CUDA), TO_DEVICE, 1),
    "new_tensor": (lambda: torch.zeros(3, device=CUDA).new_tensor(1.0), TO_DEVICE, 1),
    "copy_": (lambda: torch.zeros(3, device=CUDA).copy_(torch.zeros(3)), TO_DEVICE, 1),
    "rows on the CPU": (lambda: torch.zeros(3, device=CUDA)[torch.tensor([0])], TO_DEVICE, 1),
    "made there": (lambda: torch.zeros(3, device=CUDA) + torch.ones(3, device=CUDA), "", 0),
    "to where it is": (lambda: torch.zeros(3, device=CUDA).to(CUDA).to(torch.float64).double(), "", 0),
    "cpu": (lambda: torch.zeros(3, device=CUDA).cpu(), TO_HOST, 1),
    "float": (lambda: float(torch.zeros(3, device=CUDA).sum()), READ, 1),
    "bool": (lambda: bool(torch.zeros(3, device=CUDA).any()), READ, 1),
    "tolist": (lambda: torch.zeros(3, device=CUDA).tolist(), READ, 1),
    "equal": (lambda: torch.equal(torch.zeros(3, device=CUDA), torch.zeros(3, device=CUDA)), READ, 1),
    "nonzero": (lambda: torch.zeros(3, device=CUDA).nonzero(), SIZED, 1),
    "a mask as index": (lambda: torch.zeros(3, device=CUDA)[torch.zeros(3, dtype=torch.bool, device=CUDA)], SIZED, 1),
    "one hot": (lambda: F.one_hot(torch.zeros(3, dtype=torch.long, device=CUDA), 3), "", 0),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cuda_refuses_raises(case: str) -> None:
    with pretended_cuda(), pytest.raises((RuntimeError, TypeError), match=r"cuda|same device"):
        REFUSED[case]()


@pytest.mark.parametrize("case", TAKEN)
def test_what_cuda_takes_is_computed(case: str) -> None:
    compute, expected = TAKEN[case]
    with pretended_cuda():
        result = compute()
        assert (result.device, result.is_cuda, result.is_cpu) == (torch.device("cuda", 0), True, False)
    assert isinstance(result, PretendedTensor) and real(result).tolist() == expected


@pytest.mark.parametrize("case", WAITING)
def test_what_waits_for_the_device_is_counted(case: str) -> None:
    wait, kind, count = WAITING[case]
    with pretended_cuda() as device:
        wait()
    assert device.syncs.by_kind == ({kind: count} if count else {})
    assert device.syncs.total == count


def test_a_wait_is_counted_at_the_line_of_the_product() -> None:
    augmentation = Augmentation(families=("flip",))
    with pretended_cuda() as device:
        images = torch.zeros(2, 1, 4, 4, device=CUDA)
        augmentation.apply(images, augmentation.draw(2, 4, generator("draws")))
        here = device.syncs.total
        float(images.sum())
    (line,) = [line for line in device.syncs.by_line if "augmentation" in line]
    assert line.startswith("trainables/data/augmentation.py:") and "value.to(images.device" in line
    assert (here, device.syncs.total) == (1, 2) and line in device.syncs.report()
    device.syncs.clear()
    assert device.syncs.report() == ""


def test_gradients_pass_from_device_to_device() -> None:
    leaf = torch.arange(3.0, requires_grad=True)
    with pretended_cuda():
        (gradient,) = torch.autograd.grad((leaf.to(CUDA).square().cpu() * 2).sum(), leaf)
    assert type(gradient) is Tensor and gradient.tolist() == [0, 4, 8]


def test_views_and_operations_in_place_share_memory() -> None:
    with pretended_cuda():
        values = there(2, 2)
        row = values[1]
        row += 1
        assert row.add_(1) is row
        mask = values > 0
        mask |= values == 0
    assert real(values).tolist() == [[0, 0], [2, 2]] and real(mask).all()


def test_the_device_is_gone_afterwards() -> None:
    matmul = torch.backends.cuda.matmul
    before, available = matmul.fp32_precision, torch.cuda.is_available()
    with pretended_cuda(total_bytes=10, free_bytes=7):
        assert torch.cuda.is_available() and torch.cuda.mem_get_info() == (7, 10)
        matmul.fp32_precision = "ieee" if before != "ieee" else "tf32"
    assert matmul.fp32_precision == before
    assert torch.cuda.is_available() == available
    assert type(torch.zeros(3) + 1) is Tensor
