"""DM: images whose mean features match those of real images of their class. docs/method.md, "DM".

Shape legend: S synthetic images, B images of a class, F features, P parameters, ch channels, H = W side.

    L = Σ_c ‖ mean ψ(A_c(x_c)) − mean ψ(A_c(real_c)) ‖²

ψ are the features before the last layer of a network that is drawn anew every iteration and never trained. A_c is one
augmentation, the same for the synthetic and the real images of a class.
"""

import torch
from torch import Tensor

from trainables.distillation.learned_images import Update
from trainables.distillation.real_matching import RealMatching
from trainables.seeding import generator

__all__ = ["DistributionMatching"]


class DistributionMatching(RealMatching):
    """Distribution matching (DM); it can stop after any iteration and resume bit for bit.

    It reads only these settings of a `DistillationConfig`: ipc, batch_real, lr_pixel, momentum_pixel, initialization,
    ema_decay, precision and iterations.
    """

    loss_name = "distribution_loss"
    """Name of the loss in a trial's result; the losses of different methods are different quantities."""

    def step(self) -> Update:
        """Run one iteration: draw a network and real images, then update the images by the distribution loss."""
        return self._accept(self._proposal(*self.loss_and_gradient()))

    def loss_and_gradient(self) -> tuple[float, Tensor]:
        """Return this iteration's loss and its gradient in the images, [S, ch, H, W]; nothing is changed.

        Cost: one forward pass of every real image of the batches; two forward passes and one backward pass of every
        synthetic image. Memory for the graph of one micro-batch.
        """
        draws = generator(self.seed, "distribution matching", self.iteration)
        theta = self.network.initial(draws).to(self.images)
        goals, views = [], []
        for real, view in self._pairs(draws):
            goals.append(self._features(theta, real).mean(dim=0))
            views.append(view)
        ipc = self.config.ipc
        synthetic = torch.cat([view.augmented.detach() for view in views])
        means = self._features(theta, synthetic).unflatten(0, (-1, ipc)).mean(dim=1)
        difference = means - torch.stack(goals)
        feature_adjoints = (2 / ipc * difference).repeat_interleave(ipc, dim=0)  # the same for all images of a class
        image_adjoints = self._image_adjoints(theta, synthetic, feature_adjoints).split(ipc)
        gradient = torch.cat([view.along_images(adjoint) for view, adjoint in zip(views, image_adjoints, strict=True)])
        return float(difference.square().sum()), gradient

    @torch.no_grad()
    def _features(self, theta: Tensor, images: Tensor) -> Tensor:
        """Return the features of images [B, ch, H, W], [B, F]."""
        return torch.cat([self.network.features(theta, piece) for piece in self._pieces(images)])

    def _image_adjoints(self, theta: Tensor, images: Tensor, adjoint: Tensor) -> Tensor:
        """Return ∂⟨ψ(x), adjoint⟩/∂x, [B, ch, H, W], for images [B, ch, H, W] and an adjoint [B, F]."""
        gradients: list[Tensor] = []
        for piece, weights in zip(self._pieces(images), self._pieces(adjoint), strict=True):
            leaf = piece.detach().requires_grad_()
            gradients += torch.autograd.grad(self.network.features(theta, leaf), leaf, weights)
        return torch.cat(gradients)

    def _pieces(self, rows: Tensor) -> list[Tensor]:
        return list(rows.split(self.micro_batch or len(rows)))
