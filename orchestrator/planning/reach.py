"""How far N steps of α go beside M epochs of an expert, in steps · learning rate, from the settings alone."""

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["reach_text"]


def reach_text(point: Mapping[str, Any], train_images: int) -> str:
    """Return N · α against M epochs of an expert, in words; with alpha_init=auto the α at which they are equal.

    Gradients on a few images are larger and shrink sooner than on all, so that the best α is mostly smaller than that.

    Args:
        point: A resolved point of a space.
        train_images: Images that an expert is trained on.
    """
    N, M, rate, alpha = (point[name] for name in ("N", "M", "expert_lr", "alpha_init"))
    steps = math.ceil(train_images / point["expert_batch_size"])
    far = M * steps * rate
    epochs = f"M = {M} expert epochs, {M} · {steps} steps · {rate:g} = {far:.3g}"
    if isinstance(alpha, str):
        return f"N = {N} steps go as far as {epochs}, at α = {far / N:.2g}; {alpha} measures which α comes nearest"
    return f"N · α = {N} · {alpha:g} = {N * alpha:.3g} goes {N * alpha / far:.2g} times as far as {epochs}"
