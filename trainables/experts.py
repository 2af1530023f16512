"""Training one expert: (G)SAM on real images, one snapshot an epoch. METHOD §1.

Shape legend: P parameters, E epochs, n training images.

An epoch depends on its start, the seed, the expert's number and the epoch's number, and on nothing else: an expert that
is extended later goes on bit for bit as if it had never stopped.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.augmentation import Augmentation
from trainables.config import ExpertRecipe
from trainables.datasets import ImageDataset
from trainables.networks import ConvNet
from trainables.seeding import generator

__all__ = ["DivergedExpert", "ExpertState", "ExpertTrainer", "gsam_direction"]


class DivergedExpert(RuntimeError):
    """An expert's parameters or loss stopped being finite."""


@dataclass(frozen=True)
class ExpertState:
    """An expert between two epochs."""

    theta: Tensor
    """Parameters, float32 [P]."""
    velocity: Tensor
    """SGD's momentum buffer, float32 [P]."""
    epoch: int
    """Epochs trained so far."""
    loss: float
    """Mean training loss over the last epoch; NaN before the first."""


@dataclass(frozen=True, kw_only=True)
class ExpertTrainer:
    """Trains experts on the training split of a dataset."""

    dataset: ImageDataset
    network: ConvNet
    recipe: ExpertRecipe
    augmentation: Augmentation
    seed: int
    device: torch.device

    def start(self, expert: int) -> ExpertState:
        """Return expert number `expert` before its first epoch."""
        theta = self.network.initial(generator(self.seed, "expert", expert, "initial")).to(self.device)
        return ExpertState(theta, torch.zeros_like(theta), 0, float("nan"))

    def train_epoch(self, expert: int, state: ExpertState) -> ExpertState:
        """Return the expert one epoch later; the given state is left as it was.

        Raises:
            DivergedExpert: The parameters are no longer finite; the message names expert, seed and epoch.
        """
        draws = generator(self.seed, "expert", expert, "epoch", state.epoch)
        theta, velocity = state.theta.clone(), state.velocity.clone()
        order = torch.randperm(len(self.dataset.split("train")), generator=draws)
        total_loss = torch.zeros((), device=self.device)
        for index in order.split(self.recipe.expert_batch_size):
            images = self.dataset.normalized("train", index).to(self.device)
            labels = self.dataset.labels("train", index).to(self.device)
            draw = self.augmentation.draw(len(index), self.dataset.image_size, draws)
            images = self.augmentation.apply(images, draw)
            loss, direction = self._direction(theta, images, labels)
            direction = direction + self.recipe.expert_weight_decay * theta
            velocity = self.recipe.expert_momentum * velocity + direction
            theta = theta - self.recipe.expert_lr * velocity
            total_loss += loss * len(index)
        if not torch.isfinite(theta).all():
            raise DivergedExpert(
                f"expert {expert} (seed {self.seed}) diverged in epoch {state.epoch + 1}: its parameters are not "
                f"finite; lower expert_lr ({self.recipe.expert_lr}) or sam_rho ({self.recipe.sam_rho})"
            )
        return ExpertState(theta, velocity, state.epoch + 1, float(total_loss / len(order)))

    def _direction(self, theta: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss at θ and the direction that SGD descends."""

        def gradient(at: Tensor) -> tuple[Tensor, Tensor]:
            leaf = at.detach().requires_grad_()
            loss = F.cross_entropy(self.network.logits(leaf, images), labels)
            return loss.detach(), torch.autograd.grad(loss, leaf)[0]

        loss, plain = gradient(theta)
        if self.recipe.expert_optimizer == "sgd":
            return loss, plain
        perturbed = theta + sam_perturbation(theta, plain, self.recipe.sam_rho, adaptive=self.recipe.sam_adaptive)
        return loss, gsam_direction(plain, gradient(perturbed)[1], self.recipe.gsam_alpha)


def sam_perturbation(theta: Tensor, gradient: Tensor, rho: float, *, adaptive: bool) -> Tensor:
    """Return e, [P]: ρ·θ²⊙g / (‖|θ|⊙g‖₂ + 1e-12) if adaptive (ASAM), else ρ·g / (‖g‖₂ + 1e-12). METHOD §1, step 2."""
    if adaptive:
        scaled = theta.square() * gradient
        return scaled.mul(rho / (torch.linalg.vector_norm(theta.abs() * gradient) + 1e-12))
    return gradient.mul(rho / (torch.linalg.vector_norm(gradient) + 1e-12))


def gsam_direction(gradient: Tensor, perturbed_gradient: Tensor, alpha: float) -> Tensor:
    """Return GSAM's descent direction d = g_s − α·v, [P], with v the part of g orthogonal to g_s. METHOD §1, step 4."""
    square = perturbed_gradient.square().sum()
    along = torch.dot(gradient, perturbed_gradient) / square.clamp_min(1e-24)
    return perturbed_gradient - alpha * (gradient - along * perturbed_gradient)
