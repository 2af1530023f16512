"""CA2D: RDED on the images that CAD-Prune thinks most of, in place of random ones. METHOD §6.

Shape legend: n training images, C classes, ch channels, H = W side.
"""

import torch
from torch import Tensor

from trainables.coresets.rded import condense, in_key_order
from trainables.datasets import ImageDataset
from trainables.errors import ConfigError
from trainables.regimes import Labeller

__all__ = ["ca2d", "highest_pools"]


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
    """Return CA2D's set, normalised float32 [ipc·C, ch, H, W] on the CPU, in default order. METHOD §6.

    What is done, errors and cost: `rded.condense`. The set does not depend on the order of the training rows, if the
    scores go with them.

    Args:
        dataset: Where the images come from: its training split.
        observer: Scores the crops.
        cad_scores: CAD-Prune's score of each training image, float [n]; the highest of each class make its pool.
        ipc: Images per class.
        seed: Names the crops, and the order of equal scores.
        pool: Images of each class in the pool; of a class that has fewer, all.
        crops: Random crops of each image.
        factor: Crops along a side of a new image.
        device: Where the observer is.
    """
    pools = highest_pools(dataset, cad_scores, pool, seed)
    return condense(dataset, observer, pools, ipc, seed, crops=crops, factor=factor, device=device)


def highest_pools(dataset: ImageDataset, scores: Tensor, pool: int, seed: int) -> list[Tensor]:
    """Return the training rows with the highest scores of each class, int64 [at most pool] each, from the highest down.

    Equal scores go in an order that the images' content and the seed decide.

    Args:
        dataset: Has the training split that was scored.
        scores: Score of each training image, float [n].
        pool: Rows of each class at most.
        seed: Names the order of equals.

    Raises:
        ConfigError: There is not one score an image, one is no number, or `pool` is below 1.
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
