"""The layers of a ConvNet that have several implementations: PyTorch's, and ours for second derivatives.

The values and the gradients of both are the same bits. Ours are faster where a gradient is differentiated again, and
have no rules for `torch.func` transforms.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.networks.convolution import twice_differentiable_convolution
from trainables.networks.instance_norm import twice_differentiable_instance_norm

__all__ = ["NORM_EPSILON", "PLAIN", "Layers", "second_order_layers"]

Layer = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Takes an input [B, K_in, H, W], a weight and a bias, and returns the output [B, K, H, W]."""

NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class Layers:
    """One implementation of the layers."""

    convolution: Layer
    """3×3 with padding 1."""
    instance_norm: Layer
    """One group a channel, affine."""


def _convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(x, weight, bias, padding=1)


def _instance_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.group_norm(x, x.shape[1], weight, bias, NORM_EPSILON)


def _second_order_instance_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return twice_differentiable_instance_norm(x, weight, bias, NORM_EPSILON)


PLAIN = Layers(_convolution, _instance_norm)
"""PyTorch's."""


def second_order_layers(device: torch.device, *, curvature: bool) -> Layers:
    """Return the layers for a gradient in the parameters that is differentiated again.

    Args:
        device: The device of the network.
        curvature: Whether the second derivatives include those in the parameters. Only these have the convolutions with
            large kernels that ours avoids; otherwise, PyTorch's convolution computes less. On a CPU, PyTorch's is as
            fast in any case (benchmarks/RESULTS.md), so it stays. On a GPU, nothing of this was measured yet.
    """
    ours = curvature and device.type == "cuda"
    return Layers(twice_differentiable_convolution if ours else _convolution, _second_order_instance_norm)
