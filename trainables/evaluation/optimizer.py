"""SGD and AdamW for many networks side by side, and the schedule of their learning rate.

Source: docs/method.md, "Challenge protocol" and "Label regimes".
"""

import math

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from trainables.config.protocol import Protocol

__all__ = ["Optimizer", "learning_rate"]

ADAMW_BETA_2, ADAMW_EPSILON = 0.999, 1e-8  # torch.optim.AdamW's defaults


def learning_rate(protocol: Protocol, epoch: int) -> float:
    """Return the learning rate of an epoch, counted from 0."""
    if protocol.schedule == "cosine":
        return protocol.learning_rate * (1 + math.cos(math.pi * epoch / protocol.epochs)) / 2
    dropped = epoch >= protocol.drop_after_epochs
    return protocol.learning_rate * (protocol.drop_factor if dropped else 1.0)


class Optimizer:
    """SGD or AdamW of parameters [K, P], with the same bits as torch.optim.

    It does not use the classes of torch.optim, because they load the compiler, which costs every process two seconds.
    """

    def __init__(self, protocol: Protocol, theta: Tensor) -> None:
        """Start a protocol's optimiser with zero momentum; `theta` [K, P] is updated in place."""
        self._protocol, self._theta = protocol, theta
        self.velocity = torch.zeros_like(theta)
        self._squares = torch.zeros_like(theta) if protocol.optimizer == "adamw" else torch.empty(0)
        self._steps = torch.zeros(())

    def step(self, gradient: Tensor, rate: float) -> None:
        """Update the parameters by a gradient [K, P], which is overwritten.

        SGD: v ← momentum·v + (∇ + weight_decay·θ), θ ← θ − rate·v.
        """
        protocol, theta = self._protocol, self._theta
        if protocol.optimizer == "adamw":
            adamw(
                [theta], [gradient], [self.velocity], [self._squares], [], [self._steps],
                amsgrad=False, beta1=protocol.momentum, beta2=ADAMW_BETA_2, lr=rate,
                weight_decay=protocol.weight_decay, eps=ADAMW_EPSILON, maximize=False,
            )  # fmt: skip
        else:
            self.velocity.mul_(protocol.momentum).add_(gradient.add_(theta, alpha=protocol.weight_decay))
            theta.sub_(self.velocity, alpha=rate)
