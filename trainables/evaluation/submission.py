"""Checks of a submitted image tensor: whether it is normalised like the dataset, and its classes are in default order.

A bare tensor states neither, so both are judged from its values. The criteria refuse only a tensor that is almost
certainly wrong; an uncertain finding becomes a note. Source: docs/method.md, "Challenge protocol".

Shape legend: S = ipc·C submitted images, C classes, ch channels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.config.protocol import Protocol
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset
from trainables.data.labels import default_order_labels
from trainables.errors import SyntheticSetError
from trainables.evaluation.training import predict_logits, train_network
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator

__all__ = ["OrderCheck", "Recognition", "check_normalisation", "check_order", "order_of", "recognise"]

REFERENCE_STEPS, REFERENCE_BATCH, REFERENCE_WIDTH = 200, 256, 64
SURE_SIGMAS = 4.0
NOTED_DEVIATION = 0.4, 4.0


def check_normalisation(images: Tensor, dataset: ImageDataset) -> str | None:
    """Refuse images that were not normalised with the dataset's mean and standard deviation; return a note or None.

    Normalised real images have mean 0 and deviation 1 in each channel; raw images have the dataset's mean and
    deviation. A set is refused as raw, at scale [0, 1] or [0, 255], in two cases: no value is negative; or its mean
    is nearer to the raw mean than to 0, and mean and deviation together fit raw images better. It is refused as
    scaled to ±1 if its values range over exactly [−1, 1]. A deviation far from 1 alone gives only a note, because
    distillation raises contrast and averaging lowers it.

    Args:
        images: float32 [S, ch, H, W].
        dataset: The dataset that the images claim to represent.

    Returns:
        A note about an unusual deviation, or None.

    Raises:
        SyntheticSetError: The values are those of images before normalisation; the message says how to normalise.
    """
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (dataset.mean, dataset.std))
    pixels = images.double().transpose(0, 1).flatten(1)
    low, high = float(pixels.min()), float(pixels.max())
    channel_mean, channel_std = pixels.mean(dim=1), pixels.std(dim=1)
    remedy = (
        "the challenge trains on normalised images: subtract mean "
        f"{_listed(dataset.mean)} and divide by std {_listed(dataset.std)} of pixels in [0, 1]"
    )
    facts = f"values from {low:.3g} to {high:.3g}, mean {_listed(channel_mean.tolist())}"
    for scale in sorted({1, dataset.levels, 255}):
        if _looks_raw(channel_mean / scale, channel_std / scale, mean, std) and scale / 2 < high:
            raise SyntheticSetError(f"the images look unnormalised, as pixels in [0, {scale}] ({facts}); {remedy}")
    if low >= 0:
        raise SyntheticSetError(f"the images look unnormalised: none of their values is negative ({facts}); {remedy}")
    if max(abs(low + 1), abs(high - 1)) < 1e-3:
        raise SyntheticSetError(f"the images look scaled to [−1, 1], which they fill exactly ({facts}); {remedy}")
    deviation = float(channel_std.mean())
    if not NOTED_DEVIATION[0] <= deviation <= NOTED_DEVIATION[1]:
        return (
            f"the images' standard deviation is {deviation:.2g}, where normalised real images have 1; if that is not "
            f"meant, {remedy}"
        )
    return None


def _looks_raw(channel_mean: Tensor, channel_std: Tensor, mean: Tensor, std: Tensor) -> bool:
    """Return whether channel statistics float64 [ch], at scale [0, 1], fit raw images better than normalised ones."""
    tiny = 1e-9

    def misfit(centre: Tensor, deviation: Tensor) -> float:
        """Return the mean over channels of mean² + (log deviation)², which is 0 at mean 0 and deviation 1."""
        return float((centre.square() + deviation.clamp_min(tiny).log().square()).mean())

    nearer = float(channel_mean.mean()) > float(mean.mean()) / 2
    return nearer and misfit((channel_mean - mean) / std, channel_std / std) < misfit(channel_mean, channel_std)


def _listed(values: tuple[float, ...] | list[float]) -> str:
    return "/".join(f"{value:.4g}" for value in values)


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """Predictions on a set by a reference network, briefly trained on real images."""

    logits: Tensor
    """float32 [S, C] on the CPU."""
    accuracy: float
    """The network's accuracy on the validation split, in [0, 1]."""


