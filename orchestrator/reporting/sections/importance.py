"""The section on the settings' influence on accuracy: parameter importance and parallel coordinates."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import optuna
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.colors import Normalize
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from orchestrator.reporting.templating import render
from orchestrator.results.trials import TrialRecord
from search_spaces import Choice, Integer, Real, Space

__all__ = ["draw_importance", "draw_parallel", "has_enough_trials", "settings_section"]

LEAST_TRIALS = 4


def has_enough_trials(records: Sequence[TrialRecord]) -> bool:
    """Return whether enough trials reached a rung, and differ there, for these pictures."""
    firsts = [next(iter(record.rungs.values())) for record in records if record.rungs]
    return len(firsts) >= LEAST_TRIALS and len(set(firsts)) > 1


def draw_importance(path: Path, space: Space, records: Sequence[TrialRecord]) -> None:
    """Draw the share of the accuracy's variance over the ranges that each parameter explains, by fANOVA.

    Accuracy is that at the first rung, which all trials reached. Hutter et al. 2014, through Optuna.
    """
    study = _at_first_rung(space, records)
    shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    figure, axes = plt.subplots(figsize=(6.0, 0.9 + 0.3 * len(shares)), dpi=120, constrained_layout=True)
    bars = axes.barh(list(shares)[::-1], list(shares.values())[::-1], color="#1b6ca8")
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set(xlim=(0, 1.1), xlabel="share of the variance of accuracy at the first rung")
    figure.savefig(path, facecolor="white")
    plt.close(figure)


def draw_parallel(path: Path, space: Space, records: Sequence[TrialRecord]) -> None:
    """Draw one line per trial through its settings, from bound to bound, coloured by its accuracy at its last rung."""
    shown = sorted((record for record in records if record.last is not None), key=lambda record: record.last or 0.0)
    values = [record.last or 0.0 for record in shown]
    colours, scale = colormaps["viridis_r"], Normalize(min(values), max(values))
    names = list(space.searched)
    figure, axes = plt.subplots(figsize=(max(6.0, 1.0 * len(names)), 3.6), dpi=120, constrained_layout=True)
    for record, value in zip(shown, values, strict=True):
        heights = [_height(space.searched[name], record.settings[name]) for name in names]
        axes.plot(range(len(names)), heights, color=colours(scale(value)), linewidth=1.0 + 1.5 * scale(value))
    for place, name in enumerate(names):
        axes.axvline(place, color="#b9c4cc", linewidth=0.8, zorder=0)
        low, high = _bounds(space.searched[name])
        axes.text(place, -0.04, low, ha="center", va="top", fontsize=8)
        axes.text(place, 1.03, high, ha="center", va="bottom", fontsize=8)
    axes.set_xticks(range(len(names)), names)
    axes.tick_params(axis="x", length=0, pad=16)
    axes.set_yticks([])
    axes.set_ylim(0, 1)
    axes.spines[:].set_visible(False)
    figure.colorbar(plt.cm.ScalarMappable(scale, colours), ax=axes, label="validation accuracy, last rung")
    figure.savefig(path, facecolor="white")
    plt.close(figure)


def _height(dimension: Integer | Real | Choice, value: float) -> float:
    """Return where a value lies between its bounds, in [0, 1]."""
    if isinstance(dimension, Choice):
        return (dimension.options.index(value) + 0.5) / len(dimension.options)
    scale = math.log if dimension.log else float
    low, high = scale(dimension.low), scale(dimension.high)
    return (scale(value) - low) / (high - low) if high > low else 0.5


def _bounds(dimension: Integer | Real | Choice) -> tuple[str, str]:
    if isinstance(dimension, Choice):
        return str(dimension.options[0]), str(dimension.options[-1])
    return f"{dimension.low:g}", f"{dimension.high:g}"


def _at_first_rung(space: Space, records: Sequence[TrialRecord]) -> optuna.Study:
    """Return an in-memory Optuna study of the trials that reached a rung, with the accuracy at the first as value."""
    distributions = {name: _distribution(each) for name, each in space.searched.items()}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            optuna.create_trial(
                value=next(iter(record.rungs.values())),
                params={name: record.settings[name] for name in distributions},
                distributions=distributions,
            )
            for record in records
            if record.rungs
        ]
    )
    return study


def _distribution(dimension: Integer | Real | Choice) -> BaseDistribution:
    if isinstance(dimension, Integer):
        return IntDistribution(dimension.low, dimension.high, log=dimension.log)
    if isinstance(dimension, Real):
        return FloatDistribution(dimension.low, dimension.high, log=dimension.log)
    return CategoricalDistribution(dimension.options)


def settings_section(space: Space, records: list[TrialRecord]) -> str:
    """Return the section about the settings' importance in Markdown; "" for a grid and for too few trials."""
    if space.is_grid or not has_enough_trials(records):
        return ""
    return render("sections/settings.md.j2", trials=sum(bool(record.rungs) for record in records))
