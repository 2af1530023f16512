"""What is known of the machine on which a device is measured."""

from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.device.results import Fact
from benchmarks.measure import surroundings

__all__ = ["machine"]


def machine(device: str, deadline: float) -> Iterator[Fact]:
    """Yield facts of the machine and its software."""
    for name, value in surroundings(device).items():
        if value is not None:
            yield Fact(name=name.replace("_", " "), value=str(value))
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        yield Fact(name="GPU memory", value=f"{properties.total_memory / 2**30:.1f} GiB")
        yield Fact(name="GPU's multiprocessors", value=str(properties.multi_processor_count))
        yield Fact(name="compute capability", value=f"{properties.major}.{properties.minor}")
        yield Fact(name="driver", value=_driver())
        yield Fact(name="CUDA of torch", value=str(torch.version.cuda))
        yield Fact(name="cuDNN", value=str(torch.backends.cudnn.version()))
    yield Fact(name="threads of torch", value=str(torch.get_num_threads()))


def _driver() -> str:
    """Return what the GPU driver says of its version."""
    path = Path("/proc/driver/nvidia/version")
    return path.read_text().splitlines()[0] if path.exists() else "unknown"
