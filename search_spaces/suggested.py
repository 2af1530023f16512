"""Settings of a search on one's own data, from its sizes alone: docs/design/method.md, "Settings for your own data".

How far experts go is measured in steps · learning rate. An epoch of the papers' experts has 196 steps at .01 and goes
about 2. With fewer images it has fewer steps, so that smaller batches and a larger rate keep it near 1. N follows from
how far M epochs go, and α is found before each trial (alpha_init=auto).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from search_spaces.dimensions import Dimension, Fixed, Integer, Real

__all__ = ["SuggestedSpace", "suggested"]

LARGEST_STEP = 0.1
"""α at which N steps go as far as M epochs, unless N is at a bound: few images are fitted in a few larger steps."""
SOURCE = "from the data's size"


@dataclass(frozen=True)
class SuggestedSpace:
    """The parameters of a search that suit a dataset."""

    parameters: Mapping[str, Dimension]
    """A dimension for every key that such a space sets, in the vocabulary's names. The `repr` of a dimension is its
    source text in a file that imports Fixed, Integer and Real from `search_spaces`."""
    steps_per_epoch: int
    """Steps of an expert's epoch."""
    epoch_reach: float
    """How far an epoch of an expert goes, in steps · learning rate; N · α of a trial has the same unit."""


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """What a sweep of this size can afford."""

    images: float
    """Training images, validation apart, up to which the scale holds."""
    net_width: int
    """Of images of up to 32 pixels a side."""
    least_width: int
    """Of larger images."""
    expert_count: int
    horizon_epochs: int
    most_matched: int
    """Largest M, in epochs."""
    trials: int
    iterations: int
    validation_every_iterations: int
    first_rung_iterations: int
    validation_share: float
    validation_networks: int
    validation_epochs: int
    protocol_epochs: int
    full_data_epochs: int
    final_networks: int
    final_seeds: int


# fmt: off
_SCALES = (
    _Scale(images=1500, net_width=32, least_width=16, expert_count=4, horizon_epochs=12, most_matched=2,
           trials=6, iterations=60, validation_every_iterations=20, first_rung_iterations=20,
           validation_share=0.2, validation_networks=2, validation_epochs=200,
           protocol_epochs=300, full_data_epochs=20, final_networks=3, final_seeds=2),
    _Scale(images=15_000, net_width=32, least_width=16, expert_count=4, horizon_epochs=10, most_matched=2,
           trials=8, iterations=60, validation_every_iterations=20, first_rung_iterations=20,
           validation_share=0.1, validation_networks=2, validation_epochs=200,
           protocol_epochs=500, full_data_epochs=10, final_networks=3, final_seeds=2),
    _Scale(images=math.inf, net_width=128, least_width=128, expert_count=20, horizon_epochs=44, most_matched=4,
           trials=40, iterations=2000, validation_every_iterations=200, first_rung_iterations=400,
           validation_share=0.1, validation_networks=1, validation_epochs=300,
           protocol_epochs=1001, full_data_epochs=100, final_networks=5, final_seeds=3),
)
"""For two cores: the first for some minutes, the second for a quarter of an hour. The third is for a GPU."""
# fmt: on


