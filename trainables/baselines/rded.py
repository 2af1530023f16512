"""RDED: images stitched from the random crops of real images that an observer classifies with the least loss.

Source: docs/method.md, "RDED".

Shape legend: n training images, p images of a class's pool, C classes, ch channels, H = W side, s = H / factor.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.baselines.materials import Materials
from trainables.data.datasets import ImageDataset
from trainables.data.image_keys import content_keys, named_keys
from trainables.errors import ConfigError
from trainables.evaluation.regimes import Labeller
from trainables.seeding import generator

__all__ = ["SMALLEST_CROP", "condense", "cut_crops", "draw_crops", "in_key_order", "make", "rded", "stitch"]

SMALLEST_CROP = 0.08
"""Minimum area of a crop as a share of the image's: torchvision's default, which RDED and SRe2L use."""
OBSERVED_AT_ONCE = 256  # crops, as many as the evaluator's images


def rded(
    dataset: ImageDataset,
    observer: Labeller,
    ipc: int,
    seed: int,
    *,
    pool: int = 300,
    crops: int = 5,
    factor: int = 1,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return RDED's set, normalised float32 [ipc·C, ch, H, W] on the CPU, in default order. docs/method.md, "RDED".

    `condense` describes the algorithm, its errors and its cost. The set does not depend on the order of the training
    rows.

    Args:
        dataset: The images come from its training split.
        observer: Scores the crops.
        ipc: Images per class.
        seed: Seed of the choice of images and of their crops.
        pool: Random training images of each class from which crops are taken; all images of a class that has fewer.
        crops: Random crops of each image.
        factor: Crops along a side of a new image: 1 for small images; RDED has 2 for ImageNet.
        device: Device of the observer.
    """
    _require_counts(pool=pool)
    return condense(
        dataset,
        observer,
        [rows[:pool] for rows in in_key_order(dataset, seed)],
        ipc,
        seed,
        crops=crops,
        factor=factor,
        device=device,
    )


