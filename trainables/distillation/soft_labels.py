"""Labels of a synthetic set: hard ones in default order, and DATM's soft ones.

Shape legend: S = ipc·C synthetic images, C classes, ch channels, H = W side, P parameters.
"""

import torch
from torch import Tensor

from trainables.data.labels import default_order_labels
from trainables.evaluation.training import predict_logits
from trainables.experts.store import Trajectories
from trainables.networks.network import Network

__all__ = ["label_inconsistency", "soft_labels"]


def soft_labels(
    initialization: str,
    images: Tensor,
    *,
    network: Network,
    trajectories: Trajectories,
    epoch: int,
    device: torch.device,
) -> Tensor:
    """Return the logits that DATM's soft labels start from, float32 [S, C] on the CPU.

    Source: docs/method.md, "Initial images and soft labels".

    Args:
        initialization: How the images were chosen. `correct`: the label of an image is the mean of the logits of all
            experts that classify it correctly, so that its largest logit is that of its class. If no expert does, which
            DATM's choice of images excludes, it is the logits of expert 0. `real`: the logits of expert 0, whether it
            classifies correctly or not.
        images: The initial images, normalised float32 [S, ch, H, W], in default order.
        network: The experts' network.
        trajectories: The experts.
        epoch: Epoch of the snapshot that labels: the horizon, where DATM takes the last of 100 epochs.
        device: Device of the experts' predictions.
    """
    placed = images.to(device)

    def logits_of(expert: int) -> Tensor:
        theta = trajectories.snapshot(expert, epoch).to(device)
        return predict_logits(network, theta, placed, len(placed))

    first = logits_of(0)
    if initialization == "real":
        return first
    actual = default_order_labels(len(images) // network.classes, network.classes)
    total, count = torch.zeros_like(first), torch.zeros(len(images), 1)
    for expert in range(len(trajectories)):
        logits = logits_of(expert)
        correct = (logits.argmax(dim=1) == actual).unsqueeze(1)
        total += logits * correct
        count += correct
    return torch.where(count > 0, total / count.clamp(min=1), first)


def label_inconsistency(labels: Tensor, ipc: int) -> float:
    """Return the share of images whose soft label, logits [S, C], is largest at another class than their own.

    Source: docs/method.md, "What a review asks for".

    An image's own class is that of the default order, which the challenge uses as its label.
    """
    classes = labels.shape[1]
    return float((labels.argmax(dim=1).cpu() != default_order_labels(ipc, classes)).double().mean())
