"""The trajectory-matching methods as settings: the rules that define a method, and its published figures.

Rules define a method and hold on any dataset; `--preset` applies them to a space. Figures are the numbers that its
authors chose for a dataset and a number of images per class; a user's space searches them. Figures that
docs/method.md, "Published settings" does not have are left out: all of MTT's, some of FTD's, and `interval` if a range
does not grow.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from search_spaces.dimensions import Dimension, Fixed, SpaceError, Value
from search_spaces.nearest import nearest
from search_spaces.sources import DISTILLATION, EXPERTS, PUBLISHED_SETTINGS
from search_spaces.vocabulary import VOCABULARY, matching_range

__all__ = ["PRESETS", "RANGE_STUDY", "Preset", "preset", "settings", "variants"]

NEVER = 3.5e38
"""A `max_matching_loss` above the largest float32: only updates that are not finite are skipped. MTT and FTD do
not skip those either, but never recover from them. The key is a finite number, so it has no other value for "never"."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One method."""

    name: str
    title: str
    """One line that describes the method."""
    rules: Mapping[str, Value]
    """Settings that define the method on any dataset, by key."""
    source: str
    """Source of rules and figures."""
    everywhere: Mapping[str, Value] = field(default_factory=dict)
    """Figures that its authors used for all datasets."""
    figures: Mapping[tuple[str, int], Mapping[str, Value]] = field(default_factory=dict)
    """Figures by dataset and images per class."""


def _datm(
    N: int, epochs: tuple[int, int, int], batch: int, lr_pixel: float, lr_label: float, lr_alpha: float, **other: Value
) -> dict[str, Value]:
    """Return a row of DATM's configurations; `epochs` are T⁻, T and T⁺, and T = T⁺ is a range that does not grow."""
    row = {"N": N, "M": 2, **matching_range(*epochs), "batch_syn": batch, "lr_pixel": lr_pixel, "lr_label": lr_label}
    return {**row, "lr_alpha": lr_alpha, **other}


_DATM_FIGURES = {
    ("cifar10", 1): _datm(80, (0, 4, 4), 10, 100, 5, 1e-7, max_matching_loss=1.1),
    ("cifar10", 10): _datm(80, (0, 10, 20), 100, 100, 2, 1e-5, interval=100),
    ("cifar10", 50): _datm(80, (0, 20, 40), 500, 1000, 2, 1e-5, interval=100),
    ("cifar10", 500): _datm(40, (40, 60, 60), 1000, 50, 10, 1e-5),
    ("cifar10", 1000): _datm(100, (40, 60, 60), 1000, 50, 10, 1e-5),
    ("cifar100", 1): _datm(40, (0, 10, 20), 1000, 1000, 10, 1e-5, interval=100, M=3),
    ("cifar100", 10): _datm(80, (0, 30, 50), 1000, 1000, 10, 1e-5, interval=100),
    ("cifar100", 50): _datm(80, (20, 70, 70), 1000, 1000, 10, 1e-5, initialization="real"),
    ("cifar100", 100): _datm(80, (30, 70, 70), 1000, 50, 10, 1e-5),
    ("tiny_imagenet", 1): _datm(40, (0, 15, 20), 1000, 10_000, 10, 1e-4, interval=400, net_depth=4),
    ("tiny_imagenet", 10): _datm(40, (10, 50, 50), 500, 100, 10, 1e-4, net_depth=4),
    ("tiny_imagenet", 50): _datm(20, (40, 70, 70), 1000, 100, 10, 1e-4, net_depth=4),
}
_DATM_EVERYWHERE: Mapping[str, Value] = {
    "iterations": 10_000,
    "alpha_init": 0.01,
    "max_matching_loss": 1.0,
    "sam_rho": 0.01,
    "gsam_alpha": 0.3,
}
_DATM_RULES: Mapping[str, Value] = {
    "expert_optimizer": "gsam",
    "sam_adaptive": True,
    "initialization": "correct",
    "label_mode": "soft",
    "lr_label": 10.0,
    "momentum_label": 0.9,
    "momentum_pixel": 0.5,
    "momentum_alpha": 0.5,
    "range_end": "exclusive",
    "ema_decay": 0.0,
    "zca": True,
}
_HARD: Mapping[str, Value] = {"label_mode": "hard", "lr_label": 0.0}
_CHALLENGE: Mapping[str, Value] = {**_HARD, "zca": False}
_MTT_RULES: Mapping[str, Value] = {
    **_DATM_RULES,
    **_HARD,
    "expert_optimizer": "sgd",
    "initialization": "real",
    "T_minus": 0,
    "T_growth": 0,
    "max_matching_loss": NEVER,
}

