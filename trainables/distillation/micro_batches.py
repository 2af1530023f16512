"""Size of a micro-batch: limited by memory and, on a CPU, by its caches."""

import math

import torch

from trainables.errors import ConfigError
from trainables.machine import Machine
from trainables.networks.network import Network

__all__ = ["bytes_per_image", "device_bytes", "graph_factor", "micro_batch_for", "spare_bytes"]

CPU_GRAPH_FACTOR = 36
"""Peak memory of one more image in a Hessian-vector product on a CPU, as a multiple of the float32 bytes of its
convolutions' outputs: measured of whole processes as 24 uncompiled and 34 compiled (Winograd's tiles),
benchmarks/RESULTS.md."""
GPU_GRAPH_FACTOR = {"fp32": 8, "tf32": 8, "bf16": 13}
"""The same on a GPU by precision: the live tensors, 7 and 11.5, and a tenth for the allocator. A compiled step was not
counted; a trial that runs out of memory takes half the images."""
CPU_BYTES = 18 * 2**20
"""Bytes of convolution outputs per micro-batch that were fastest on a CPU: they fit into its last-level cache."""
SPARE = 0.8
"""Share of the device's memory that is used if no budget is given."""


def bytes_per_image(network: Network) -> int:
    """Return the bytes of one image's convolution outputs, float32."""
    return 4 * network.outputs


def graph_factor(device: torch.device, precision: str) -> int:
    """Return the memory of an image's graph in a Hessian-vector product, in float32 bytes of its convolutions' outputs.

    Args:
        device: Device of the inner step.
        precision: A name of `inner_step.PRECISIONS`.
    """
    return GPU_GRAPH_FACTOR[precision] if device.type == "cuda" else CPU_GRAPH_FACTOR


def device_bytes(device: torch.device) -> int:
    """Return the memory of a device in bytes: all of a GPU's, and on a CPU that which this process was granted.

    What is free on a GPU would not do: it leaves out the memory that this process keeps for reuse and what a neighbour
    took that began earlier. The rounding of a trial would depend on both, and differ after it was resumed.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return Machine().memory().amount


def spare_bytes(device: torch.device, share: float = 1.0) -> float:
    """Return the memory budget in bytes of a share of the device, if the user gives none."""
    return share * SPARE * device_bytes(device)


def micro_batch_for(
    network: Network, chunk: int, *, device: torch.device, budget_bytes: float, precision: str = "fp32"
) -> int:
    """Return the micro-batch size of an inner step; the gradient does not depend on it, up to rounding.

    Args:
        network: The network.
        chunk: Images of the largest chunk.
        device: Device of the inner step.
        budget_bytes: Memory that the graph may take, in bytes.
        precision: A name of `inner_step.PRECISIONS`.

    Raises:
        ConfigError: Not even one image fits.
    """
    image = bytes_per_image(network)
    graph = graph_factor(device, precision) * image
    if (fitting := int(budget_bytes // graph)) < 1:
        raise ConfigError(
            f"one image's graph takes about {graph / 2**20:.0f} MiB, the memory budget is "
            f"{budget_bytes / 2**20:.0f} MiB; raise --memory-budget or lower net_width"
        )
    fastest = max(1, CPU_BYTES // image) if device.type == "cpu" else chunk
    pieces = math.ceil(chunk / min(fitting, fastest))
    return math.ceil(chunk / pieces)  # equal pieces: the padding of the last one costs time too
