"""Training experts: (G)SAM or SGD on real images, one snapshot per epoch, one or several experts at a time.

Source: docs/method.md, "Experts".

Shape legend: K experts at once, P parameters, B images in a batch, n training images.

An epoch depends only on its start, the seed, the expert's number and the epoch's number: an expert extended later has
the trajectory of uninterrupted training. On a CPU, where experts are trained one at a time, it is equal bit for bit;
experts trained side by side see the same batches and draws, and differ by rounding alone.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.at_once import double_while_worthwhile, measured_once
from trainables.config.experts import ExpertRecipe
from trainables.data.augmentation import Augmentation, Draw
from trainables.data.datasets import ImageDataset
from trainables.data.transfer import moved
from trainables.networks.network import Network, network_identity
from trainables.seeding import generator

__all__ = ["DivergedExpert", "ExpertState", "ExpertTrainer", "experts_at_once", "fits_gpu", "gsam_direction"]

PROBE_SHARE, RESIDENT_SHARE = 0.8, 0.25
"""Shares of an actor's GPU memory: what the probe's steps may take, and what the training images may take."""
COPIED_AT_ONCE = 2048
"""Images that are copied to a GPU at a time."""

_Gradient = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class DivergedExpert(RuntimeError):
    """An expert's parameters or loss are no longer finite."""


@dataclass(frozen=True)
class ExpertState:
    """An expert between two epochs; no other object shares its tensors."""

    theta: Tensor
    """Parameters, float32 [P]."""
    velocity: Tensor
    """SGD's momentum buffer, float32 [P]."""
    epoch: int
    """Epochs trained so far."""
    loss: float
    """Mean training loss over the last epoch; NaN before the first."""


@dataclass(frozen=True)
class _Batch:
    """The training images of a step, and how they are augmented."""

    rows: Tensor
    """int64 [B] on the CPU, from which images are read."""
    placed_rows: Tensor
    """The same on the device."""
    draw: Draw | None
    """Its values lie on the device."""