PRESETS = {
    entry.name: entry
    for entry in (
        Preset(
            name="mtt",
            title="matches experts trained by SGD, from epoch 0 up to a fixed bound; whitened images",
            rules=_MTT_RULES,
            source=f"MTT's code, {EXPERTS}; {DISTILLATION}",
            everywhere={"iterations": 5000},
        ),
        Preset(
            name="ftd",
            title="MTT with flat experts (GSAM) and a moving average of the images",
            rules={**_MTT_RULES, "expert_optimizer": "gsam", "ema_decay": 0.999},
            source=f"FTD's README and tables, {EXPERTS}; {PUBLISHED_SETTINGS}",
            everywhere={"iterations": 5000, "sam_rho": 0.01},
            figures={
                ("cifar100", 10): {
                    "N": 20,
                    "M": 2,
                    **matching_range(0, 40, 40),
                    "lr_pixel": 1000.0,
                    "ema_decay": 0.9995,
                    "gsam_alpha": 1.0,
                },
                ("tiny_imagenet", 10): {
                    "N": 20,
                    **matching_range(0, 40, 40),
                    "batch_syn": 500,
                    "lr_pixel": 10_000.0,
                    "ema_decay": 0.999,
                    "gsam_alpha": 1.0,
                },
            },
        ),
        Preset(
            name="datm",
            title="FTD's experts, learned soft labels, a range that suits the set's size; no average; whitened images",
            rules=_DATM_RULES,
            source=f"DATM's code and configurations, {EXPERTS}; {PUBLISHED_SETTINGS}; lr_label is that of most of them",
            everywhere=_DATM_EVERYWHERE,
            figures=_DATM_FIGURES,
        ),
        Preset(
            name="datm_hard",
            title="DATM with hard labels in default order: M-DATM's first step; images not whitened",
            rules={**_DATM_RULES, **_CHALLENGE},
            source=f"M-DATM's ablation (DATM + M1) with DATM's configurations, {PUBLISHED_SETTINGS}",
            everywhere=_DATM_EVERYWHERE,
            figures={place: {**row, "lr_label": 0.0} for place, row in _DATM_FIGURES.items()},
        ),
        Preset(
            name="m_datm",
            title="DATM with hard labels in default order and an early range: M-DATM; images not whitened",
            rules={**_DATM_RULES, **_CHALLENGE},
            source=f"M-DATM Table 1, {PUBLISHED_SETTINGS}; what it does not say is DATM's",
            everywhere=_DATM_EVERYWHERE,
            figures={
                ("cifar100", 10): {
                    "N": 40,
                    "M": 2,
                    **matching_range(0, 15, 20),
                    "interval": 100,
                    "batch_syn": 1000,
                    "lr_pixel": 1000.0,
                    "lr_alpha": 1e-5,
                },
                ("tiny_imagenet", 10): {
                    "N": 25,
                    "M": 2,
                    **matching_range(0, 15, 20),
                    "interval": 250,
                    "batch_syn": 1000,
                    "lr_pixel": 10_000.0,
                    "lr_alpha": 1e-4,
                },
            },
        ),
    )
}
"""The methods by name, in the order in which they were published."""


RANGE_STUDY = {
    "early": matching_range(0, 15, 20),
    "medium": matching_range(30, 45, 60),
    "late": matching_range(60, 75, 80),
}
"""The matching ranges that M-DATM compares on both of its datasets. docs/method.md, "Matching range"."""


def preset(name: str) -> Preset:
    """Return the method of that name.

    Raises:
        SpaceError: if there is none; the message has the nearest one.
    """
    if name not in PRESETS:
        raise SpaceError(f"unknown preset {name}; {nearest(name, PRESETS)}")
    return PRESETS[name]


def settings(name: str, dataset: str, ipc: int) -> dict[str, Value]:
    """Return the settings that a method's authors used: its rules and the published figures in docs/method.md.

    Raises:
        SpaceError: if there is no such method, or no figures of it are known for this dataset and size.
    """
    method = preset(name)
    if (dataset, ipc) not in method.figures:
        known = ", ".join(f"{where} at {count}" for where, count in method.figures) or "none"
        raise SpaceError(
            f"{name} has no published figures for {dataset} at {ipc} images per class in docs/method.md; known: {known}"
        )
    merged = {**method.rules, **method.everywhere, **method.figures[dataset, ipc], "ipc": ipc}
    return {key: entry.check(merged[key]) for key, entry in VOCABULARY.items() if key in merged}


def variants(
    methods: Iterable[str], dataset: str, ipc: int, shared: Mapping[str, Dimension]
) -> dict[str, dict[str, Value]]:
    """Return methods with their published figures as variants of a study, all with the same experts and images.

    A variant has every searchable key in which one of the methods differs from the study's parameters. Settings that
    cannot differ within a study (experts, whitening, the network, iterations) are those of the study.

    Args:
        methods: names of presets.
        dataset: the dataset's name.
        ipc: images per class.
        shared: the study's parameters, fixed.
    """
    common = {
        key: dimension.value
        for key, dimension in shared.items()
        if isinstance(dimension, Fixed) and VOCABULARY[key].searchable
    }
    points = {name: {**common, **settings(name, dataset, ipc)} for name in methods}
    differing = [key for key in common if any(point[key] != common[key] for point in points.values())]
    return {name: {key: point[key] for key in differing} for name, point in points.items()}
