"""CUDA pretended on a CPU: tensors that say they lie on cuda:0, keep CUDA's rules, and compute real values.

Within `pretended_cuda()` the device "cuda" exists. A `PretendedTensor` names it as its device and holds a CPU tensor,
on which its operations are computed, so results can be compared with those of a CPU. What CUDA refuses raises here:
tensors of two devices in one operation, a CPU generator, `.numpy()`, a CPU tensor indexed from the device. What makes a
program wait for the device is counted by source line (`Syncs`).

It is not CUDA: kernels, rounding, memory, streams and the time they take are the CPU's. Under `torch.func.vmap` a
tensor names the CPU as its device, and torch's optimisers take their plain path in place of the fused one.
"""

import linecache
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import trainables

__all__ = ["Line", "PretendedDevice", "PretendedTensor", "Sync", "Syncs", "pretended_cuda", "real"]

_CPU, _CUDA = torch.device("cpu"), torch.device("cuda", 0)
_GIB = 2**30
_ROOT = Path(trainables.__file__).resolve().parents[1]
_OURS = tuple(f"{_ROOT / package}/" for package in ("trainables", "orchestrator", "benchmarks"))

TO_DEVICE, TO_HOST, READ, SIZED, AWAITED = (
    "copy to the device", "copy to the host", "value read", "size that depends on values", "synchronize",
)  # fmt: skip
"""The kinds of waiting: a copy from memory that is not pinned, `.item()` and the like, `nonzero` and the like."""

