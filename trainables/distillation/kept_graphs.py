"""How many inner steps keep their graphs for the way back: as many as fit into memory.

The matching gradient of a ConvNet is the same bits whatever is kept, so this may depend on the memory that a CPU's
process happens to be granted. A kept graph saves its step the three forward passes of the gradient, of twelve.
"""

import math

import torch

from trainables.distillation.micro_batches import bytes_per_image, graph_factor, spare_bytes
from trainables.networks.convnet import ConvNet
from trainables.networks.network import Network

__all__ = ["kept_bytes", "kept_graphs_budget", "steps_to_keep"]

KEPT_FACTOR = {"fp32": 4.3, "tf32": 4.3, "bf16": 7.6}
"""Memory of an image's kept graph by precision, as a multiple of the float32 bytes of its convolutions' outputs:
counted by live tensors, benchmarks/RESULTS.md."""
CPU_SHARE = 0.5
"""Share of the memory that a trial may use on a CPU which kept graphs take if the user gives no budget: the machine has
other uses for it."""
CPU_MOST_BYTES = 2**30
"""Most that they take there without a budget."""


def kept_graphs_budget(device: torch.device, share: float) -> float:
    """Return the memory that kept graphs and the products' graph may take in bytes, if the user gives no budget.

    Args:
        device: Device of the inner steps.
        share: Share of the device that a trial may use, in (0, 1].
    """
    spare = spare_bytes(device, share)
    return min(CPU_MOST_BYTES, CPU_SHARE * spare) if device.type == "cpu" else spare


def kept_bytes(network: Network, images: int, micro_batch: int, precision: str) -> float:
    """Return the memory that one kept step takes, in bytes: the graphs of its images, and its gradients.

    Args:
        network: The network.
        images: Images of the step.
        micro_batch: Largest number of images of a graph; each graph has a gradient [P].
        precision: A name of `inner_step.PRECISIONS`.
    """
    gradients = 1 + math.ceil(images / micro_batch)
    pixels = network.channels * network.image_size**2
    return (
        images * (KEPT_FACTOR[precision] * bytes_per_image(network) + 4 * pixels) + 4 * gradients * network.parameters
    )


def steps_to_keep(
    network: Network,
    steps: int,
    images: int,
    micro_batch: int,
    precision: str,
    *,
    device: torch.device,
    budget_bytes: float,
) -> int:
    """Return how many of the inner steps keep their graphs, beside the graph of one micro-batch of the products.

    Args:
        network: The network; only a ConvNet's graphs are kept, because another's memory and rounding are not known.
        steps: Inner steps N.
        images: Images of the largest step.
        micro_batch: Largest number of images that pass through the network at a time.
        precision: A name of `inner_step.PRECISIONS`.
        device: Device of the inner steps.
        budget_bytes: Memory for all of it.
    """
    if type(network) is not ConvNet:
        return 0
    products = graph_factor(device, precision) * bytes_per_image(network) * min(images, micro_batch)
    left_bytes = budget_bytes - products
    fitting = int(left_bytes // kept_bytes(network, images, micro_batch, precision))
    return min(steps, max(0, fitting))
