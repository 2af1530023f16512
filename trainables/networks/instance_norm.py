"""An instance norm whose second derivatives take two passes over its input.

PyTorch builds the second derivatives of a group norm from some thirty elementary operations, each of which reads and
writes whole feature maps, and keeps their results. Written out, they are linear in the feature maps.

With x̂ = (x − μ) r of every image and channel (μ its mean over n pixels, r = (σ² + ε)^−½) and y = γ x̂ + β, the gradients
of y along ȳ are, with means ⟨·⟩ over the pixels,

    g_x = r γ (ȳ − ⟨ȳ⟩ − x̂ ⟨ȳ x̂⟩),    g_γ = Σ ȳ x̂,    g_β = Σ ȳ

s = Σ g_x x̄ + g_γ γ̄ + g_β β̄ for given x̄, γ̄, β̄ has the derivatives

    ∂s/∂ȳ = γ r (x̄ − ⟨x̄⟩ − x̂ ⟨x̄ x̂⟩) + γ̄ x̂ + β̄
    ∂s/∂γ = Σ r n c              with c = ⟨ȳ x̄⟩ − ⟨ȳ⟩⟨x̄⟩ − ⟨ȳ x̂⟩⟨x̄ x̂⟩
    ∂s/∂x = r (z − ⟨z⟩ − x̂ ⟨z x̂⟩) − r² γ c x̂    with z = (γ̄ − r γ ⟨x̄ x̂⟩) ȳ − r γ ⟨ȳ x̂⟩ x̄

in which ⟨z⟩ and ⟨z x̂⟩ follow from the means above.

Shape legend: B images, K channels, H = W side, n = H·W pixels.
"""

from typing import Any

import torch
from torch import Tensor

__all__ = ["twice_differentiable_instance_norm"]


def twice_differentiable_instance_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """Return F.group_norm(x, K, weight, bias, epsilon), [B, K, H, W]; the value and its gradient are the same bits.

    It has no rules for `torch.func` transforms: under vmap or jvp, use F.group_norm.

    Args:
        x: float [B, K, H, W].
        weight: γ, float [K].
        bias: β, float [K].
        epsilon: Added to the variance.
    """
    result: Tensor = _InstanceNorm.apply(_in_order(x, x), weight, bias, epsilon)
    return result


class _InstanceNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        batch, channels, height, width = x.shape
        result: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_group_norm(
            x, weight, bias, batch, channels, height * width, channels, epsilon
        )
        y, mean, root = result
        ctx.save_for_backward(x, weight, mean, root)
        return y

    @staticmethod
    def backward(ctx: Any, along: Tensor) -> Any:
        return *_Gradients.apply(_in_order(along, ctx.saved_tensors[0]), *ctx.saved_tensors), None


class _Gradients(torch.autograd.Function):
    """The gradients of an instance norm's inputs x, weight and bias along its output."""

    @staticmethod
    def forward(ctx: Any, along: Tensor, x: Tensor, weight: Tensor, mean: Tensor, root: Tensor) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(along, x, weight, mean, root)
        batch, channels, height, width = x.shape
        return torch.ops.aten.native_group_norm_backward(
            along, x, mean, root, weight, batch, channels, height * width, channels, [True, True, True]
        )

    @staticmethod
    def backward(ctx: Any, x_bar: Tensor | None, weight_bar: Tensor | None, bias_bar: Tensor | None) -> Any:
        along, x, weight, mean, root = ctx.saved_tensors
        shape = x.shape
        along, x = along.flatten(2), x.flatten(2)
        bar = torch.zeros_like(x) if x_bar is None else x_bar.flatten(2)
        gamma_bar, beta_bar = (0 if each is None else each for each in (weight_bar, bias_bar))
        mean_along, mean_bar = along.mean(dim=2), bar.mean(dim=2)
        along_normed = root * (_mean_product(along, x) - mean * mean_along)
        bar_normed = root * (_mean_product(bar, x) - mean * mean_bar)
        c = _mean_product(along, bar) - mean_along * mean_bar - along_normed * bar_normed

        # Sums of multiples of ȳ, x̄, x and 1, one factor for every image and channel.
        gain = weight * root
        z_along, z_bar = gamma_bar - gain * bar_normed, -gain * along_normed
        by_x = root * z_along
        of_along = torch.addcmul(_per_image(beta_bar - gain * mean_bar - by_x * mean), _per_image(gain), bar)
        of_along.addcmul_(_per_image(by_x), x)
        mean_z, z_normed = z_along * mean_along + z_bar * mean_bar, z_along * along_normed + z_bar * bar_normed
        by_x = -root * root * (z_normed + gain * c)
        of_x = torch.addcmul(_per_image(-root * mean_z - by_x * mean), _per_image(root * z_along), along)
        of_x.addcmul_(_per_image(root * z_bar), bar).addcmul_(_per_image(by_x), x)
        of_weight = (root * c).sum(dim=0) * x.shape[2]
        return of_along.view(shape), of_x.view(shape), of_weight, None, None


def _in_order(values: Tensor, like: Tensor) -> Tensor:
    """Return values in the memory order of `like`, as PyTorch's norm takes them: channels last stays so on a CPU."""
    last = like.device.type == "cpu" and like.is_contiguous(memory_format=torch.channels_last)
    return values.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _mean_product(a: Tensor, b: Tensor) -> Tensor:
    """Return the means over the pixels of the products of a and b, both [B, K, n]: [B, K]."""
    return (a * b).mean(dim=2)


def _per_image(factors: Tensor) -> Tensor:
    return factors.unsqueeze(2)
