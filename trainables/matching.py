"""The trajectory-matching loss and its exact gradient, in memory that does not grow with a graph of N steps.

Shape legend: S synthetic images, B images of a chunk, P parameters, N inner steps.

With θ₀ = θ*_t, θ_{i+1} = θ_i − α g_i, g_i = ∇_θ ℓ(θ_i; A_i(x_{B_i}), y_{B_i}) and D = ‖θ*_t − θ*_{t+M}‖²:

    L   = ‖θ_N − θ*_{t+M}‖² / D                                            (METHOD §2, step 4)
    λ_N = 2 (θ_N − θ*_{t+M}) / D
    for i = N−1 … 0:  (u, v) = ∇_{θ,x} ⟨g_i, λ_{i+1}⟩
                      ∂L/∂x −= α v ,  ∂L/∂α −= ⟨g_i, λ_{i+1}⟩ ,  λ_i = λ_{i+1} − α u

which is reverse-mode differentiation of the whole loop written out; nothing is dropped (TESLA drops u).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.augmentation import Augmentation, Draw
from trainables.networks import ConvNet

__all__ = ["Chunk", "MatchingGradient", "matching_gradient"]


@dataclass(frozen=True)
class Chunk:
    """What one inner step trains on: the indices [B] of distinct synthetic images, and their augmentation."""

    indices: Tensor
    draw: Draw | None


@dataclass(frozen=True)
class MatchingGradient:
    """The matching loss and its derivatives."""

    loss: float
    """L, as a multiple of the squared distance the expert went."""
    images: Tensor
    """∂L/∂x, [S, ch, H, W]."""
    alpha: float
    """∂L/∂α."""


def matching_gradient(
    network: ConvNet,
    *,
    start: Tensor,
    target: Tensor,
    images: Tensor,
    labels: Tensor,
    alpha: float,
    chunks: Sequence[Chunk],
    augmentation: Augmentation,
) -> MatchingGradient:
    """Return the matching loss and its exact gradient with respect to the synthetic images and α.

    Args:
        network: The network whose trajectories are matched.
        start: θ*_t, [P], float32 or float64; everything is computed in this dtype.
        target: θ*_{t+M}, [P].
        images: Synthetic images, [S, ch, H, W].
        labels: Hard labels, int64 [S].
        alpha: Inner learning rate α.
        chunks: The N inner steps, in order.
        augmentation: What replays the draws of the chunks.

    Returns:
        Loss and gradients; not finite where the inner loop diverged.

    Cost: N forward-backward passes and N Hessian-vector products; memory for N parameter vectors and one graph.
    Source: DESIGN "The gradient"; the loop itself METHOD §2, steps 3 to 5.
    """
    distance = (start - target).square().sum()
    path = start.new_empty((len(chunks), start.numel()))
    theta = start.clone()
    for step, chunk in enumerate(chunks):
        path[step] = theta
        leaf = path[step].detach().requires_grad_()
        chunk_loss = _chunk_loss(network, leaf, images[chunk.indices], labels, chunk, augmentation)
        (gradient,) = torch.autograd.grad(chunk_loss, leaf)
        theta -= alpha * gradient
    difference = theta - target
    loss = difference.square().sum() / distance

    adjoint = 2 * difference / distance
    image_gradient, alpha_gradient = torch.zeros_like(images), start.new_zeros(())
    for step in reversed(range(len(chunks))):
        chunk = chunks[step]
        leaf = path[step].detach().requires_grad_()
        pixels = images[chunk.indices].requires_grad_()
        chunk_loss = _chunk_loss(network, leaf, pixels, labels, chunk, augmentation)
        (gradient,) = torch.autograd.grad(chunk_loss, leaf, create_graph=True)
        product = torch.dot(gradient, adjoint)
        curvature, pixel_gradient = torch.autograd.grad(product, (leaf, pixels))
        image_gradient[chunk.indices] -= alpha * pixel_gradient
        alpha_gradient -= product.detach()
        adjoint = adjoint - alpha * curvature
    return MatchingGradient(float(loss), image_gradient, float(alpha_gradient))


def _chunk_loss(
    network: ConvNet, theta: Tensor, pixels: Tensor, labels: Tensor, chunk: Chunk, augmentation: Augmentation
) -> Tensor:
    """ℓ(θ; A(x_B), y_B) for the chunk's own images [B, ch, H, W]."""
    return F.cross_entropy(network.logits(theta, augmentation.apply(pixels, chunk.draw)), labels[chunk.indices])