def suggested(*, train_images: int, classes: int, image_size: int, channels: int, ipc: int) -> SuggestedSpace:
    """Return the parameters of a search that suit a dataset; every key without one keeps its default.

    Args:
        train_images: Images of the training split, before a validation split is taken from it.
        classes: Number of classes.
        image_size: Height and width in pixels, after resizing.
        channels: 1 for grey, 3 for RGB.
        ipc: Images per class to distil.
    """
    scale = next(each for each in _SCALES if train_images * (1 - each.validation_share) <= each.images)
    kept = max(1, round(train_images * (1 - scale.validation_share)))
    batch = _power_of_two(kept / 64, least=16, most=256)
    steps = math.ceil(kept / batch)
    rate = _rounded(min(0.05, max(0.01, 1 / steps)))
    epoch_reach = steps * rate
    far = scale.most_matched * epoch_reach
    N = min(80, max(10, round(far / LARGEST_STEP)))
    rest = scale.horizon_epochs - scale.most_matched
    minus, growth = rest // 4, rest // 5
    width = rest - minus - growth
    set_pixels = ipc * classes * channels * image_size**2
    pixel_rate = _rounded(30 * (set_pixels / 640) ** 0.7)
    as_far = f"steps of α = {far / N:.2g} go as far as {scale.most_matched} epochs of {steps} expert steps of {rate:g}"
    parameters: dict[str, Dimension] = {
        "N": Integer(max(1, N // 2), N + N // 2, first=N, source=as_far),
        "M": Integer(1, scale.most_matched, first=scale.most_matched, source=SOURCE),
        "T_minus": Integer(0, minus, first=0, source="early ranges suit few images"),
        "T_width": Integer(1, width, first=max(1, width // 2), source="within the horizon"),
        "T_growth": Integer(0, growth, first=growth, source="within the horizon"),
        "interval": Fixed(max(1, scale.iterations // (2 * growth)), source="the range has grown at half time"),
        "lr_pixel": Real(pixel_rate / 3, pixel_rate * 10, first=pixel_rate,
                         source="grows with the pixels of the set, from 30 for the digits to 10,000 for Tiny ImageNet",
                         log=True),
        "lr_alpha": Real(1e-3, 1e-1, first=1e-2, log=True, source="of log α, so the same for every α"),
        "alpha_init": Fixed("auto", source="found from the experts before a trial begins"),
        "alpha_update": Fixed("log", source="α stays positive"),
        "batch_syn": Fixed(min(ipc * classes, 500), source="the whole set, up to 500 images"),
        "max_matching_loss": Fixed(1.2, source="the first loss is below about 1 where α is found"),
        "ipc": Fixed(ipc, source="given"),
        "iterations": Fixed(scale.iterations, source=SOURCE),
        "expert_count": Fixed(scale.expert_count, source=SOURCE),
        "horizon_epochs": Fixed(scale.horizon_epochs, source="the largest T_plus + M of this space"),
        "expert_lr": Fixed(rate, source=f"{steps} steps of it are an epoch of about the papers' length"),
        "expert_batch_size": Fixed(batch, source=f"{steps} steps an epoch"),
        "validation_share": Fixed(scale.validation_share, source=SOURCE),
        "net_depth": Fixed(_depth(image_size), source="the last block sees 3 to 7 pixels a side"),
        "net_width": Fixed(max(scale.least_width, scale.net_width // max(1, image_size // 32)), source=SOURCE),
        "protocol_epochs": Fixed(scale.protocol_epochs, source=SOURCE),
        "validation_epochs": Fixed(scale.validation_epochs, source=SOURCE),
        "validation_networks": Fixed(scale.validation_networks, source=SOURCE),
        "final_networks": Fixed(scale.final_networks, source=SOURCE),
        "final_seeds": Fixed(scale.final_seeds, source=SOURCE),
        "full_data_epochs": Fixed(scale.full_data_epochs, source=SOURCE),
        "baselines": Fixed("random,k_center", source="ours: the cheapest two"),
        "trials": Fixed(scale.trials, source=SOURCE),
        "validation_every_iterations": Fixed(scale.validation_every_iterations, source=SOURCE),
        "first_rung_iterations": Fixed(scale.first_rung_iterations, source=SOURCE),
        "reduction_factor": Fixed(2, source="few trials"),
    }  # fmt: skip
    return SuggestedSpace(parameters, steps, epoch_reach)


def _depth(image_size: int) -> int:
    """Return blocks of a ConvNet, each of which halves the side."""
    return min(5, max(1, round(math.log2(image_size / 4))))


def _power_of_two(number: float, *, least: int, most: int) -> int:
    """Return the largest power of two that is at most `number`, within bounds."""
    return min(most, max(least, 1 << math.floor(math.log2(max(1, number)))))


def _rounded(number: float) -> float:
    """Return a number to two significant digits."""
    return float(f"{number:.2g}")
