"""Hard labels in default order."""

import torch
from torch import Tensor

__all__ = ["default_order_labels"]


def default_order_labels(ipc: int, classes: int) -> Tensor:
    """Return hard labels in default order, int64 [ipc·classes]: the label of image i is i // ipc.

    Source: docs/method.md, "Challenge protocol".
    """
    return torch.arange(classes).repeat_interleave(ipc)
