"""Deviations of a headline run from the published experiment, as text."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.problem import Problem
from search_spaces import presets
from trainables.config.protocol import Protocol
from trainables.data.catalog import ALL_FAMILIES

__all__ = ["deviations_of"]

_Fact = tuple[bool, str]
"""Whether the run has a deviation, and its text."""


def deviations_of(problem: Problem, record: Mapping[str, Any]) -> list[str]:
    """Return the deviations of a run from the published experiment, as text."""
    groups = (_experts(record), _distillation(problem, record), _task(problem, record), _test(record))
    return [text for facts in groups for holds, text in facts if holds]


def _experts(record: Mapping[str, Any]) -> Iterator[_Fact]:
    experts = record["experts"]
    yield record["published_accuracy"] is None, f"the published figure is of no such task; setting: {record['source']}"
    yield (
        True,
        f"experts: {experts['count']} of {experts['epochs']} epochs, as far as the range reads; DATM trains 100 of "
        "100 epochs, M-DATM does not say",
    )
    yield (
        record["source"] == presets.PRESETS["m_datm"].source,
        "alpha_init, lr_alpha, max_matching_loss, momentum and the experts' recipe are DATM's, M-DATM does not say",
    )
    yield (
        experts["found"] > 0,
        f"experts that were there before, and whose time is not in this budget: {experts['found']}",
    )


def _distillation(problem: Problem, record: Mapping[str, Any]) -> Iterator[_Fact]:
    last, published, config = record["curve"][-1], record["iterations_of_setting"], problem.config
    iterations, skipped = last["iteration"], last["skipped"]
    reached = config.matching_range.upper(max(0, iterations - 1))
    yield iterations < published, f"{iterations:,} of {published:,} iterations"
    yield skipped > 0, f"{skipped:,} of these iterations updated nothing: loss above the threshold, or not finite"
    yield reached < config.T_plus, f"the range's upper bound grew to {reached} of {config.T_plus} epochs only"
    yield (
        True,
        f"experts and images see {1 - problem.dataset.validation_share:.0%} of the training images: the rest is "
        "for validation",
    )
    yield True, "the last images are the result: none were chosen by their accuracy"


def _task(problem: Problem, record: Mapping[str, Any]) -> Iterator[_Fact]:
    changes, network = problem.setting.changes, problem.network
    yield bool(changes), f"set by hand: {', '.join(f'{name} = {value}' for name, value in changes.items())}"
    yield record["classes_asked"] > 0, f"the first {network.classes} classes only"
    yield (
        (network.depth, network.width) != (3, 128),
        f"a ConvNet of depth {network.depth} and width {network.width}, the challenge's has 3 and 128",
    )
    yield (
        set(problem.families) != set(ALL_FAMILIES),
        f"augmentation {', '.join(problem.families) or 'none'}, the challenge's has {', '.join(ALL_FAMILIES)}",
    )


def _test(record: Mapping[str, Any]) -> Iterator[_Fact]:
    tested = record["test"]
    yield tested["n"] != 3, f"{tested['n']} networks were tested, the challenge tests 3"
    yield (
        tested["epochs"] < Protocol().epochs,
        f"they were trained for the {tested['epochs']} epochs that the budget left, the challenge's for "
        f"{Protocol().epochs}",
    )