@torch.no_grad()
def condense(
    dataset: ImageDataset,
    observer: Labeller,
    pools: Sequence[Tensor],
    ipc: int,
    seed: int,
    *,
    crops: int = 5,
    factor: int = 1,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return a set made of the most realistic crops of the pools' images, float32 [ipc·C, ch, H, W], in default order.

    Source: docs/method.md, "RDED".

    For every image of a class's pool, the crop with the least −log p_y is kept. The ipc·factor² kept crops with the
    least −log p_y become the images of the class, with factor × factor crops each.

    Args:
        dataset: The images come from its training split.
        observer: Scores the crops. A crop smaller than an image is placed in the middle of an image of the mean colour,
            as in RDED's code.
        pools: Training rows of each class, int64 [p] each; their order does not matter.
        ipc: Images per class.
        seed: Seed of the crops, together with the content of each image.
        crops: Random crops of each image.
        factor: Crops along a side of a new image.
        device: Device of the observer.

    Raises:
        ConfigError: A pool is too small, the side cannot be divided, or the observer's logits are not finite.

    Cost: crops · p · C images through the observer; memory for one class's kept crops and 256 images under way.
    """
    _require_counts(ipc=ipc, crops=crops, factor=factor)
    if dataset.image_size % factor:
        raise ConfigError(f"factor must divide the side of {dataset.image_size} pixels, not be {factor}: 1 always does")
    needed = ipc * factor**2
    keys, images = content_keys(dataset, "train"), []
    for label, (name, rows) in enumerate(zip(dataset.class_names, pools, strict=True)):
        if len(rows) < needed:
            raise ConfigError(
                f"class {name!r} has {len(rows)} images to take a crop of, fewer than "
                f"ipc · factor² = {needed}; lower ipc or factor, or raise pool"
            )
        ordered = rows[keys[rows].argsort(stable=True)]
        draws = [generator(seed, "rded", "crops", key) for key in keys[ordered].tolist()]
        best, loss = _best_crops(dataset, observer, ordered, label, draws, crops, dataset.image_size // factor, device)
        images.append(stitch(best[loss.argsort(stable=True)[:needed]], factor))
    return dataset.normalize(torch.cat(images).to(device)).cpu()


def _best_crops(
    dataset: ImageDataset,
    observer: Labeller,
    rows: Tensor,
    label: int,
    draws: Sequence[torch.Generator],
    crops: int,
    side: int,
    device: torch.device | str,
) -> tuple[Tensor, Tensor]:
    """Return the best crop of each of p images, as float32 pixels [p, ch, s, s], and its loss, float64 [p]."""
    best_crops, losses = [], []
    for chunk in torch.arange(len(rows)).split(max(1, OBSERVED_AT_ONCE // crops)):
        boxes = [draw_crops(crops, dataset.image_size, draws[image]) for image in chunk.tolist()]
        cut = cut_crops(dataset.pixels("train", rows[chunk]).float(), torch.stack(boxes), side)
        logits = observer(dataset.normalize(_framed(dataset, cut.flatten(0, 1).to(device))))
        # In double precision: if p_y is near 1, −log p_y is 0 in float32, and all crops would tie.
        loss = F.cross_entropy(logits.cpu().double(), torch.full((len(logits),), label), reduction="none")
        if not bool(torch.isfinite(loss).all()):
            raise ConfigError("the observer's logits must be finite, and they are not: train another")
        loss = loss.view(len(chunk), crops)
        best = loss.argsort(dim=1, stable=True)[:, 0]
        best_crops.append(cut[torch.arange(len(chunk)), best])
        losses.append(loss[torch.arange(len(chunk)), best])
    return torch.cat(best_crops), torch.cat(losses)


def draw_crops(count: int, side: int, draws: torch.Generator, smallest: float = SMALLEST_CROP) -> Tensor:
    """Draw square crops of an image of `side` pixels: top, left and size in pixels, int64 [count, 3].

    As in torchvision's RandomResizedCrop with ratio (1, 1): the area is uniform in [smallest, 1] of the image's area,
    the size is its square root rounded to a pixel, at least 1, and the position is uniform among those that fit.
    """
    area, down, right = torch.rand(3, count, dtype=torch.float64, generator=draws)
    size = (side * (smallest + (1 - smallest) * area).sqrt()).round().clamp(1, side).long()
    room = side - size
    top, left = (torch.minimum((place * (room + 1)).long(), room) for place in (down, right))
    return torch.stack([top, left, size], dim=1)


def cut_crops(pixels: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Return crops of images, resized with antialiasing as in torchvision, float [b, k, ch, side, side].

    Args:
        pixels: Images, float [b, ch, H, H].
        boxes: k crops of each image as returned by `draw_crops`, int64 [b, k, 3].
        side: Pixels along a side of the result.
    """
    images, crops, _ = boxes.shape
    flat = boxes.flatten(0, 1)
    channel = torch.arange(pixels.shape[1])[:, None, None]
    cut = pixels.new_empty(len(flat), pixels.shape[1], side, side)
    for size in flat[:, 2].unique():
        at = (flat[:, 2] == size).nonzero().flatten()
        span = torch.arange(int(size))
        down, right = (flat[at, axis, None] + span for axis in (0, 1))
        windows = pixels[(at // crops)[:, None, None, None], channel, down[:, None, :, None], right[:, None, None, :]]
        cut[at] = F.interpolate(windows, (side, side), mode="bilinear", antialias=True)
    return cut.view(images, crops, *cut.shape[1:])


def _framed(dataset: ImageDataset, patches: Tensor) -> Tensor:
    """Return pixels [m, ch, s, s] in the middle of images [m, ch, H, W] of the dataset's mean colour."""
    side, size = dataset.image_size, patches.shape[-1]
    mean = torch.tensor(dataset.mean, device=patches.device).view(1, -1, 1, 1) * dataset.levels
    framed = mean.repeat(len(patches), 1, side, side)
    first = (side - size) // 2
    framed[:, :, first : first + size, first : first + size] = patches
    return framed


def stitch(patches: Tensor, factor: int) -> Tensor:
    """Return images [m, ch, factor·s, factor·s] of m·factor² crops [m·factor², ch, s, s].

    Image i has crop i top left, crop m + i to the right of it, and so on by rows, as in RDED's code. If crops are
    sorted from best to worst, every image has better and worse ones.
    """
    parts = patches.view(factor, factor, -1, *patches.shape[1:])
    return torch.cat([torch.cat(list(row), dim=-1) for row in parts], dim=-2)


def in_key_order(dataset: ImageDataset, seed: int) -> list[Tensor]:
    """Return the training rows of each class, int64 [m], in a random order decided by their content and the seed."""
    keys = named_keys(content_keys(dataset, "train"), seed, "rded", "pool")
    order = keys.argsort(stable=True)
    labels = dataset.labels("train", order)
    return [order[labels == label] for label in range(dataset.classes)]


def _require_counts(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, not {value}")


def make(materials: Materials, ipc: int) -> Tensor:
    """Return RDED's set as the baseline of a sweep; see `Baseline`."""
    return rded(materials.dataset, materials.teacher, ipc, materials.seed, device=materials.device)
