"""The ConvNet with batch norm in place of the instance norm, and its training: SRe2L's squeeze.

Source: docs/method.md, "ConvNet" and "SRe2L".

Shape legend: B images, C classes, ch channels, H = W side, D depth, F width, P parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.networks.convnet import ConvNet
from trainables.networks.layers import NORM_EPSILON

__all__ = ["BatchNormConvNet"]

RUNNING_MOMENTUM = 0.1  # torch.nn.BatchNorm2d's: share of a batch in the running statistics


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchNormConvNet:
    """A trained network; as a callable, a teacher or observer: normalised images [B, ch, H, W] to logits [B, C]."""

    shape: ConvNet
    """The ConvNet whose instance norms are replaced by batch norms; it defines the layout of `theta`."""
    theta: Tensor
    """Parameters, float [P]."""
    means: Tensor
    """Running means of the batch norms' inputs, float [D, F]."""
    variances: Tensor
    """Running variances of these inputs, float [D, F]: unbiased, as in torch.nn.BatchNorm2d."""

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return logits [B, C] of images [B, ch, H, W] on the device of the parameters, without a graph."""
        return self.observed(images)[0]

    def observed(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return logits [B, C] and the inputs of the D batch norms, D tensors [B, F, side, side].

        The norms use the running statistics, so an image's result does not depend on the batch. Differentiable in the
        images.
        """
        return forward(self.shape, self.theta, self.means, self.variances, images, training=False)


def forward(
    shape: ConvNet,
    theta: Tensor,
    means: Sequence[Tensor] | Tensor,
    variances: Sequence[Tensor] | Tensor,
    images: Tensor,
    *,
    training: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Return logits [B, C] and the inputs of the D batch norms, D tensors [B, F, side, side].

    Args:
        shape: The network's shape.
        theta: Parameters, float [P].
        means: Running means, D times [F]; updated in place in training.
        variances: Running variances, D times [F]; updated in place in training.
        images: Normalised images [B, ch, H, W].
        training: Whether the norms use the batch's statistics, and update the running ones.
    """
    parameters = shape.unflatten(theta)
    x, norm_inputs = images, []
    for block in range(shape.depth):
        x = F.conv2d(x, parameters[f"conv{block}.weight"], parameters[f"conv{block}.bias"], padding=1)
        norm_inputs.append(x)
        x = F.batch_norm(
            x,
            means[block],
            variances[block],
            parameters[f"norm{block}.weight"],
            parameters[f"norm{block}.bias"],
            training=training,
            momentum=RUNNING_MOMENTUM,
            eps=NORM_EPSILON,
        )
        x = F.avg_pool2d(F.relu(x), 2)
    return F.linear(x.flatten(1), parameters["linear.weight"], parameters["linear.bias"]), norm_inputs