def recognise(images: Tensor, dataset: ImageDataset, device: torch.device) -> Recognition:
    """Train a small ConvNet for 200 steps of 256 real training images and predict the classes of the set.

    For the challenge's sets, this is less than two per cent of the work of the evaluation that follows.

    Args:
        images: float32 [S, ch, H, W], normalised.
        dataset: Real images; its train and validation splits must be loaded.
        device: Device of the network's training.
    """
    depth = min(3, dataset.image_size.bit_length() - 1)
    network = ConvNet(
        channels=dataset.channels,
        image_size=dataset.image_size,
        classes=dataset.classes,
        depth=depth,
        width=REFERENCE_WIDTH,
    )
    everything = dataset.labels("train")
    rows = torch.randperm(len(everything), generator=generator("order check", "rows"))[
        : REFERENCE_STEPS * REFERENCE_BATCH
    ]
    epochs = -(-REFERENCE_STEPS // -(-len(rows) // REFERENCE_BATCH))
    theta = train_network(
        network,
        lambda index: dataset.normalized("train", rows[index], device),
        everything[rows].to(device),
        protocol=Protocol(epochs=epochs, drop_after_epochs=epochs, batch_size=REFERENCE_BATCH),
        augmentation=Augmentation(),
        seed=0,
    )
    actual = dataset.labels("validation")
    real = predict_logits(network, theta, lambda index: dataset.normalized("validation", index, device), len(actual))
    return Recognition(
        logits=predict_logits(network, theta, lambda index: images[index].to(device), len(images)),
        accuracy=float((real.argmax(dim=1) == actual).double().mean()),
    )


@dataclass(frozen=True, kw_only=True)
class OrderCheck:
    """The share of images that the reference recognises under each order of the classes; chance is 1 / C."""

    default: float
    """Image i shows class i // ipc."""
    interleaved: float
    """Image i shows class i % C."""
    permuted: float
    """Images i·ipc to (i + 1)·ipc − 1 show one class, but not class i: the classes in another order."""
    reference: float
    """The reference's accuracy on real images."""
    verdict: str
    """`default`, `interleaved`, `permuted`, or `unknown`: no order is recognised beyond chance."""


def order_of(recognition: Recognition) -> OrderCheck:
    """Judge the order of a set's classes from the reference's logits [S, C], in consecutive blocks of ipc images.

    Every class has the same number of images, so the mean logit of each class over the set is subtracted first. This
    removes the reference's bias towards some classes on images unlike real ones. An order is recognised if its share of
    agreeing images lies four standard deviations above chance (Poisson counts, S / C expected). The verdict is another
    order than the default if its share is at least twice the default's and at least a quarter of the share of real
    images that the reference recognises.

    Limits: images shuffled one by one cannot be distinguished from images unlike real ones (both are `unknown`); a set
    whose classes are consistent, but each resembles another class, counts as permuted.
    """
    logits = recognition.logits - recognition.logits.mean(dim=0)
    count, classes = logits.shape
    ipc = count // classes
    predicted = logits.argmax(dim=1)
    default = float((predicted == default_order_labels(ipc, classes)).double().mean())
    interleaved = float((predicted == torch.arange(count) % classes).double().mean()) if ipc > 1 else 0.0
    permuted = _permuted_agreement(logits.view(classes, ipc, classes))
    sure = (ipc + SURE_SIGMAS * ipc**0.5) / count
    others = {"interleaved": interleaved, "permuted": permuted}
    best = max(others, key=lambda name: others[name])
    verdict = "unknown"
    if others[best] >= max(sure, 2 * default, recognition.accuracy / 4):
        verdict = best
    elif default >= sure:
        verdict = "default"
    return OrderCheck(
        default=default,
        interleaved=interleaved,
        permuted=permuted,
        reference=recognition.accuracy,
        verdict=verdict,
    )


def _permuted_agreement(logits: Tensor) -> float:
    """Return the share of images that agree with the class matched to their block; logits [C, ipc, C], 0 for ipc = 1.

    One half of every block's images matches blocks with classes: a pair is matched if each is the other's best. The
    other half is counted against this match. Then the halves change roles, so no image is counted by its own match.
    """
    classes, ipc, _ = logits.shape
    if ipc < 2:
        return 0.0
    agreeing = 0
    for first in (0, 1):
        affinity = logits[:, first::2].mean(dim=1)
        best_class, best_block = affinity.argmax(dim=1), affinity.argmax(dim=0)
        mutual = best_block[best_class] == torch.arange(classes)
        predicted = logits[:, 1 - first :: 2].argmax(dim=2)
        agreeing += int(((predicted == best_class[:, None]) & mutual[:, None]).sum())
    return agreeing / (classes * ipc)


def check_order(images: Tensor, dataset: ImageDataset, device: torch.device) -> OrderCheck:
    """Refuse images [S, ch, H, W] whose classes stand in another order than the default; arguments as `recognise`'s.

    Raises:
        SyntheticSetError: Another order is recognised, and the default is not; the message says which.
    """
    check = order_of(recognise(images, dataset, device))
    wrong_orders = {
        "interleaved": f"image i shows class i % {dataset.classes} ({check.interleaved:.0%} recognised)",
        "permuted": f"the classes themselves are in another order ({check.permuted:.0%} recognised)",
    }
    if check.verdict in wrong_orders:
        raise SyntheticSetError(
            f"the images are not in default order, where image i shows class i // {len(images) // dataset.classes}: to "
            f"a classifier of real images ({check.reference:.0%} accurate) {wrong_orders[check.verdict]}, against "
            f"{check.default:.0%} in default order; sort them by class, {dataset.class_names[0]!r} first"
        )
    return check
