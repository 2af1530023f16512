"""Kept graphs: how many fit, and that their memory is what the rule counts with."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.live_tensors import LiveTensors
from trainables.data.augmentation import Augmentation
from trainables.distillation.inner_step import InnerStep
from trainables.distillation.kept_graphs import (
    CPU_MOST_BYTES,
    kept_bytes,
    kept_graphs_budget,
    steps_to_keep,
)
from trainables.distillation.matching import Chunk, Matcher
from trainables.distillation.micro_batches import CPU_GRAPH_FACTOR, GPU_GRAPH_FACTOR, bytes_per_image
from trainables.machine import Machine
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator

CPU = torch.device("cpu")
NETWORK = ConvNet(channels=3, image_size=32, classes=10, depth=3, width=128)


def peak_bytes(network: ConvNet, *, images: int, micro_batch: int, precision: str, kept_steps: int) -> int:
    """The most that the tensors of a gradient of 6 inner steps take at once, besides its arguments."""
    draws = generator("kept graphs")
    pixels = torch.randn(images, network.channels, network.image_size, network.image_size, generator=draws)
    matcher = Matcher(
        InnerStep(network, precision=precision, micro_batch=micro_batch), Augmentation(), kept_steps=kept_steps
    )
    live = LiveTensors()
    with live:
        matcher(
            start=network.initial(draws),
            target=network.initial(draws),
            images=pixels,
            labels=torch.arange(images) % network.classes,
            alpha=0.01,
            chunks=[Chunk(torch.arange(images), None)] * 6,
        )
    return live.peak_bytes


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@settings(deadline=None, max_examples=8, derandomize=True)
@given(
    side=st.sampled_from([8, 12, 16]),
    depth=st.integers(1, 3),
    width=st.sampled_from([8, 16, 24]),
    channels=st.sampled_from([1, 3]),
    images=st.integers(4, 12),
    micro_batch=st.integers(2, 12),
)
def test_memory_grows_by_a_step_as_predicted(
    precision: str, side: int, depth: int, width: int, channels: int, images: int, micro_batch: int
) -> None:
    network = ConvNet(channels=channels, image_size=side, classes=10, depth=depth, width=width)
    few, many = (
        peak_bytes(network, images=images, micro_batch=micro_batch, precision=precision, kept_steps=kept_steps)
        for kept_steps in (2, 6)
    )
    predicted = kept_bytes(network, images, micro_batch, precision)
    assert 0.85 * predicted < (many - few) / 4 < 1.15 * predicted


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpus_graph_factor_is_that_of_live_tensors_and_a_reserve(precision: str) -> None:
    """With nothing kept, each image more takes the products' graph: counted, on a CPU, without compiling."""
    network = ConvNet(channels=3, image_size=16, classes=10, depth=2, width=32)
    few, many = (
        peak_bytes(network, images=images, micro_batch=images, precision=precision, kept_steps=0) for images in (8, 24)
    )
    counted = (many - few) / 16 / bytes_per_image(network)
    assert 0.75 * GPU_GRAPH_FACTOR[precision] < counted < GPU_GRAPH_FACTOR[precision]


def test_as_many_as_fit_beside_a_micro_batch_and_never_more_than_there_are() -> None:
    one = kept_bytes(NETWORK, 20, 10, "fp32")
    products = CPU_GRAPH_FACTOR * 10 * bytes_per_image(NETWORK)

    def kept(fitting: float, steps: int = 30, precision: str = "fp32") -> int:
        return steps_to_keep(
            NETWORK, steps, 20, 10, precision, device=torch.device("cpu"), budget_bytes=products + fitting * one
        )

    assert [kept(fitting) for fitting in (-1.0, 0.9, 1.1, 7.5, 29.5, 30.5, 1000)] == [0, 0, 1, 7, 29, 30, 30]
    assert kept(7.5, steps=5) == 5
    assert kept(7.5, precision="bf16") == 4


def test_another_network_keeps_none() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Other(ConvNet):
        pass

    other = Other(channels=3, image_size=32, classes=10)
    assert steps_to_keep(other, 20, 10, 10, "fp32", device=torch.device("cpu"), budget_bytes=1e15) == 0


def test_a_cpu_keeps_room_for_others() -> None:
    assert kept_graphs_budget(CPU, 1.0) <= CPU_MOST_BYTES
    share = 1e-6
    assert 0 < kept_graphs_budget(CPU, share) < 0.6 * share * Machine().memory().amount
