"""CA2D: RDED on the images with the highest CAD-Prune scores, in place of random ones. docs/method.md, "CAD-Prune".

Shape legend: n training images, C classes, ch channels, H = W side.
"""

import torch
from torch import Tensor

from trainables.baselines.coresets import cad_prune
from trainables.baselines.materials import Materials
from trainables.baselines.rded import condense, in_key_order
from trainables.data.datasets import ImageDataset
from trainables.errors import ConfigError
from trainables.evaluation.regimes import Labeller

__all__ = ["ca2d", "highest_pools", "make"]


def ca2d(
    dataset: ImageDataset,
    observer: Labeller,
    cad_scores: Tensor,
    ipc: int,
    seed: int,
    *,
    pool: int = 300,
    crops: int = 5,
    factor: int = 1,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return CA2D's set, normalised float32 [ipc·C, ch, H, W] on the CPU, in default order.

    Source: docs/method.md, "CAD-Prune".

    `rded.condense` describes the algorithm, its errors and its cost. The set does not depend on the order of the
    training rows, if the scores are in the same order.

    Args:
        dataset: The images come from its training split.
        observer: Scores the crops.
        cad_scores: CAD-Prune's score of each training image, float [n]; the highest of each class make its pool.
        ipc: Images per class.
        seed: Seed of the crops, and of the order of equal scores.
        pool: Images of each class in the pool; all images of a class that has fewer.
        crops: Random crops of each image.
        factor: Crops along a side of a new image.
        device: Device of the observer.
    """
    pools = highest_pools(dataset, cad_scores, pool, seed)
    return condense(dataset, observer, pools, ipc, seed, crops=crops, factor=factor, device=device)


def highest_pools(dataset: ImageDataset, scores: Tensor, pool: int, seed: int) -> list[Tensor]:
    """Return the training rows with the highest scores of each class, int64 [at most pool] each, in descending order.

    The images' content and the seed decide the order of equal scores.

    Args:
        dataset: The training split that was scored is its own.
        scores: Score of each training image, float [n].
        pool: Maximum number of rows of each class.
        seed: Seed of the order of equal scores.

    Raises:
        ConfigError: There is not one score per image, a score is NaN, or `pool` is below 1.
    """
    images = len(dataset.split("train"))
    if scores.shape != (images,) or bool(scores.isnan().any()):
        raise ConfigError(
            f"CA2D needs a number as score of each of {images} training images, not {list(scores.shape)} scores with "
            f"{int(scores.isnan().sum())} that are none: score this dataset's training split"
        )
    if pool < 1:
        raise ConfigError(f"pool must be at least 1, not {pool}")
    return [rows[scores[rows].argsort(descending=True, stable=True)[:pool]] for rows in in_key_order(dataset, seed)]


POOL, POOL_SHARE = 300, 0.6
"""Images of a class from which CA2D takes crops: 300, which is 0.6 of a class of CIFAR-100; of smaller classes, 0.6."""


def make(materials: Materials, ipc: int) -> Tensor:
    """Return CA2D's set as the baseline of a sweep; see `Baseline`."""
    dataset = materials.dataset
    scores = cad_prune.scores(materials.evidence, ipc, materials.seed)
    smallest = int(dataset.labels("train").bincount(minlength=dataset.classes).min())
    pool = max(ipc, min(POOL, round(POOL_SHARE * smallest)))
    return ca2d(dataset, materials.teacher, scores, ipc, materials.seed, pool=pool, device=materials.device)
