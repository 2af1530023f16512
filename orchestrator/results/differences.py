"""Tests of differences in test accuracy: between a sweep's finals, a study's variants, methods, and sweeps' winners."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from orchestrator.results.entries import WINNER
from orchestrator.results.statistics import compare, holm

__all__ = ["compare_finals", "compare_methods", "compare_variants", "compare_winners"]


def compare_finals(finals: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the winner's differences in test accuracy from every other set, corrected as one family.

    Network k starts from the same parameters for every set, so the values pair. They are of fresh networks on one
    distillation a set: the test covers the chance of evaluating these sets, not of distilling others.

    Args:
        finals: `finals` of result.json.
    """
    values = {name: dict(enumerate(metrics["accuracy"]["values"])) for name, metrics in finals.items()}
    # The winner may be the reference trial itself, which has the same values and is not compared.
    others = [name for name in values if name != WINNER and values[name] != values[WINNER]]
    return _family(values, [(WINNER, other) for other in others]) if WINNER in values else []


def compare_variants(
    rows: Sequence[Mapping[str, Any]], finals: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the differences in test accuracy between all variants of a study, corrected as one family.

    A value is a repeat: a distillation with its own seed, shared by all variants, so the values pair where both have
    the same repeats. A baseline's values are those of its networks and never pair.

    Args:
        rows: A row a variant and repeat; see `study.study_rows`.
        finals: Sets of `finals` of result.json with which the first variant is compared too.
    """
    values: dict[str, dict[Any, float]] = {}
    for row in rows:
        values.setdefault(row["variant"], {})[row["repeat"]] = row["accuracy"]
    pairs = list(combinations(values, 2))
    if rows:
        pairs += [(rows[0]["variant"], name) for name in finals]
    for name, metrics in finals.items():
        values[name] = {(name, number): value for number, value in enumerate(metrics["accuracy"]["values"])}
    return _family(values, pairs)


def compare_methods(values: Mapping[str, Mapping[int, float]], ours: str) -> list[dict[str, Any]]:
    """Return one method's differences in test accuracy from every other, corrected as one family.

    A value is a repeat: a set with its own seed, and a network that starts alike for all methods, so the values pair.

    Args:
        values: By method, and repeat.
        ours: The method that is compared with the others; without it the result is empty.
    """
    return _family(values, [(ours, other) for other in values if other != ours]) if ours in values else []


def compare_winners(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the differences in test accuracy between the winners of sweeps, corrected as one family; no values pair.

    Args:
        results: Content of result.json by the sweep's name.
    """
    values = {
        name: {(name, network): value for network, value in enumerate(result["finals"][WINNER]["accuracy"]["values"])}
        for name, result in results.items()
    }
    return _family(values, list(combinations(values, 2)))


def _family(values: Mapping[str, Mapping[Any, float]], pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return the differences of pairs of names, corrected as one family; values are by name and seed."""
    compared = []
    for a, b in pairs:
        seeds, paired = sorted(values[a]), values[a].keys() == values[b].keys()
        theirs = seeds if paired else sorted(values[b])
        ours, others = [values[a][k] for k in seeds], [values[b][k] for k in theirs]
        compared.append(compare(ours, others, paired=paired, family=len(pairs)))
    return [
        {"a": a, "b": b, **asdict(difference), "significant": difference.significant}
        for (a, b), difference in zip(pairs, holm(compared), strict=True)
    ]
