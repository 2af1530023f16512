"""CIFAR-10: every method at 1, 10 and 50 images per class, with hard and soft labels."""

from search_spaces.comparison import Comparison
from search_spaces.registered.cifar10_ranges import SPACE as CIFAR10
from search_spaces.sources import LABEL_REGIMES, REVIEW
from search_spaces.space import Fixed

SPACE = Comparison(
    name="cifar10_regimes",
    title="What must a distilled CIFAR-10 beat, and what do soft labels hide?",
    dataset="cifar10",
    reference="DM's and DC's own settings, DATM's for 10 images per class with M-DATM's hard labels",
    parameters={
        **CIFAR10.pinned(),
        "ipcs": Fixed("1,10,50", source=f"HT, {LABEL_REGIMES}"),
        "regimes": Fixed("all", source=f"HT, {LABEL_REGIMES}"),
        "repeats": Fixed(5, source=REVIEW),
        "horizon_epochs": Fixed(22, source="T_plus + M"),
    },
    variants={
        "dm": {"method": "distribution", "batch_real": 256, "lr_pixel": 1.0, "iterations": 20_000},
        "dc": {"method": "gradient", "batch_real": 256, "lr_pixel": 0.1, "iterations": 10_000},
        "m_datm": {"method": "trajectory", "lr_pixel": 100.0, "iterations": 10_000},
    },
)
