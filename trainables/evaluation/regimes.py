"""Label regimes: the source of a set's labels when networks are trained on it, and the loss that uses them.

Source: docs/method.md, "Label regimes".

`hard`: the class of each image. `soft`: a teacher's logits for each image, computed once. `soft_kd`: a teacher's logits
for each view that a student is shown, after augmentation and CutMix. `Protocol.regime` has the student's settings in
each regime; `training.training_steps` trains it.

Shape legend: n images of a set, B images of a batch, ch channels, H = W side, C classes, P parameters.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.config.protocol import REGIMES, Protocol
from trainables.errors import ConfigError
from trainables.networks.network import Network

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
"""Returns the logits [B, C] of normalised images [B, ch, H, W], on their device; for example, a `Teacher`."""


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained network that labels images."""

    network: Network
    theta: Tensor
    """Its parameters, float [P]; images must be on their device."""

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return logits [B, C] of normalised images [B, ch, H, W]; nothing can be differentiated through them."""
        return self.network.logits(self.theta, images)


@dataclass(frozen=True, eq=False)
class ViewLabels:
    """A teacher in place of a set's labels: it labels every view of the images that a student is shown."""

    teacher: Labeller
    images: int
    """Number of images of the set, n."""
    device: torch.device
    """Device of the student's training."""

    def __len__(self) -> int:
        return self.images


Labels = Tensor | ViewLabels
"""Labels of a training on a set: classes int64 [n], a teacher's logits float [n, C], or the teacher of its views."""


def targets(regime: str, images: Tensor, labels: Tensor, teacher: Labeller | None) -> Labels:
    """Return the labels of a training on a set in a regime; its other settings are `Protocol.regime(regime)`.

    Args:
        regime: One of `REGIMES`.
        images: The set, normalised [n, ch, H, W], on the device of teacher and labels.
        labels: Its classes, int64 [n]. In the soft regimes, only their device is used, that of the training.
        teacher: Labels the images in the soft regimes; may be None in the hard regime, which needs no teacher.

    Raises:
        ConfigError: There is no such regime, a soft regime has no teacher, or there is not one label per image.
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

    `training.predict_logits` returns the same for images that are not all in memory as float.
    """
    return torch.cat([teacher(batch) for batch in images.split(LABEL_BATCH)])


def check_labels(labels: Labels, protocol: Protocol, classes: int) -> None:
    """Refuse labels that a protocol does not train with.

    Raises:
        ConfigError: Labels are soft and there is no temperature, or hard and there is one; soft labels have another
            shape than [n, C]; or the protocol has CutMix and no teacher labels the mixed images.
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
        logits: Logits of the student.
        labels: Classes, or logits of the teacher.
        temperature: Temperature of the divergence; None for classes.
    """
    if temperature is None:
        return F.cross_entropy(logits, labels)
    return divergence(logits, labels.to(logits), temperature)


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the mean over images of KL(softmax(teacher/T) ‖ softmax(student/T)), of logits [B, C] each.

    Source: docs/method.md, "Label regimes".

    As in RDED's and SRe2L's code, there is no factor T², which would keep gradients comparable among temperatures. The
    scale of the loss changes AdamW's step only through ε, because weight decay is decoupled from the gradient.
    """
    student, teacher = (F.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


@dataclass(frozen=True)
class CutMix:
    """One draw of CutMix, with one box for a whole batch: docs/method.md, "RDED" and "SRe2L".

    A share λ ~ Beta(1, 1) of the image is kept. The box has sides of 2·⌊c/2⌋ pixels with c = ⌊H·√(1 − λ)⌋ around a
    centre that is uniform in the image, and is clipped at the borders. It shows another image of the batch.
    """

    partners: Tensor
    """Index of the image whose pixels each image's box shows, a permutation of the batch: int64 [B]."""
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
        """Return a new tensor of the images [B, ch, H, W], in which the box of each shows its partner."""
        mixed = images.clone()
        mixed[:, :, self.rows, self.columns] = images[:, :, self.rows, self.columns][self.partners]
        return mixed


def full_data_epochs(epochs: int, images: int, training_images: int) -> float:
    """Return the compute budget K of a training in epochs over the real training set. docs/method.md, "Compute budget".

    K = epochs · n / |D|: the training sees as many images as K epochs on the real training set. Report it beside every
    accuracy.

    Args:
        epochs: Epochs on the set.
        images: Images of the set, n = IPC · C.
        training_images: Images of the real training set, |D|.
    """
    return epochs * images / training_images
