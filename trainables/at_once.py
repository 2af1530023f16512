"""How many networks or trials run at once on a GPU: measured once on a machine, or chosen by their size.

Together they fill a GPU that one alone leaves idle. Whether that pays depends on the GPU, so it is measured where it is
not known. A measurement takes the time, so another run may choose otherwise; a choice by size is always the same.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from trainables.memory_errors import is_gpu_memory_error
from trainables.networks.network import Network
from trainables.storage.atomic import write_json

__all__ = ["MOST_AT_ONCE", "by_size", "double_while_worthwhile", "measured_once"]

MOST_AT_ONCE = 16
"""Maximum number of networks that are trained side by side."""
WORTHWHILE = 0.95
"""Running more at once must reduce the time of each to at most this share."""
FILLS_GPU_BYTES = 64 * 2**20
"""Convolution outputs of a step that occupy a GPU: assumed, by the time of a kernel that moves them beside that of its
start, some 10 µs."""
FORMAT_VERSION = 1


def double_while_worthwhile(seconds: Callable[[int], float], most: int = MOST_AT_ONCE) -> int:
    """Return the largest number at once, doubling from 1, up to which every doubling pays.

    A doubling pays if it reduces the time of each to `WORTHWHILE`; memory limits it too.

    Args:
        seconds: Time of one of so many, in seconds: of all together, divided by their number. It may run out of GPU
            memory where it is asked for more than one.
        most: Maximum number; if it is no power of two, the last step is shorter.
    """
    at_once, cost = 1, seconds(1)
    while at_once < most:
        more = min(2 * at_once, most)
        try:
            next_cost = seconds(more)
        except RuntimeError as error:
            if not is_gpu_memory_error(error):
                raise
            break
        if next_cost > WORTHWHILE * cost:
            break
        at_once, cost = more, next_cost
    torch.cuda.empty_cache()  # no effect on a CPU
    return at_once


def by_size(network: Network, batch: int, most: int = MOST_AT_ONCE) -> int:
    """Return how many networks a GPU should train side by side, whatever the GPU: a power of two, at least 1.

    Args:
        network: The network.
        batch: Images of a step of one network.
        most: Maximum number.
    """
    at_once = 1
    while 2 * at_once <= most and 2 * at_once * batch * 4 * network.outputs <= FILLS_GPU_BYTES:
        at_once *= 2
    return at_once


def measured_once(folder: Path, identity: Mapping[str, Any], measure: Callable[[], int]) -> int:
    """Return the number that was measured for this work on this type of GPU; the first process measures it.

    Processes that start together wait for one another, so that none measures while another does.

    Args:
        folder: Folder on this machine for the numbers; created if it does not exist.
        identity: What determines the number besides the GPU and PyTorch's version, in values that JSON can represent.
        measure: Measures the number.
    """
    gpu = torch.cuda.get_device_properties(torch.cuda.current_device())
    whole = {
        "version": FORMAT_VERSION, "gpu": gpu.name, "gpu_bytes": gpu.total_memory, "torch": torch.__version__,
        **identity,
    }  # fmt: skip
    address = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:20]
    path = folder / f"at-once-{address}.json"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            write_json(path, {**whole, "at_once": measure()})
        return int(json.loads(path.read_text(encoding="utf-8"))["at_once"])
