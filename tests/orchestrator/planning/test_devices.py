"""The device model: its constants against counts of real steps, its sums, and what names of GPUs mean."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from orchestrator.errors import UserError
from orchestrator.planning.devices import (
    CPU_CORE,
    GPUS,
    MATCHING,
    MATCHING_KEPT,
    TRAINING,
    Gpu,
    Multiplying,
    gpu_name,
)
from orchestrator.planning.work import NetworkCost, Work
from trainables.data.augmentation import FAMILIES, Augmentation
from trainables.distillation.inner_step import InnerStep
from trainables.distillation.matching import Matcher, draw_chunks
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator

FP32 = Multiplying()


class _Traffic(TorchDispatchMode):
    """Counts kernels, and the bytes of their arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.kernels = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view and func.overloadpacket.__name__ not in ("detach", "alias", "_unsafe_view", "empty_like"):
            self.kernels += 1
            tensors = (each for each in tree_leaves((args, kwargs, out)) if isinstance(each, Tensor))
            self.bytes += sum(each.numel() * each.element_size() for each in tensors)
        return out


def traffic(run: Callable[[], Any]) -> _Traffic:
    counted = _Traffic()
    with counted:
        run()
    return counted


@pytest.mark.parametrize(("side", "depth", "width", "batch"), [(32, 3, 64, 16), (32, 3, 16, 16), (8, 2, 32, 50)])
def test_traffic_and_kernels_are_those_of_real_steps(side: int, depth: int, width: int, batch: int) -> None:
    draws = generator("traffic")
    network = ConvNet(channels=3, image_size=side, classes=10, depth=depth, width=width)
    cost = NetworkCost.of(3, side, 10, depth, width)
    theta, images = network.initial(draws), torch.randn(batch, 3, side, side, generator=draws)
    labels, augmentation = torch.arange(batch) % 10, Augmentation(families=tuple(FAMILIES))
    N = 8

    def train() -> None:
        leaf = theta.detach().requires_grad_()
        views = augmentation.apply(images, augmentation.draw(batch, side, draws))
        torch.autograd.grad(F.cross_entropy(network.logits(leaf, views), labels), leaf)

    def match(kept: int) -> None:
        matcher = Matcher(InnerStep(network, micro_batch=batch), augmentation, kept_steps=kept)
        chunks = draw_chunks(images, N, batch, augmentation, draws)
        matcher(start=theta, target=theta + 0.01, images=images, labels=labels, alpha=0.01, chunks=chunks)

    unit = 4 * cost.outputs * batch
    trained = traffic(train)
    assert trained.bytes / unit == pytest.approx(TRAINING.traffic, rel=0.1)
    assert trained.kernels < depth * TRAINING.calls  # what Python does around the kernels counts, too
    for kept, step in ((0, MATCHING), (N, MATCHING_KEPT)):
        matched = traffic(partial(match, kept))
        assert matched.bytes / N / unit == pytest.approx(step.traffic, rel=0.15)
        assert 0.5 * depth * step.calls < matched.kernels / N < depth * step.calls


def test_a_core_waits_for_one_thing_after_the_other_and_a_gpu_for_the_longer() -> None:
    network = NetworkCost(forward=1e9, outputs=10**6, parameters=1, pixels=3, depth=2)
    few, many = Work.training(1, 1, times=10), Work.training(1000, 1000, times=10)
    gpu = Gpu(fp32=1e12, tf32=None, bf16=None, bytes_per_s=1e12, memory_bytes=1e9, call_s=1e-3)
    assert [gpu.seconds(each, network, FP32) for each in (few, many)] == [
        pytest.approx((10 * 2 * 40 * 1e-3 / 0.85, 10 * 2 * 40 * 1e-3 / 0.6)),
        pytest.approx((10 * (3 + 0.068) / 0.85, 10 * (3 + 0.068) / 0.6)),
    ]
    assert [gpu.binding(each, network, FP32) for each in (few, many)] == ["calls", "arithmetic"]
    alone = [Work(trained=1.0), Work(training_steps=1.0), Work(matched=1.0), Work(matching_steps=1.0)]
    together = sum(alone, Work())
    assert CPU_CORE.seconds(together, network) == pytest.approx(sum(CPU_CORE.seconds(each, network) for each in alone))
    matching = sum(CPU_CORE.seconds(each, network) for each in alone[2:])
    saved = CPU_CORE.seconds(together, network) - CPU_CORE.seconds(together, network, compiled=True)
    assert saved == pytest.approx(0.3 * matching)


@pytest.mark.parametrize(
    ("gpu", "fp32", "tf32", "compiled"),
    [("H200", 2.0, 1.1, 0.8), ("A100", 5.5, 2.6, 2.0), ("A10G", 9.6, 8.8, 6.7), ("L4", 17.0, 15.0, 11.0)],
)
def test_an_iteration_of_the_papers_cifar_100_setting(gpu: str, fp32: float, tf32: float, compiled: float) -> None:
    """Another estimate, kernel by kernel, of 40 steps on 1,000 images: seconds, within 40 per cent."""
    network, work = NetworkCost.of(3, 32, 100, 3, 128), Work.matching(40, 1000)
    for how, expected in (
        (FP32, fp32),
        (Multiplying(precision="tf32"), tf32),
        (Multiplying(precision="tf32", compiled=True), compiled),
    ):
        low, high = GPUS[gpu].seconds(work, network, how)
        assert 0.6 * expected < low < high < 1.4 * expected


def test_a_gpu_is_known_by_its_name_however_it_is_written() -> None:
    assert [gpu_name(text) for text in ("h200", "RTX4090", "rtx-4090", "a10g")] == [
        "H200", "RTX 4090", "RTX 4090", "A10G",
    ]  # fmt: skip
    with pytest.raises(UserError, match="no GPU is known as 'A1000'; known are V100, A100, A10G, L4"):
        gpu_name("A1000")
    with pytest.raises(ValueError, match="this GPU has no tf32"):
        GPUS["V100"].seconds(Work(), NetworkCost.of(1, 8, 10, 2, 32), Multiplying(precision="tf32"))
