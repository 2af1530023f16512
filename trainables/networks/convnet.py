"""The challenge's ConvNet, as a function of one flat parameter vector.

Shape legend: B images, C classes, ch channels, F features, H = W image side, K width, P parameters.

docs/method.md, "ConvNet": depth × [conv3×3 pad 1 with bias → one group a channel (instance) norm, affine → ReLU →
average pool 2], then a linear layer; PyTorch's default initialisation.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.errors import ConfigError
from trainables.networks.depth import check_depth
from trainables.networks.layers import PLAIN, Layers

__all__ = ["ConvNet"]


@dataclass(frozen=True, kw_only=True)
class ConvNet:
    """A ConvNet's shape; its parameters are a separate float vector [P]."""

    channels: int
    """Channels of an image."""
    image_size: int
    """Side of a square image, in pixels."""
    classes: int
    """Number of classes."""
    depth: int = 3
    """Number of convolution blocks; each halves the side."""
    width: int = 128
    """Channels of every block."""

    def __post_init__(self) -> None:
        """Refuse a network whose pooling would leave no pixels."""
        for name in ("channels", "image_size", "classes", "depth", "width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"a ConvNet's {name} must be at least 1, not {getattr(self, name)}")
        check_depth(self.depth, self.image_size)

    @cached_property
    def layout(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Names and shapes of the parameters, in the order in which they lie in the flat vector."""
        entries: list[tuple[str, tuple[int, ...]]] = []
        inputs, side = self.channels, self.image_size
        for block in range(self.depth):
            entries += [
                (f"conv{block}.weight", (self.width, inputs, 3, 3)),
                (f"conv{block}.bias", (self.width,)),
                (f"norm{block}.weight", (self.width,)),
                (f"norm{block}.bias", (self.width,)),
            ]
            inputs, side = self.width, side // 2
        entries += [("linear.weight", (self.classes, self.width * side * side)), ("linear.bias", (self.classes,))]
        return tuple(entries)

    @cached_property
    def sizes(self) -> list[int]:
        """Number of elements of each parameter of `layout`."""
        return [math.prod(shape) for _, shape in self.layout]

    @property
    def parameters(self) -> int:
        """P, the length of the flat parameter vector."""
        return sum(self.sizes)

    @property
    def outputs(self) -> int:
        """Number of values that the convolutions output for one image."""
        return sum(self.width * (self.image_size >> block) ** 2 for block in range(self.depth))

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """Return the named parameters as views on a flat vector [P]."""
        parts = theta.split(self.sizes)
        return {name: part.view(shape) for (name, shape), part in zip(self.layout, parts, strict=True)}

    def initial(self, generator: torch.Generator) -> Tensor:
        """Draw initial parameters, float32 [P], as PyTorch's own layers do.

        Convolution and linear layers: weight and bias uniform in ±1/√fan_in (kaiming-uniform with a = √5); norm layers:
        weight 1, bias 0.
        """
        parts: list[Tensor] = []
        bound = 0.0
        for name, shape in self.layout:
            if name.startswith("norm"):
                parts.append(torch.full(shape, 1.0 if name.endswith("weight") else 0.0))
                continue
            if name.endswith("weight"):
                bound = 1 / math.sqrt(math.prod(shape[1:]))
            parts.append(torch.empty(shape).uniform_(-bound, bound, generator=generator))
        return torch.cat([part.flatten() for part in parts])

    def logits(self, theta: Tensor, images: Tensor, layers: Layers = PLAIN) -> Tensor:
        """Return logits [B, C] for parameters [P] and normalised images [B, ch, H, W] of the same float dtype.

        `layers` may be `second_order_layers` if a gradient of the logits is differentiated again.
        """
        parameters = self.unflatten(theta)
        features = self._features(parameters, images, layers)
        return F.linear(features, parameters["linear.weight"], parameters["linear.bias"])

    def features(self, theta: Tensor, images: Tensor) -> Tensor:
        """Return the linear layer's input, [B, F] with F = width · ⌊H / 2^depth⌋²; arguments as for `logits`."""
        return self._features(self.unflatten(theta), images, PLAIN)

    def _features(self, parameters: dict[str, Tensor], images: Tensor, layers: Layers) -> Tensor:
        x = images
        for block in range(self.depth):
            x = layers.convolution(x, parameters[f"conv{block}.weight"], parameters[f"conv{block}.bias"])
            x = layers.instance_norm(x, parameters[f"norm{block}.weight"], parameters[f"norm{block}.bias"])
            x = F.avg_pool2d(F.relu(x), 2)
        return x.flatten(1)
