"""A 3×3 convolution whose second derivatives are convolutions with 3×3 kernels.

PyTorch's own double backward computes one term of the weights' second derivative as a convolution in which images and
channels change places: its kernel is a whole feature map. Libraries have no fast algorithm for such a kernel. Here that
term is the weight gradient of an ordinary convolution.

With y = x ∗ w + b, s = ⟨g_x, x̄⟩ + ⟨g_w, w̄⟩ + ⟨g_b, b̄⟩ for the gradients g of y along ȳ, and x̄, w̄, b̄ given:

    ∂s/∂ȳ = x̄ ∗ w + x ∗ w̄ + b̄,    ∂s/∂x = the input gradient of x ∗ w̄ along ȳ,
    ∂s/∂w = the weight gradient of x̄ ∗ w along ȳ.

Shape legend: B images, K_in channels in, K channels out, H = W side.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["twice_differentiable_convolution"]


def twice_differentiable_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return F.conv2d(x, weight, bias, padding=1), [B, K, H, W].

    It has no rules for `torch.func` transforms: under vmap or jvp, use F.conv2d.

    Args:
        x: float [B, K_in, H, W].
        weight: float [K, K_in, 3, 3].
        bias: float [K].
    """
    result: Tensor = _Convolution.apply(x, weight, bias)
    return result


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=1)

    @staticmethod
    def backward(ctx: Any, along: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        return _Gradients.apply(along, x, weight, ctx.needs_input_grad[0])


class _Gradients(torch.autograd.Function):
    """The gradients of a convolution's inputs x, weight and bias along its output."""

    @staticmethod
    def forward(ctx: Any, along: Tensor, x: Tensor, weight: Tensor, needs_x: bool) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(along, x, weight)
        return _backward(along, x, weight, (needs_x, True, True))

    @staticmethod
    def backward(ctx: Any, x_bar: Tensor | None, weight_bar: Tensor | None, bias_bar: Tensor | None) -> Any:
        along, x, weight = ctx.saved_tensors
        of_along = of_x = of_weight = None
        if weight_bar is not None:
            of_along = F.conv2d(x, weight_bar, bias_bar, padding=1)
            if ctx.needs_input_grad[1]:
                of_x = _backward(along, x, weight_bar, (True, False, False))[0]
        elif bias_bar is not None:
            of_along = bias_bar[:, None, None].expand_as(along)
        if x_bar is not None:
            through_x = F.conv2d(x_bar, weight, padding=1)
            of_along = through_x if of_along is None else of_along + through_x
            if ctx.needs_input_grad[2]:
                of_weight = _backward(along, x_bar, weight, (False, True, False))[1]
        return of_along, of_x, of_weight, None


def _backward(along: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool, bool]) -> Any:
    """Return the gradients of x, weight and bias that are wanted along a convolution's output [B, K, H, W]."""
    ones, zeros = [1, 1], [0, 0]
    return torch.ops.aten.convolution_backward(
        along, x, weight, [len(weight)], ones, ones, ones, False, zeros, 1, list(wanted)
    )
