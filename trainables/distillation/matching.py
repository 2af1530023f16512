"""The trajectory-matching loss and its gradient: exact in constant memory, truncated as in TESLA, or unrolled.

Shape legend: S synthetic images, B images of a chunk, C classes, P parameters, N inner steps.

With θ₀ = θ*_t, θ_{i+1} = θ_i − α g_i, g_i = ∇_θ ℓ(θ_i; A_i(x_{B_i}), y_{B_i}) and D = ‖θ*_t − θ*_{t+M}‖²:

    L   = ‖θ_N − θ*_{t+M}‖² / D                                            (docs/method.md, "Distillation", step 4)
    λ_N = 2 (θ_N − θ*_{t+M}) / D
    for i = N−1 … 0:  (u, v) = ∇_{θ,x} ⟨g_i, λ_{i+1}⟩
                      ∂L/∂x −= α v ,  ∂L/∂α −= ⟨g_i, λ_{i+1}⟩ ,  λ_i = λ_{i+1} − α u

This is reverse-mode differentiation of the whole loop, written out. Labels are treated like x. `truncated` is TESLA's
gradient: it keeps λ_i = λ_N, that is, it drops the Hessian-vector products u: docs/method.md, "Matching gradient".
`unrolled` lets autograd differentiate the loop, as the reference codes do; its memory grows with N.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.data.augmentation import Augmentation, Draw
from trainables.data.transfer import moved
from trainables.distillation.inner_step import InnerStep, KeptStep
from trainables.errors import ConfigError
from trainables.networks.layers import second_order_layers

__all__ = ["METHODS", "Chunk", "Matcher", "MatchingGradient", "draw_chunks"]

METHODS = ("exact", "truncated", "unrolled")


@dataclass(frozen=True)
class Chunk:
    """The images of one inner step: the indices [B] of distinct synthetic images, and their augmentation."""

    indices: Tensor
    draw: Draw | None


def draw_chunks(
    images: Tensor, N: int, batch_syn: int, augmentation: Augmentation, draws: torch.Generator
) -> list[Chunk]:
    """Draw the N inner steps: permute, split, take from the end (the ragged chunk first), permute again.

    All of them lie on the images' device, copied there at once.

    Source: docs/method.md, "Distillation", step 3.

    Args:
        images: The synthetic images [S, ch, H, W], of which only size and device are read.
        N: Inner steps.
        batch_syn: Images of a step.
        augmentation: Draws one augmentation for each step.
        draws: The generator of all draws.
    """
    pieces: list[Tensor] = []
    chunks = []
    for _ in range(N):
        if not pieces:
            pieces = list(torch.randperm(len(images), generator=draws).split(batch_syn))
        indices = pieces.pop()
        draw = augmentation.draw(len(indices), images.shape[-1], draws)
        chunks.append(Chunk(indices, draw))
    return moved(chunks, images.device)


@dataclass(frozen=True)
class MatchingGradient:
    """The matching loss and its derivatives."""

    loss: float
    """L, in units of the squared distance ‖θ*_t − θ*_{t+M}‖²."""
    images: Tensor
    """∂L/∂x, [S, ch, H, W]."""
    labels: Tensor | None
    """∂L/∂ label logits, [S, C]; None for hard labels."""
    alpha: float
    """∂L/∂α."""


class _Task(NamedTuple):
    """The arguments of one gradient."""

    start: Tensor
    target: Tensor
    images: Tensor
    distributions: Tensor
    alpha: float
    chunks: Sequence[Chunk]


class _Derivatives(NamedTuple):
    loss: Tensor
    images: Tensor
    distributions: Tensor
    alpha: Tensor


class Matcher:
    """Computes the matching loss and its gradient; between calls, it keeps only compiled functions."""

    def __init__(
        self, step: InnerStep, augmentation: Augmentation, *, method: str = "exact", kept_steps: int = 0
    ) -> None:
        """Prepare.

        Args:
            step: The derivatives of one inner step.
            augmentation: Applies the draws of the chunks.
            method: A name of `METHODS`.
            kept_steps: Number of inner steps, the last of the loop, whose graphs are kept from the way forward for the
                way back. It changes time and memory, not the gradient.

        Raises:
            ConfigError: The method is unknown, or `unrolled` with a compiled step or micro-batches; or graphs are to be
                kept by `unrolled` or a compiled step.
        """
        if method not in METHODS:
            raise ConfigError(f"gradient is one of {', '.join(METHODS)}, not {method}")
        if method == "unrolled" and (step.compiled or step.micro_batch):
            raise ConfigError("the unrolled gradient keeps whole chunks: it is neither compiled nor in micro-batches")
        if kept_steps and (step.compiled or method == "unrolled"):
            which = "a compiled step keeps no graphs" if step.compiled else "the unrolled gradient keeps all graphs"
            raise ConfigError(f"{which}, and kept_steps is {kept_steps}; make it 0")
        self.step = step
        self.augmentation = augmentation
        self.method = method
        self.kept_steps = kept_steps

    def __call__(
        self,
        *,
        start: Tensor,
        target: Tensor,
        images: Tensor,
        labels: Tensor,
        alpha: float,
        chunks: Sequence[Chunk],
    ) -> MatchingGradient:
        """Return the matching loss and its gradient with respect to the synthetic images, soft labels and α.

        Args:
            start: θ*_t, [P], float32 or float64; everything is computed in this dtype.
            target: θ*_{t+M}, [P].
            images: Synthetic images, [S, ch, H, W].
            labels: Hard labels, int64 [S], or the logits of soft ones, [S, C].
            alpha: Inner learning rate α.
            chunks: The N inner steps, in order.

        Returns:
            Loss and gradients; not finite where the inner loop diverged.

        Cost: N gradients and N Hessian-vector products (`truncated`: N gradients of gradients in x alone), of 3 and 9
        forward passes uncompiled; 9 for both where a graph is kept. Memory for N parameter vectors, the kept graphs and
        the graph of one micro-batch; `unrolled`: for N graphs.
        """
        distributions = self._distributions(images, labels)
        task = _Task(start, target, images, distributions, alpha, chunks)
        derivatives = self._unrolled(task) if self.method == "unrolled" else self._adjoint(task)
        along_logits = None
        if labels.is_floating_point():  # through the softmax: q ⊙ (r − ⟨q, r⟩)
            mean = (distributions * derivatives.distributions).sum(dim=1, keepdim=True)
            along_logits = distributions * (derivatives.distributions - mean)
        return MatchingGradient(float(derivatives.loss), derivatives.images, along_logits, float(derivatives.alpha))

    def loss(
        self,
        *,
        start: Tensor,
        target: Tensor,
        images: Tensor,
        labels: Tensor,
        alpha: float,
        chunks: Sequence[Chunk],
    ) -> float:
        """Return the matching loss alone; arguments as in a call. It is not finite where the inner loop diverges.

        Cost: N gradients, and memory for two parameter vectors and the graph of one micro-batch.
        """
        task = _Task(start, target, images, self._distributions(images, labels), alpha, chunks)
        (last,) = deque(self._path(task), maxlen=1)
        return float((last - target).square().sum() / (start - target).square().sum())

    @property
    def _curvature(self) -> bool:
        """Whether the way back needs Hessian-vector products."""
        return self.method == "exact"

    def _distributions(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the label distributions of hard or soft labels, [S, C]."""
        if labels.is_floating_point():
            return F.softmax(labels, dim=1)
        return F.one_hot(labels, self.step.network.classes).to(images.dtype)

    def _adjoint(self, task: _Task) -> _Derivatives:
        kept: list[KeptStep] = []
        path = list(self._path(task, kept))
        distance = (task.start - task.target).square().sum()
        difference = path[-1] - task.target
        adjoint = 2 * difference / distance
        along_images, along_distributions = torch.zeros_like(task.images), torch.zeros_like(task.distributions)
        along_alpha = task.start.new_zeros(())
        for theta, chunk in zip(reversed(path[:-1]), reversed(task.chunks), strict=True):
            pixels = task.images[chunk.indices].requires_grad_()
            augmented = self.augmentation.apply(pixels, chunk.draw)
            if kept:
                u, v, r, value = kept.pop().products(adjoint)
            else:
                u, v, r, value = self.step.products(
                    theta, augmented.detach(), self._targets(task, chunk), adjoint, curvature=self._curvature
                )
            (v,) = torch.autograd.grad(augmented, pixels, v) if chunk.draw else (v,)
            along_images[chunk.indices] -= task.alpha * v
            along_distributions[chunk.indices] -= task.alpha / len(chunk.indices) * r
            along_alpha -= value
            adjoint = adjoint - task.alpha * u
        return _Derivatives(difference.square().sum() / distance, along_images, along_distributions, along_alpha)

    def _path(self, task: _Task, kept: list[KeptStep] | None = None) -> Iterator[Tensor]:
        """Yield θ_0 … θ_N; the last `kept_steps` steps are appended to `kept`, if it is given."""
        theta = task.start
        yield theta
        first_kept = len(task.chunks) - self.kept_steps
        for number, chunk in enumerate(task.chunks):
            augmented = self.augmentation.apply(task.images[chunk.indices], chunk.draw)
            targets = self._targets(task, chunk)
            if kept is not None and number >= first_kept:
                kept.append(self.step.kept(theta, augmented, targets, curvature=self._curvature))
                gradient = kept[-1].gradient
            else:
                gradient = self.step.gradient(theta, augmented, targets)
            theta = theta - task.alpha * gradient
            yield theta

    @staticmethod
    def _targets(task: _Task, chunk: Chunk) -> Tensor:
        """Return the weights [B, C] that make the loss the mean over the chunk with its label distributions."""
        return task.distributions[chunk.indices] / len(chunk.indices)

    def _unrolled(self, task: _Task) -> _Derivatives:
        theta = task.start.detach().requires_grad_()
        images, distributions = task.images.detach().requires_grad_(), task.distributions.detach().requires_grad_()
        alpha = task.start.new_tensor(task.alpha).requires_grad_()
        layers = second_order_layers(theta.device, curvature=True)
        for chunk in task.chunks:
            augmented = self.augmentation.apply(images[chunk.indices], chunk.draw)
            targets = distributions[chunk.indices] / len(chunk.indices)
            (gradient,) = torch.autograd.grad(
                self.step.loss(theta, augmented, targets, layers), theta, create_graph=True
            )
            theta = theta - alpha * gradient
        loss = (theta - task.target).square().sum() / (task.start - task.target).square().sum()
        return _Derivatives(loss.detach(), *torch.autograd.grad(loss, (images, distributions, alpha)))
