"""Label regimes: where a set's labels come from when networks are trained on it, and the loss they enter. METHOD §6.

`hard`: the class of each image. `soft`: a teacher's logits for each image, computed once. `soft_kd`: a teacher's logits
for each view that a student is shown, after augmentation and CutMix. How the student is trained in each is
`Protocol.regime`; how it is done, `evaluation.training_steps`.

Shape legend: n images of a set, B images of a batch, ch channels, H = W side, C classes, P parameters.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.config import REGIMES, Protocol
from trainables.errors import ConfigError
from trainables.networks import ConvNet

__all__ = [
    "REGIMES",
    "CutMix",
    "Labeller",
    "Labels",
    "Teacher",
    "ViewLabels",
    "check_labels",
    "divergence",
    "full_data_epochs",
    "stored_labels",
    "targets",
    "training_loss",
]

LABEL_BATCH = 256  # images that a teacher labels at a time: those of a prediction

Labeller = Callable[[Tensor], Tensor]
"""Gives the logits [B, C] of normalised images [B, ch, H, W], on their device; a `Teacher` is one."""


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained network that labels images."""

    network: ConvNet
    theta: Tensor
    """Its parameters, float [P]; images must be on their device."""

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return logits [B, C] of normalised images [B, ch, H, W]; nothing can be differentiated through them."""
        return self.network.logits(self.theta, images)


@dataclass(frozen=True, eq=False)
class ViewLabels:
    """In place of a set's labels: the teacher that labels each view of its images as a student is shown it."""

    teacher: Labeller
    images: int
    """Number of images of the set, n."""
    device: torch.device
    """Where the student is trained."""

    def __len__(self) -> int:
        return self.images


Labels = Tensor | ViewLabels
"""What a set is trained with: classes int64 [n], a teacher's logits float [n, C], or the teacher of its views."""


def targets(regime: str, images: Tensor, labels: Tensor, teacher: Labeller | None) -> Labels:
    """Return what a set is trained with in a regime, beside `Protocol.regime(regime)`.

    Args:
        regime: One of `REGIMES`.
        images: The set, normalised [n, ch, H, W], on the device of teacher and labels.
        labels: Its classes, int64 [n]; in the soft regimes their device alone matters, that of the training.
        teacher: Who labels; None will do where the regime is hard, which asks nobody.

    Raises:
        ConfigError: There is no such regime, no teacher where one is needed, or not a label an image.
    """
    if regime not in REGIMES:
        raise ConfigError(f"a label regime is one of {', '.join(REGIMES)}, not {regime}")
    if len(images) != len(labels):
        raise ConfigError(f"a set has one label an image, not {len(labels)} for {len(images)}; give each image's")
    if regime == "hard":
        return labels
    if teacher is None:
        raise ConfigError(f"the label regime {regime} needs a teacher, not None; give one, or take regime hard")
    if regime == "soft":
        return stored_labels(teacher, images).to(labels.device)
    return ViewLabels(teacher, len(labels), labels.device)


@torch.no_grad()
def stored_labels(teacher: Labeller, images: Tensor) -> Tensor:
    """Return a teacher's logits [n, C] of normalised images [n, ch, H, W], in batches, on the images' device.

    Of images that are not held as float all at once, `evaluation.predict_logits` gives the same.
    """
    return torch.cat([teacher(batch) for batch in images.split(LABEL_BATCH)])


def check_labels(labels: Labels, protocol: Protocol, classes: int) -> None:
    """Refuse labels that a protocol does not train with.

    Raises:
        ConfigError: Soft labels without a temperature, or hard ones with one; soft ones of another shape than [n, C];
            or CutMix where nobody labels what it mixes.
    """
    kind = "a teacher's" if isinstance(labels, ViewLabels) else f"{labels.dtype} {list(labels.shape)}"
    if protocol.temperature is None and (isinstance(labels, ViewLabels) or labels.is_floating_point()):
        raise ConfigError(
            f"labels must be classes, int64 [n], where the protocol has no temperature, not {kind}; set a temperature"
        )
    if isinstance(labels, ViewLabels):
        return
    if protocol.cutmix:
        raise ConfigError(
            f"labels must be a teacher's of each view where the protocol mixes images, not {kind}; "
            "give ViewLabels or set cutmix to False"
        )
    soft = labels.is_floating_point() and labels.shape[1:] == (classes,)
    if protocol.temperature is not None and not soft:
        raise ConfigError(
            f"labels must be logits, float [n, {classes}], where the protocol has a temperature, not {kind}; "
            "set temperature to None to train with classes"
        )


def training_loss(logits: Tensor, labels: Tensor, temperature: float | None) -> Tensor:
    """Return the mean loss of logits [B, C]: cross-entropy with classes int64 [B], or `divergence` from logits [B, C].

    Args:
        logits: The student's.
        labels: Classes, or the teacher's logits.
        temperature: None for classes; else that of the divergence.
    """
    if temperature is None:
        return F.cross_entropy(logits, labels)
    return divergence(logits, labels.to(logits), temperature)


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the mean over images of KL(softmax(teacher/T) ‖ softmax(student/T)), of logits [B, C] each. METHOD §6.

    Without the factor T² that keeps gradients comparable among temperatures, as in RDED's and SRe2L's code. AdamW's
    step does not know the loss's scale but through its ε, and its weight decay is apart from the gradient.
    """
    student, teacher = (F.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


@dataclass(frozen=True)
class CutMix:
    """One draw of CutMix, with one box for a whole batch, as RDED and SRe2L have it. METHOD §6.

    With a share λ ~ Beta(1, 1) to be kept, the box has sides of 2·⌊c/2⌋ pixels with c = ⌊H·√(1 − λ)⌋, around a centre
    uniform in the image, and is cut at its borders. It shows another image of the batch.
    """

    partners: Tensor
    """Whose pixels an image's box shows, a permutation of the batch: int64 [B]."""
    rows: slice
    columns: slice

    @classmethod
    def draw(cls, batch: int, side: int, generator: torch.Generator) -> "CutMix":
        """Draw for `batch` images of `side` pixels."""
        kept = float(torch.rand((), generator=generator))  # Beta(1, 1) is the uniform distribution
        half = int(side * math.sqrt(1 - kept)) // 2
        row, column = torch.randint(side, (2,), generator=generator).tolist()
        rows, columns = (slice(max(0, centre - half), min(side, centre + half)) for centre in (row, column))
        return cls(torch.randperm(batch, generator=generator), rows, columns)

    def apply(self, images: Tensor) -> Tensor:
        """Return images [B, ch, H, W] with the box of each from its partner, as a fresh tensor."""
        mixed = images.clone()
        mixed[:, :, self.rows, self.columns] = images[:, :, self.rows, self.columns][self.partners]
        return mixed


def full_data_epochs(epochs: int, images: int, training_images: int) -> float:
    """Return the compute budget K of a training in epochs over the real training set. METHOD §6, "Compute budget".

    K = epochs · n / |D|: as many images are seen as in so many epochs on all of them. It belongs beside every accuracy.

    Args:
        epochs: Epochs on the set.
        images: Images of the set, n = IPC · C.
        training_images: Images of the real training set, |D|.
    """
    return epochs * images / training_images
