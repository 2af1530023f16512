"""The stratified share of a split that becomes another split."""

import numpy as np

__all__ = ["stratified_mask"]


def stratified_mask(labels: np.ndarray, share: float, seed: int, *, kept: int = 1) -> np.ndarray:
    """Choose `share` of every class of labels int64 [n], rounded, at least one image; return a mask, bool [n].

    numpy guarantees only a bit generator's raw stream for all versions. This function uses that stream, so an upgrade
    does not change the split.

    Args:
        labels: Labels; every class has more than `kept` images.
        share: Share of each class, in (0, 1).
        seed: Part of a format: another seed chooses other images.
        kept: Images of every class that are not chosen, at least.
    """
    keys = np.random.PCG64(seed).random_raw(len(labels))
    mask = np.zeros(len(labels), dtype=bool)
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels))
    for rows in np.split(order, ends[:-1]):
        if len(rows):
            count = min(max(1, round(share * len(rows))), len(rows) - kept)
            mask[rows[np.argsort(keys[rows], kind="stable")[:count]]] = True
    return mask