@dataclass(frozen=True, kw_only=True)
class ExpertTrainer:
    """Trains experts on the training split of a dataset."""

    dataset: ImageDataset
    network: Network
    recipe: ExpertRecipe
    augmentation: Augmentation
    seed: int
    device: torch.device
    resident: bool = False
    """Whether all training images are kept on the device, as uint8; otherwise each batch is copied to it."""

    def start(self, expert: int) -> ExpertState:
        """Return expert number `expert` before its first epoch."""
        theta = self.network.initial(generator(self.seed, "expert", expert, "initial")).to(self.device)
        return ExpertState(theta, torch.zeros_like(theta), 0, float("nan"))

    def train_epoch(self, expert: int, state: ExpertState) -> ExpertState:
        """Return the expert one epoch later; the given state is not changed.

        Raises:
            DivergedExpert: The parameters or the loss are no longer finite; the message names expert, seed and epoch.
        """
        (result,) = self.train_epoch_together([expert], [state])
        if isinstance(result, DivergedExpert):
            raise result
        return result

    def train_epoch_together(
        self, experts: Sequence[int], states: Sequence[ExpertState]
    ) -> list[ExpertState | DivergedExpert]:
        """Return K experts one epoch later; the given states may be at different epochs and are not changed.

        One expert uses plain autograd; several run side by side with `torch.func.vmap` (tested on a CPU; no GPU was
        available). For an expert that diverges the result is its error; the other experts are not affected.
        """
        draws = [
            generator(self.seed, "expert", expert, "epoch", state.epoch)
            for expert, state in zip(experts, states, strict=True)
        ]
        images = len(self.dataset.split("train"))
        drawn = [self._drawn(torch.randperm(images, generator=draw), draw) for draw in draws]
        theta, velocity = _stack([state.theta for state in states]), _stack([state.velocity for state in states])
        total_loss = torch.zeros(len(experts), device=self.device)
        for batches in zip(*drawn, strict=True):
            theta, velocity, loss = self._step(theta, velocity, batches)
            total_loss += loss * len(batches[0].rows)
        mean_loss = (total_loss / images).tolist()
        finite = torch.isfinite(theta).all(dim=1).tolist()
        later = [
            ExpertState(theta[k].clone(), velocity[k].clone(), state.epoch + 1, mean_loss[k])
            for k, state in enumerate(states)
        ]
        return [
            state if finite[k] and math.isfinite(state.loss) else self._diverged(expert, state.epoch)
            for k, (expert, state) in enumerate(zip(experts, later, strict=True))
        ]

    def seconds_per_step(self, at_once: int) -> float:
        """Measure the seconds per expert of a full batch's step of `at_once` experts: median of 3 after a warm-up."""
        states = [self.start(expert) for expert in range(at_once)]
        theta, velocity = _stack([state.theta for state in states]), _stack([state.velocity for state in states])
        draws = [generator(self.seed, "probe", expert) for expert in range(at_once)]
        rows = torch.arange(min(self.recipe.expert_batch_size, len(self.dataset.split("train"))))
        seconds = []
        for _ in range(4):
            began = time.perf_counter()
            batches = [self._drawn(rows, draw)[0] for draw in draws]
            theta, velocity, _ = self._step(theta, velocity, batches)
            float(theta.sum())  # waits for the device
            seconds.append(time.perf_counter() - began)
        return statistics.median(seconds[1:]) / at_once

    def _diverged(self, expert: int, epoch: int) -> DivergedExpert:
        return DivergedExpert(
            f"expert {expert} (seed {self.seed}) diverged in epoch {epoch}: its parameters or its loss are not "
            f"finite; lower expert_lr ({self.recipe.expert_lr}) or sam_rho ({self.recipe.sam_rho})"
        )

    def _drawn(self, order: Tensor, draws: torch.Generator) -> list[_Batch]:
        """Return the batches of training rows [n] in this order, drawn and sent to the device before the first step."""
        side = self.dataset.image_size
        pieces = order.split(self.recipe.expert_batch_size)
        drawn = [(rows, self.augmentation.draw(len(rows), side, draws)) for rows in pieces]
        placed = moved(drawn, self.device)
        return [_Batch(rows, *there) for rows, there in zip(pieces, placed, strict=True)]

    def _step(self, theta: Tensor, velocity: Tensor, batches: Sequence[_Batch]) -> tuple[Tensor, Tensor, Tensor]:
        """Return parameters and momentum buffers, [K, P], after a step on K batches, and losses [K] before it."""
        images = _stack([self._images(batch) for batch in batches])
        labels = _stack([self._labels[batch.placed_rows] for batch in batches])
        loss, direction = self._directions(theta, images, labels)
        velocity = self.recipe.expert_momentum * velocity + (direction + self.recipe.expert_weight_decay * theta)
        return theta - self.recipe.expert_lr * velocity, velocity, loss

    def _images(self, batch: _Batch) -> Tensor:
        """Return the augmented images [B, ch, H, W] of a batch, on the device."""
        if self.resident:
            images = self.dataset.normalize(self._pixels[batch.placed_rows])
        else:
            images = self.dataset.normalized("train", batch.rows, self.device)
        return self.augmentation.apply(images, batch.draw)

    @cached_property
    def _pixels(self) -> Tensor:
        images = self.dataset.split("train").images
        pixels = torch.empty(images.shape, dtype=torch.uint8, device=self.device)
        for rows in torch.arange(len(images)).split(COPIED_AT_ONCE):  # the whole may not fit into the machine's memory
            pixels[rows[0] : rows[-1] + 1] = self.dataset.pixels("train", rows).to(self.device)
        return pixels

    @cached_property
    def _labels(self) -> Tensor:
        return self.dataset.labels("train").to(self.device)

    def _directions(self, theta: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses [K] at parameters [K, P] and the directions [K, P] that SGD descends."""
        if len(theta) == 1:
            loss, direction = self._direction(self._gradient, theta[0], images[0], labels[0])
            return loss[None], direction[None]
        pair: tuple[Tensor, Tensor] = torch.func.vmap(partial(self._direction, self._traced_gradient))(
            theta, images, labels
        )
        return pair

    def _direction(self, gradient: _Gradient, theta: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss at θ and the direction [P] that SGD descends; both passes use the same batch."""
        loss, plain = gradient(theta, images, labels)
        if self.recipe.expert_optimizer == "sgd":
            return loss, plain
        perturbed = theta + sam_perturbation(theta, plain, self.recipe.sam_rho, adaptive=self.recipe.sam_adaptive)
        return loss, gsam_direction(plain, gradient(perturbed, images, labels)[1], self.recipe.gsam_alpha)

    def _gradient(self, theta: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and its gradient [P]; faster on a CPU than `torch.func`, which decomposes the norm."""
        leaf = theta.detach().requires_grad_()
        loss = self._loss(leaf, images, labels)
        return loss.detach(), torch.autograd.grad(loss, leaf)[0]

    def _traced_gradient(self, theta: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and its gradient [P], under `torch.func.vmap`."""
        gradient, loss = torch.func.grad_and_value(self._loss)(theta, images, labels)
        return loss, gradient

    def _loss(self, theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.network.logits(theta, images), labels)


def _stack(parts: Sequence[Tensor]) -> Tensor:
    """Stack tensors of one shape along a new leading dimension; a single tensor is not copied."""
    return parts[0][None] if len(parts) == 1 else torch.stack(list(parts))


def experts_at_once(trainer: ExpertTrainer, gpu_share: float, folder: Path) -> int:
    """Return how many experts an actor should train side by side.

    On a CPU the result is 1: vmapped experts take more time per expert than experts trained one after the other
    (`python -m benchmarks.experts`). On a GPU it is measured once on a machine, because GPUs differ.

    Args:
        trainer: The trainer of the experts.
        gpu_share: Share of the GPU's memory that the actor has, in (0, 1].
        folder: Folder on this machine for what was measured.
    """
    batch = min(trainer.recipe.expert_batch_size, len(trainer.dataset.split("train")))
    if trainer.device.type == "cpu":
        return 1

    def measure() -> int:
        torch.cuda.set_per_process_memory_fraction(PROBE_SHARE * gpu_share)
        at_once = double_while_worthwhile(trainer.seconds_per_step)
        torch.cuda.set_per_process_memory_fraction(gpu_share)
        return at_once

    identity = {
        "work": "experts", "network": network_identity(trainer.network), "batch": batch, "gpu_share": gpu_share,
        "optimizer": trainer.recipe.expert_optimizer, "augmentation": list(trainer.augmentation.families),
    }  # fmt: skip
    return measured_once(folder, identity, measure)


def fits_gpu(dataset: ImageDataset, gpu_share: float) -> bool:
    """Return whether the training images, uint8, take at most a quarter of an actor's share of the GPU's memory."""
    _, total = torch.cuda.mem_get_info()
    return dataset.split("train").images.nbytes <= RESIDENT_SHARE * gpu_share * total


def sam_perturbation(theta: Tensor, gradient: Tensor, rho: float, *, adaptive: bool) -> Tensor:
    """Return e, [P]: ρ·θ²⊙g / (‖|θ|⊙g‖₂ + 1e-12) if adaptive (ASAM), else ρ·g / (‖g‖₂ + 1e-12).

    Source: docs/method.md, "Experts", step 2.

    The norm is over all parameters at once. ASAM does not move a parameter that is 0, such as a norm's initial bias.
    """
    if adaptive:
        scaled = theta.square() * gradient
        return scaled.mul(rho / (torch.linalg.vector_norm(theta.abs() * gradient) + 1e-12))
    return gradient.mul(rho / (torch.linalg.vector_norm(gradient) + 1e-12))


def gsam_direction(gradient: Tensor, perturbed_gradient: Tensor, alpha: float) -> Tensor:
    """Return GSAM's descent direction d = g_s − α·v, [P], with v the part of g orthogonal to g_s.

    Source: docs/method.md, "Experts", steps 4 and 5.

    v = g − cos(g, g_s)·‖g‖·g_s/‖g_s‖ is written as g − (g·g_s / ‖g_s‖²)·g_s, the same with one norm less. (The
    reference code adds 1e-12 to the product of the norms, which is noticeable where both are below about 1e-5.)
    """
    square = perturbed_gradient.square().sum()
    along = torch.dot(gradient, perturbed_gradient) / square.clamp_min(1e-24)
    return perturbed_gradient - alpha * (gradient - along * perturbed_gradient)
