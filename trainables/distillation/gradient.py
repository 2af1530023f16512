"""DC: images whose parameter gradients match those of real images of their class. docs/method.md, "DC".

Shape legend: S synthetic images, B images of a class, C classes, P parameters, ch channels, H = W side.

    L = Σ_c D(∇_θ ℓ(θ; A_c(x_c)), ∇_θ ℓ(θ; A_c(real_c))),  D(g, h) = Σ_layers Σ_rows (1 − cos(g_row, h_row))

One network serves `outer_loop` updates of the images. After each update but the last, it is trained on the set for
`inner_loop` epochs, so that gradients are matched along its training and not only at its initial parameters.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.data.transfer import moved
from trainables.distillation.inner_step import InnerStep
from trainables.distillation.learned_images import Update
from trainables.distillation.real_matching import RealMatching
from trainables.networks.network import Network
from trainables.seeding import generator

__all__ = ["GradientMatching", "gradient_distance"]

COSINE_EPSILON = 1e-6
"""Added to the product of the norms, as in the reference code."""


def gradient_distance(network: Network, one: Tensor, other: Tensor) -> Tensor:
    """Return Σ_layers Σ_rows (1 − cos(row, row)) of two gradients [P]; differentiable in both. docs/method.md, "DC".

    A row is what feeds one output: of a convolution [out, in·h·w], of a linear layer [out, in]. Parameters of one
    dimension (biases, norms) are skipped. cos is ⟨a, b⟩ / (‖a‖·‖b‖ + 1e-6), so that a row of zeros counts as 1.
    """
    distance = one.new_zeros(())
    for a, b in zip(network.unflatten(one).values(), network.unflatten(other).values(), strict=True):
        if a.dim() > 1:
            a, b = a.flatten(1), b.flatten(1)
            norms = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
            distance = distance + (1 - (a * b).sum(dim=1) / (norms + COSINE_EPSILON)).sum()
    return distance


class GradientMatching(RealMatching):
    """Gradient matching (DC); it can stop after any iteration and resume bit for bit.

    An iteration is one update of the images, followed by the network's training, so the state includes the network.
    It reads only these settings of a `DistillationConfig`: ipc, batch_real, outer_loop, inner_loop, lr_pixel,
    momentum_pixel, alpha_init and batch_syn (of the network's training), initialization, ema_decay, precision and
    iterations.
    """

    loss_name = "gradient_loss"
    """Name of the loss in a trial's result; the losses of different methods are different quantities."""

    _network: Tensor
    """Parameters [P] that the next iteration starts with, unless it draws a fresh network."""

    def step(self) -> Update:
        """Run one iteration: match gradients class by class, update the images, then train the network on the set."""
        outer, _ = self.config.loops
        theta = self._current()
        proposal = self._proposal(*self.loss_and_gradient())
        if (self.iteration + 1) % outer:  # the last update of a network is followed by another network
            theta = self._trained(theta, proposal.images.values)
        self._network = theta
        return self._accept(proposal)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the distillation depends on, including `network`, the parameters [P]."""
        return {**super().state_dict(), "network": self._current()}

    def loss_and_gradient(self) -> tuple[float, Tensor]:
        """Return this iteration's loss and its gradient in the images, [S, ch, H, W]; nothing is changed.

        The image gradient of a distance D between gradients g and h equals that of ⟨g, ∂D/∂g⟩ with ∂D/∂g fixed, so it
        can be computed in micro-batches.

        Cost: one gradient of every real image of the batches and of every synthetic image, and one second derivative of
        every synthetic image. Memory for the graph of one micro-batch.
        """
        draws = generator(self.seed, "gradient matching", self.iteration)
        theta, step = self._current(), self._inner_step()
        distances, gradients = [], []
        for label, (real, view) in enumerate(self._pairs(draws)):
            synthetic = view.augmented.detach()
            targets, real_targets = (self._targets(self.labels.new_full((len(x),), label)) for x in (synthetic, real))
            goal = step.gradient(theta, real, real_targets)
            own = step.gradient(theta, synthetic, targets).requires_grad_()
            distance = gradient_distance(self.network, own, goal)
            (along_gradient,) = torch.autograd.grad(distance, own)
            _, along, _, _ = step.products(theta, synthetic, targets, along_gradient, curvature=False)
            distances.append(distance.detach())
            gradients.append(view.along_images(along))
        return float(torch.stack(distances).sum()), torch.cat(gradients)

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore(state)
        self._network = state["network"]

    def _current(self) -> Tensor:
        """Return the parameters [P] of this iteration's network."""
        number, update = divmod(self.iteration, self.config.loops[0])
        if update:
            return self._network
        return self.network.initial(generator(self.seed, "gradient matching", "network", number)).to(self.images)

    def _trained(self, theta: Tensor, images: Tensor) -> Tensor:
        """Return a network's parameters [P] after `inner_loop` epochs of plain SGD at rate α on images [S, ch, H, W].

        Every epoch takes all images once, in random batches of `batch_syn`. Every batch has its own augmentation, whose
        parameters differ from image to image.
        """
        draws = generator(self.seed, "gradient matching", self.iteration, "training")
        step, side = self._inner_step(), self.dataset.image_size
        batches = [
            (rows, self.augmentation.draw(len(rows), side, draws))
            for _ in range(self.config.loops[1])
            for rows in torch.randperm(len(images), generator=draws).split(self.config.batch_syn)
        ]
        for rows, draw in moved(batches, images.device):
            augmented = self.augmentation.apply(images[rows], draw)
            theta = theta - self.alpha * step.gradient(theta, augmented, self._targets(self.labels[rows]))
        return theta

    def _targets(self, labels: Tensor) -> Tensor:
        """Return the weights [B, C] that make the loss the mean cross-entropy with labels int64 [B]."""
        return F.one_hot(labels, self.network.classes).to(self.images) / len(labels)

    def _inner_step(self) -> InnerStep:
        return InnerStep(self.network, precision=self.config.precision, micro_batch=self.micro_batch)
