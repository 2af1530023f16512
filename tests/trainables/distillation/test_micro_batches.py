"""How many images are taken at a time."""

import pytest
import torch

from trainables.distillation.micro_batches import (
    CPU_GRAPH_FACTOR,
    GPU_GRAPH_FACTOR,
    SPARE,
    bytes_per_image,
    device_bytes,
    micro_batch_for,
    spare_bytes,
)
from trainables.errors import ConfigError
from trainables.networks.convnet import ConvNet

CPU = torch.device("cpu")
NETWORK = ConvNet(channels=3, image_size=32, classes=10, depth=3, width=128)


def test_bytes_of_an_image_are_those_of_its_convolutions_outputs() -> None:
    assert bytes_per_image(NETWORK) == 4 * 128 * (32**2 + 16**2 + 8**2)


def test_the_budget_holds() -> None:
    image = CPU_GRAPH_FACTOR * bytes_per_image(NETWORK)
    for fitting in (1, 2, 7):
        assert micro_batch_for(NETWORK, 20, device=CPU, budget_bytes=(fitting + 0.5) * image) <= fitting


def test_pieces_are_equal_so_that_little_is_filled_up() -> None:
    image = bytes_per_image(NETWORK)
    assert micro_batch_for(NETWORK, 20, device=CPU, budget_bytes=19.5 * CPU_GRAPH_FACTOR * image) == 10
    gpu = torch.device("cuda")
    for precision, factor in GPU_GRAPH_FACTOR.items():
        budget = 300.5 * factor * image
        assert micro_batch_for(NETWORK, 1000, device=gpu, budget_bytes=budget, precision=precision) == 250


def test_a_small_chunk_is_taken_whole_and_a_large_one_as_a_cpus_cache_holds_it() -> None:
    tiny = ConvNet(channels=1, image_size=8, classes=10, depth=2, width=32)
    assert micro_batch_for(tiny, 10, device=CPU, budget_bytes=1e12) == 10
    on_cpu = micro_batch_for(NETWORK, 1000, device=CPU, budget_bytes=1e12)
    assert 1 <= on_cpu < 100
    assert micro_batch_for(NETWORK, 1000, device=torch.device("cuda"), budget_bytes=1e12) == 1000


def test_not_even_one_image() -> None:
    with pytest.raises(ConfigError, match=r"one image's graph takes about 24 MiB, the memory budget is 1 MiB; raise"):
        micro_batch_for(NETWORK, 10, device=CPU, budget_bytes=2**20)


def test_the_memory_of_a_cpu_is_the_machines() -> None:
    assert 2**20 < device_bytes(CPU) < 2**50


def test_a_gpus_memory_is_all_of_it_whatever_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed trial finds its own cache, or a neighbour that had not begun before, and takes the same size."""
    gpu, image = torch.device("cuda"), GPU_GRAPH_FACTOR["fp32"] * bytes_per_image(NETWORK)
    sizes = set()
    for free in (0, 3 * image, 100 * image):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 100 * image))
        assert spare_bytes(gpu) == SPARE * 100 * image and spare_bytes(gpu, 0.25) == 0.25 * SPARE * 100 * image
        sizes.add(micro_batch_for(NETWORK, 1000, device=gpu, budget_bytes=spare_bytes(gpu, 0.5)))
    assert sizes == {40}
