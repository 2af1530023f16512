"""CIFAR-10, 10 images per class, around DATM's setting: M-DATM has none for this dataset."""

from search_spaces.sources import DISTILLATION, EXPERTS, PUBLISHED_SETTINGS
from search_spaces.space import Choice, Fixed, Integer, Real, Space

DATM = f"DATM's CIFAR-10 configuration, {PUBLISHED_SETTINGS}"

SPACE = Space(
    name="cifar10_ranges",
    title="Which matching range, steps and learning rates suit CIFAR-10 at 10 images per class?",
    dataset="cifar10",
    reference="DATM's setting for CIFAR-10, 10 images per class, with M-DATM's hard labels",
    parameters={
        "N": Integer(20, 120, first=80, source=DATM),
        "M": Integer(1, 4, first=2, source=DATM),
        "T_minus": Integer(0, 10, first=0, source=DATM),
        "T_width": Integer(1, 20, first=10, source=DATM),
        "T_growth": Integer(0, 10, first=10, source=DATM),
        "interval": Integer(25, 250, first=100, log=True, source=DATM),
        "lr_pixel": Real(1e1, 1e3, first=1e2, log=True, source=DATM),
        "lr_alpha": Real(1e-7, 1e-4, first=1e-5, log=True, source=DATM),
        "alpha_init": Fixed(0.01, source=DATM),
        "batch_syn": Choice((25, 50, 100), first=100, source=DATM),
        "ipc": Fixed(10, source=DATM),
        "horizon_epochs": Fixed(44, source=f"the largest T_plus + M of this space; DATM trains 100, {EXPERTS}"),
        "validation_epochs": Fixed(300, source="ours: a search cannot afford the challenge's 1001"),
        "full_data_epochs": Fixed(100, source=f"ours: as long as DATM's experts, {EXPERTS}"),
        "trials": Fixed(100, source="ours"),
        "validation_every_iterations": Fixed(500, source=f"DATM evaluates every 500, {DISTILLATION}"),
        "first_rung_iterations": Fixed(1000, source="ours"),
    },
)
