"""How many run at once: doubled while it pays, by size, and measured once on a machine for a type of GPU."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.support.gpu_memory import GPU_MEMORY_ERRORS
from trainables.at_once import by_size, double_while_worthwhile, measured_once
from trainables.networks.convnet import ConvNet


@pytest.mark.parametrize(
    ("seconds", "most", "expected"),
    [
        ({1: 1.0, 2: 1.1}, 16, 1),
        ({1: 1.0, 2: 0.97}, 16, 1),  # not worth its memory
        ({1: 1.0, 2: 0.6, 4: 0.5, 8: 0.49}, 16, 4),
        ({1: 1.0, 2: 0.6, 4: 0.4, 8: 0.3, 16: 0.2}, 16, 16),  # and 32 is not asked for
        ({1: 1.0, 2: 0.6}, 16, 2),  # no memory for 4
        ({1: 1.0}, 1, 1),
        ({1: 1.0, 2: 0.6, 3: 0.5}, 3, 3),
        ({1: 1.0, 2: 0.6, 3: 0.59}, 3, 2),
    ],
)
def test_doubles_while_each_gets_cheaper_and_memory_lasts(seconds: dict[int, float], most: int, expected: int) -> None:
    asked = []

    def measure(at_once: int) -> float:
        asked.append(at_once)
        if at_once not in seconds:
            raise GPU_MEMORY_ERRORS["cuDNN's engines"]
        return seconds[at_once]

    assert double_while_worthwhile(measure, most) == expected
    assert max(asked) <= most and set(seconds) <= set(asked)


def test_another_error_is_not_taken_for_one_of_memory() -> None:
    def measure(at_once: int) -> float:
        if at_once > 1:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return 1.0

    with pytest.raises(RuntimeError, match="device-side assert"):
        double_while_worthwhile(measure)


class TestBySize:
    NETWORK = ConvNet(channels=3, image_size=32, classes=10, depth=3, width=128)

    def test_small_networks_run_together_and_large_ones_alone(self) -> None:
        small = ConvNet(channels=1, image_size=8, classes=10, depth=2, width=32)
        assert by_size(small, 256) == 16
        assert by_size(small, 256, most=5) == 4
        assert by_size(self.NETWORK, 256) == 1

    def test_what_runs_together_occupies_at_most_a_gpu(self) -> None:
        for batch in (1, 10, 20, 50, 100, 256):
            number = by_size(self.NETWORK, batch)
            filled = [at_once * batch * 4 * self.NETWORK.outputs for at_once in (number, 2 * number)]
            assert number == 1 or filled[0] <= 64 * 2**20
            assert number == 16 or filled[1] > 64 * 2**20


class TestMeasuredOnce:
    @pytest.fixture(autouse=True)
    def gpu(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        """The GPU that PyTorch tells of; a test may change its name."""
        gpu = SimpleNamespace(name="A", total_memory=2**34)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gpu)
        return gpu

    def test_a_number_is_measured_by_the_first_and_read_by_the_next(self, tmp_path: Path) -> None:
        assert measured_once(tmp_path / "a", {"work": "experts"}, lambda: 4) == 4
        assert measured_once(tmp_path / "a", {"work": "experts"}, lambda: pytest.fail("measured again")) == 4

    def test_other_work_and_another_gpu_have_numbers_of_their_own(self, tmp_path: Path, gpu: SimpleNamespace) -> None:
        assert measured_once(tmp_path, {"work": "experts"}, lambda: 4) == 4
        assert measured_once(tmp_path, {"work": "networks"}, lambda: 2) == 2
        gpu.name = "B"
        assert measured_once(tmp_path, {"work": "experts"}, lambda: 1) == 1
        gpu.name = "A"
        assert measured_once(tmp_path, {"work": "experts"}, lambda: 16) == 4

    def test_those_that_start_together_measure_one_at_a_time_and_once(self, tmp_path: Path) -> None:
        measuring, found = [], []

        def measure() -> int:
            measuring.append(1)
            time.sleep(0.1)
            return 8

        threads = [
            threading.Thread(target=lambda: found.append(measured_once(tmp_path, {"work": "experts"}, measure)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [8] * 4 and len(measuring) == 1

    def test_a_measurement_that_fails_leaves_nothing(self, tmp_path: Path) -> None:
        def fail() -> int:
            raise GPU_MEMORY_ERRORS["the driver"]

        with pytest.raises(RuntimeError):
            measured_once(tmp_path, {"work": "experts"}, fail)
        assert measured_once(tmp_path, {"work": "experts"}, lambda: 2) == 2
