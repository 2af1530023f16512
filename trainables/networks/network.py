"""The interface of every network, ours or a user's: a function of one flat parameter vector.

Shape legend: B images, C classes, ch channels, F features, H = W image side, P parameters.
"""

from dataclasses import asdict
from typing import Any, Protocol

import torch
from torch import Tensor

from trainables.networks.convnet import ConvNet

__all__ = ["MakeNetwork", "Network", "network_identity"]


class Network(Protocol):
    """A network's shape; its parameters are a separate float vector [P].

    A network is a frozen dataclass: equal instances are the same function. Its last layer is linear, with parameters
    `linear.weight` [C, F] and `linear.bias` [C], which coresets read. It has no state (unlike batch norm), and `logits`
    has second derivatives, which trajectory matching needs.
    """

    @property
    def channels(self) -> int:
        """Channels of an image."""

    @property
    def image_size(self) -> int:
        """Side of a square image, in pixels."""

    @property
    def classes(self) -> int:
        """Number of classes."""

    @property
    def layout(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Names and shapes of the parameters, in the order in which they lie in the flat vector."""

    @property
    def sizes(self) -> list[int]:
        """Number of elements of each parameter of `layout`."""

    @property
    def parameters(self) -> int:
        """P, the length of the flat parameter vector."""

    @property
    def outputs(self) -> int:
        """Number of values that the layers output for one image; a graph's memory grows with it."""

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """Return the named parameters as views on a flat vector [P]."""

    def initial(self, generator: torch.Generator) -> Tensor:
        """Draw initial parameters, float32 [P] on the CPU, using only this generator."""

    def logits(self, theta: Tensor, images: Tensor) -> Tensor:
        """Return logits [B, C] for parameters [P] and normalised images [B, ch, H, W] of the same float dtype."""

    def features(self, theta: Tensor, images: Tensor) -> Tensor:
        """Return the linear layer's input, [B, F]; arguments as for `logits`."""


class MakeNetwork(Protocol):
    """The implementation of a network: the class itself, or a function."""

    def __call__(self, *, channels: int, image_size: int, classes: int, depth: int, width: int) -> Network:
        """Return the network for images of this shape.

        Args:
            channels: Channels of an image.
            image_size: Side of an image, in pixels.
            classes: Number of classes.
            depth: The setting `net_depth`.
            width: The setting `net_width`.

        Raises:
            ConfigError: The implementation has no network for these values.
        """


def network_identity(network: Network) -> dict[str, Any]:
    """Return what identifies a network, as JSON values: its fields, and its class if that is not ConvNet.

    The module of a class from a user's file is named by the hash of the file's content.
    """
    fields = asdict(network)  # type: ignore[call-overload] # every network is a dataclass
    cls = type(network)
    return fields if cls is ConvNet else {**fields, "class": f"{cls.__module__}.{cls.__qualname__}"}
