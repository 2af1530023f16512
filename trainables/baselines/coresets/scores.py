"""Scores of training images by a network in training: the figures by which coresets are chosen.

Source: docs/method.md, "Coresets".

Shape legend: E epochs scored, n training images, B images of a batch, m chosen images, C classes, F features,
P parameters.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.data.datasets import ImageDataset
from trainables.evaluation.training import PREDICTION_BATCH
from trainables.networks.network import Network

__all__ = ["FIGURES", "Dynamics", "features", "gradient_norms", "image_scores"]

FIGURES = ("true_probability", "el2n", "grand", "confidence", "entropy", "margin", "correct")
"""The figures of `Dynamics`, and the keys of `image_scores`."""

_GRADIENTS = 16  # per-image gradients at a time: of Tiny ImageNet's 1.9 million parameters, 124 MB


@dataclass(frozen=True, kw_only=True)
class Dynamics:
    """The scores of all training images in one training run, after every epoch or the last; all tensors on the CPU.

    p is the softmax of an image's logits, q its one-hot label and h its features.
    """

    true_probability: Tensor
    """p at the image's own class, float32 [E, n]."""
    el2n: Tensor
    """‖p − q‖₂, float32 [E, n]."""
    grand: Tensor
    """Norm of the last layer's gradient, ‖p − q‖₂·√(1 + ‖h‖²), float32 [E, n]."""
    confidence: Tensor
    """The largest p, float32 [E, n]."""
    entropy: Tensor
    """−Σ p log p in nats, float32 [E, n]."""
    margin: Tensor
    """The largest p less the second largest, float32 [E, n]."""
    correct: Tensor
    """Whether the largest logit is that of the image's own class, bool [E, n]."""
    theta: Tensor
    """The network's parameters after the last epoch, float32 [P]."""

    @property
    def epochs(self) -> int:
        """E, the number of epochs that were scored."""
        return len(self.correct)


def image_scores(logits: Tensor, hidden: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return the figures of `Dynamics` for one batch, by name: float32 [B] each, `correct` bool [B].

    They are computed in float64 to avoid ties of well learned images, whose p is near 1.

    Args:
        logits: float [B, C].
        hidden: The last layer's input h, float [B, F].
        labels: int64 [B].
    """
    log_p = logits.double().log_softmax(dim=1)
    p = log_p.exp()
    el2n = torch.linalg.vector_norm(p - F.one_hot(labels, logits.shape[1]), dim=1)
    best = p.topk(2, dim=1).values
    scores = {
        "true_probability": p.gather(1, labels.unsqueeze(1)).squeeze(1),
        "el2n": el2n,
        "grand": el2n * (1 + hidden.double().square().sum(dim=1)).sqrt(),
        "confidence": best[:, 0],
        "entropy": -(p * log_p).sum(dim=1),
        "margin": best[:, 0] - best[:, 1],
    }
    return {name: value.float() for name, value in scores.items()} | {"correct": logits.argmax(dim=1) == labels}


@torch.no_grad()
def features(network: Network, theta: Tensor, dataset: ImageDataset, rows: Tensor) -> Tensor:
    """Return the last layer's inputs for training images without augmentation.

    Args:
        network: The network.
        theta: Its parameters, float32 [P]; the result is computed and stored on their device.
        dataset: The dataset of the training split.
        rows: Rows of the training split, int64 [m] on the CPU.

    Returns:
        h, float32 [m, F]: 4·F bytes per image, so pass one class at a time.
    """
    batches = rows.split(PREDICTION_BATCH)
    return torch.cat([network.features(theta, dataset.normalized("train", batch, theta.device)) for batch in batches])


def gradient_norms(network: Network, theta: Tensor, dataset: ImageDataset, rows: Tensor) -> Tensor:
    """Return exact GraNd, the norm ‖∇_θ ℓ‖₂ of the gradient of each training image, float32 [m] on the CPU.

    ℓ is the cross-entropy of the image without augmentation; arguments as in `features`.

    Cost: one gradient per image, 16 at a time; memory for 16 parameter vectors and the graphs of 16 images.
    """

    def norm(image: Tensor, label: Tensor) -> Tensor:
        gradient = torch.func.grad(_loss, argnums=1)(network, theta, image, label)
        length: Tensor = torch.linalg.vector_norm(gradient)
        return length

    labels = dataset.labels("train", rows).to(theta.device)
    norms = torch.func.vmap(norm)
    pieces = zip(rows.split(_GRADIENTS), labels.split(_GRADIENTS), strict=True)
    return torch.cat([norms(dataset.normalized("train", piece, theta.device), of).cpu() for piece, of in pieces])


def _loss(network: Network, theta: Tensor, image: Tensor, label: Tensor) -> Tensor:
    return F.cross_entropy(network.logits(theta, image.unsqueeze(0)), label.unsqueeze(0))
