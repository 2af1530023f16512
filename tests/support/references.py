"""Slow, plain references that the tests compare with; no arithmetic here comes from `trainables`."""

from typing import Any

import torch
from torch import Tensor, nn

from trainables.networks.convnet import ConvNet
from trainables.networks.network import Network


def convnet_module(network: Network) -> nn.Sequential:
    """The network, a ConvNet, as PyTorch's own layers, freshly initialised by them."""
    assert isinstance(network, ConvNet)
    layers, inputs, side = [], network.channels, network.image_size
    for _ in range(network.depth):
        layers += [
            nn.Conv2d(inputs, network.width, 3, padding=1),
            nn.GroupNorm(network.width, network.width),
            nn.ReLU(),
            nn.AvgPool2d(2),
        ]
        inputs, side = network.width, side // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs * side * side, network.classes))


def module_of(network: Network, theta: Tensor) -> nn.Sequential:
    """The same layers holding the parameters of a flat vector, in its dtype."""
    module = convnet_module(network).to(theta.dtype)
    nn.utils.vector_to_parameters(theta.clone(), module.parameters())
    return module


def vector_of(module: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(module.parameters()).detach().clone()


def relative_error(actual: Any, expected: Any) -> float:
    """‖actual − expected‖ / ‖expected‖."""
    actual, expected = (torch.as_tensor(value, dtype=torch.float64) for value in (actual, expected))
    return float((actual - expected).norm() / expected.norm())