_INDEXING = frozenset({"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"})
_COPIES = frozenset({"copy_", "_to_copy"})
_READS = frozenset({"_local_scalar_dense", "equal"})
_SIZED = frozenset(
    {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount", "repeat_interleave"}
)
_TAKE_CPU_SCALARS = frozenset({"where", "fill", "masked_fill"})
"""Operations beside the pointwise ones that take a CPU tensor without dimensions beside CUDA tensors."""


class Line(NamedTuple):
    """A line of the product's source."""

    file: str
    """Path from the repository's root; "?" if no frame is the product's."""
    number: int

    def __str__(self) -> str:
        return f"{self.file}:{self.number} {linecache.getline(str(_ROOT / self.file), self.number).strip()}"


class Sync(NamedTuple):
    """One way of waiting for the device, at one line."""

    kind: str
    line: Line


class Syncs:
    """Counts how often the program waited for the device."""

    def __init__(self) -> None:
        self.counts: Counter[Sync] = Counter()

    def add(self, kind: str) -> None:
        self.counts[Sync(kind, _line_of_product())] += 1

    def clear(self) -> None:
        self.counts.clear()

    @property
    def total(self) -> int:
        return self.counts.total()

    @property
    def by_kind(self) -> Counter[str]:
        return self._sums(lambda sync: sync.kind)

    @property
    def by_line(self) -> Counter[str]:
        """Counts by "file:number source"."""
        return self._sums(lambda sync: str(sync.line))

    def report(self) -> str:
        """Return the counts as text, one kind and source line a line, the most frequent first."""
        return "\n".join(f"{count:6d}  {sync.kind:28s} {sync.line}" for sync, count in self.counts.most_common())

    def _sums(self, key: Callable[[Sync], str]) -> Counter[str]:
        sums: Counter[str] = Counter()
        for sync, count in self.counts.items():
            sums[key(sync)] += count
        return sums


@dataclass(kw_only=True)
class PretendedDevice:
    """The device of a `pretended_cuda`: what it answers and what it has counted."""

    total_bytes: int
    free_bytes: int
    peak_bytes: int
    """What is answered for the peak of allocated and of reserved memory: nothing is measured."""
    name: str = "pretended GPU"
    syncs: Syncs = field(default_factory=Syncs)


class _State:
    """What holds while a device is pretended; there is one at a time."""

    device: PretendedDevice | None = None
    on_device: bool = False
    """Whether the function of torch that is running was given a tensor of the device."""
    counting: bool = True


def real(tensor: Tensor) -> Tensor:
    """Return the CPU tensor that a pretended one holds, sharing its memory; other tensors as they are."""
    return tensor.held if isinstance(tensor, PretendedTensor) else tensor


class PretendedTensor(Tensor):
    """A tensor that says it lies on cuda:0 and computes on the CPU tensor that it holds."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor) -> "PretendedTensor":
        assert not isinstance(held, PretendedTensor)
        # To torch's C++ part it lies on the CPU: without CUDA's part a backward pass on the device would fail.
        new: PretendedTensor = Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device=_CPU, requires_grad=False,
        )  # fmt: skip
        new.held = held
        return new

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return _CUDA

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @property
    def is_cpu(self) -> bool:  # type: ignore[override]
        return False

    def __repr__(self) -> str:  # type: ignore[override]
        return f"PretendedTensor({self.held!r})"

    def tolist(self) -> Any:
        _count(READ)
        return self.held.tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first: {_where()}")

    __array__ = numpy

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's stub leaves `func` out
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        taken: list[Tensor] = []
        held_args = [_held(value, taken) for value in args]
        held_kwargs = {name: _held(value, taken) for name, value in (kwargs or {}).items()}
        _keep_rules(func, args, held_kwargs, taken)
        if held_kwargs.get("device") is not None:
            held_kwargs["device"] = _CPU
        result = func(*held_args, **held_kwargs)
        # An operation in place returns the tensor that it was given.
        known = {id(real(tensor)): tensor for tensor in taken}
        if isinstance(result, Tensor):
            return known[id(result)] if id(result) in known else PretendedTensor(result)
        if isinstance(result, tuple | list):
            return type(result)(PretendedTensor(part) if isinstance(part, Tensor) else part for part in result)
        return result


def _held(value: Any, taken: list[Tensor]) -> Any:
    """Return an argument with pretended tensors replaced by what they hold; append all tensors to `taken`."""
    if isinstance(value, Tensor):
        taken.append(value)
        return real(value)
    if isinstance(value, tuple | list):
        return [_held(part, taken) for part in value]
    return value


def _keep_rules(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], taken: list[Tensor]) -> None:
    """Raise what CUDA raises for arguments that an operation cannot take together, and count what waits."""
    name: str = func.overloadpacket.__name__
    others = [tensor for tensor in taken if not isinstance(tensor, PretendedTensor)]
    _refuse_cpu_generator(kwargs.get("generator"), name)
    if name in _INDEXING:
        _keep_rules_of_indices(args)
    elif name in _COPIES:
        if others:
            _count(TO_DEVICE if isinstance(args[0], PretendedTensor) else TO_HOST)
    elif others:
        scalars_do = torch.Tag.pointwise in func.tags or name.rstrip("_") in _TAKE_CPU_SCALARS
        in_place = func._schema.is_mutable and args and args[0] is others[0]
        if in_place or not scalars_do or any(tensor.dim() for tensor in others):
            shapes = [tuple(tensor.shape) for tensor in others]
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
                f"({func}; on the CPU are shapes {shapes}): {_where()}"
            )
    if name in _READS:
        _count(READ)
    elif name in _SIZED:
        _count(SIZED)


def _keep_rules_of_indices(args: tuple[Any, ...]) -> None:
    indices = [index for index in args[1] if index is not None]
    if not isinstance(args[0], PretendedTensor):
        raise RuntimeError(f"indices should be either on cpu or on the same device as the indexed tensor: {_where()}")
    for index in indices:
        if not isinstance(index, PretendedTensor):
            _count(TO_DEVICE)
        if index.dtype in (torch.bool, torch.uint8):
            _count(SIZED)
    if len(args) > 2 and not isinstance(args[2], PretendedTensor) and args[2].dim():
        raise RuntimeError(f"Expected all tensors to be on the same device, but the value lies on cpu: {_where()}")


def _refuse_cpu_generator(generator: torch.Generator | None, name: str) -> None:
    if generator is not None and generator.device.type != "cuda":
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu' ({name}): {_where()}")


class _MadeInside(TorchDispatchMode):
    """What torch's own code makes from nothing, in a function that was given a tensor of the device, lies there too."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # nothing is compiled here, and the guard would cost every operation
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if _State.on_device and type(result) is Tensor and next(_tensors((args, kwargs)), None) is None:
            return PretendedTensor(result)
        return result


class _Placement(TorchFunctionMode):
    """Answers everything of torch that names a device."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        before = _State.on_device, _State.counting
        _State.on_device = any(_lies_on_device(tensor) for tensor in _tensors((args, kwargs)))
        if func is F.one_hot and kwargs.get("num_classes", args[1] if len(args) > 1 else -1) >= 0:
            _State.counting = False  # on a CPU alone it looks whether the labels are in range
        try:
            if func in (Tensor.to, Tensor.cuda, Tensor.cpu):
                return _moved(func, args, kwargs)
            if kwargs.get("device") is not None:
                return _made(func, args, kwargs)
            if func is Tensor.new_tensor and isinstance(args[0], PretendedTensor):
                _count(TO_DEVICE)
            return func(*args, **kwargs)
        finally:
            _State.on_device, _State.counting = before


def _made(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what a function makes on the device that it is told."""
    on_device = torch.device(kwargs.pop("device")).type == "cuda"
    requires_grad = kwargs.pop("requires_grad", False)
    if on_device:
        _refuse_cpu_generator(kwargs.get("generator"), func.__name__)
        if func in (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor):
            _count(TO_DEVICE)
    made = func(*args, device=_CPU, **kwargs)
    if on_device and not isinstance(made, PretendedTensor):
        made = PretendedTensor(made)
    elif not on_device:
        made = real(made)
    return made.requires_grad_() if requires_grad else made


def _moved(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return a tensor where `to`, `cuda` or `cpu` is told to bring it, differentiable as there."""
    tensor, rest = args[0], list(args[1:])
    here = _CUDA if _lies_on_device(tensor) else _CPU
    target = here
    if func is Tensor.cuda:
        target, rest = _CUDA, []
    elif func is Tensor.cpu:
        target = _CPU
    elif kwargs.get("device") is not None:
        target = torch.device(kwargs["device"])
    elif rest and isinstance(rest[0], Tensor):
        like = rest.pop(0)
        target, rest = (_CUDA if _lies_on_device(like) else _CPU), [like.dtype, *rest]
    elif rest and isinstance(rest[0], str | torch.device):
        target = torch.device(rest.pop(0))
    dtype = next((value for value in rest if isinstance(value, torch.dtype)), kwargs.get("dtype")) or tensor.dtype
    if target.type == here.type:
        same: Tensor = tensor.to(dtype, copy=kwargs.get("copy", False))
        return same
    converted = tensor.to(dtype)
    if target.type == "cuda":
        _count(TO_DEVICE)
        arrived: Tensor = _ToDevice.apply(converted)
    else:
        _count(TO_HOST)
        arrived = _ToHost.apply(converted)
    return arrived


class _ToDevice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return PretendedTensor(tensor.detach().clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return real(gradient)


class _ToHost(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return real(tensor).detach().clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return PretendedTensor(gradient)


@contextmanager
def pretended_cuda(
    total_bytes: int = 140 * _GIB, free_bytes: int | None = None, peak_bytes: int = _GIB
) -> Iterator[PretendedDevice]:
    """Pretend that there is one CUDA device, cuda:0, and yield it; the switches of TF32 are put back at the end.

    Args:
        total_bytes: Memory of the device.
        free_bytes: Its free memory; None: 97 % of it, what a context leaves.
        peak_bytes: What is answered for the peak of allocated and of reserved memory.
    """
    assert _State.device is None, "one device is pretended at a time"
    device = PretendedDevice(
        total_bytes=total_bytes,
        free_bytes=int(0.97 * total_bytes) if free_bytes is None else free_bytes,
        peak_bytes=peak_bytes,
    )
    placement = _Placement()
    backward = BackwardCFunction.apply

    def apply(node: Any, *gradients: Tensor) -> Any:
        # A function mode is off while torch runs a backward pass; the backward of our own functions is code as any.
        with placement:
            return backward(node, *gradients)

    switches = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    precisions = [switch.fp32_precision for switch in switches]
    with ExitStack() as stack:
        for name, answer in _answers(device).items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        stack.enter_context(mock.patch.object(BackwardCFunction, "apply", apply))
        stack.enter_context(_MadeInside())
        stack.enter_context(placement)
        _State.device = device
        try:
            yield device
        finally:
            _State.device = None
            for switch, precision in zip(switches, precisions, strict=True):
                switch.fp32_precision = precision


def _answers(device: PretendedDevice) -> dict[str, Callable[..., Any]]:
    """Return what torch.cuda's functions answer of a device, by name."""
    properties = SimpleNamespace(
        name=device.name, total_memory=device.total_bytes, major=8, minor=0, multi_processor_count=108
    )
    answers: dict[str, Any] = {
        "is_available": True, "is_initialized": True, "is_bf16_supported": True, "device_count": 1, "current_device": 0,
        "get_device_name": device.name, "get_device_properties": properties, "get_device_capability": (8, 0),
        "mem_get_info": (device.free_bytes, device.total_bytes), "memory_allocated": 0, "memory_reserved": 0,
        "max_memory_allocated": device.peak_bytes, "max_memory_reserved": device.peak_bytes,
        "reset_peak_memory_stats": None, "empty_cache": None, "set_per_process_memory_fraction": None,
    }  # fmt: skip

    def always(answer: Any) -> Callable[..., Any]:
        return lambda *args, **kwargs: answer

    functions = {name: always(answer) for name, answer in answers.items()}
    return {**functions, "synchronize": lambda *args, **kwargs: _count(AWAITED)}


def _count(kind: str) -> None:
    if _State.device is not None and _State.counting:
        _State.device.syncs.add(kind)


def _line_of_product() -> Line:
    """Return the innermost line of the product that is being run."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(_OURS):
            return Line(str(Path(frame.f_code.co_filename).relative_to(_ROOT)), frame.f_lineno)
        frame = frame.f_back
    return Line("?", 0)


def _where() -> str:
    return str(_line_of_product())


def _lies_on_device(tensor: Tensor) -> bool:
    """Return whether a tensor, or what `torch.func` has wrapped, is a pretended one."""
    while not isinstance(tensor, PretendedTensor) and torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return isinstance(tensor, PretendedTensor)


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
