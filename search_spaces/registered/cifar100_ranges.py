"""CIFAR-100, 10 images per class, around M-DATM's own setting."""

from search_spaces.sources import DISTILLATION, EXPERTS, PUBLISHED_SETTINGS
from search_spaces.space import Choice, Fixed, Integer, Real, Space

TABLE_1 = f"M-DATM Table 1, {PUBLISHED_SETTINGS}"
DATM = f"DATM's default, M-DATM does not say, {DISTILLATION}"

SPACE = Space(
    name="cifar100_ranges",
    title="Which matching range, steps and learning rates suit CIFAR-100 at 10 images per class?",
    dataset="cifar100",
    reference="M-DATM's own setting for CIFAR-100, 10 images per class (its paper's Table 1)",
    parameters={
        "N": Integer(20, 80, first=40, source=TABLE_1),
        "M": Integer(1, 4, first=2, source=TABLE_1),
        "T_minus": Integer(0, 10, first=0, source=TABLE_1),
        "T_width": Integer(1, 20, first=15, source=TABLE_1),
        "T_growth": Integer(0, 10, first=5, source=TABLE_1),
        "interval": Integer(25, 250, first=100, log=True, source=TABLE_1),
        "lr_pixel": Real(1e2, 1e4, first=1e3, log=True, source=TABLE_1),
        "lr_alpha": Real(1e-7, 1e-4, first=1e-5, log=True, source=DATM),
        "alpha_init": Fixed(0.01, source=DATM),
        "batch_syn": Choice((250, 500, 1000), first=1000, source=TABLE_1),
        "ipc": Fixed(10, source=TABLE_1),
        "horizon_epochs": Fixed(44, source=f"the largest T_plus + M of this space; DATM trains 100, {EXPERTS}"),
        "validation_epochs": Fixed(300, source="ours: a search cannot afford the challenge's 1001"),
        "full_data_epochs": Fixed(100, source=f"ours: as long as DATM's experts, {EXPERTS}"),
        "trials": Fixed(100, source="ours"),
        "validation_every_iterations": Fixed(500, source=f"DATM evaluates every 500, {DISTILLATION}"),
        "first_rung_iterations": Fixed(1000, source="ours"),
    },
)
