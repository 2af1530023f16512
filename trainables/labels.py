"""Labels of a synthetic set."""

import torch
from torch import Tensor

__all__ = ["default_order_labels"]


def default_order_labels(ipc: int, classes: int) -> Tensor:
    """Return hard labels in default order, int64 [ipc·classes]: the label of image i is i // ipc. METHOD §3."""
    return torch.arange(classes).repeat_interleave(ipc)
