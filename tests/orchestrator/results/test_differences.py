"""Which values are compared with which, and what pairs."""

from typing import Any

import pytest

from orchestrator.reporting.tables import differences_markdown
from orchestrator.results.differences import compare_finals, compare_variants
from orchestrator.results.statistics import compare, summarize


def finals(**values: list[float]) -> dict[str, Any]:
    return {name: {"accuracy": summarize(accuracies)} for name, accuracies in values.items()}


SIX = [0.71, 0.72, 0.73, 0.74, 0.75, 0.77]
SEVEN = [*SIX, 0.78]


def rows(variant: str, accuracies: dict[int, float]) -> list[dict[str, Any]]:
    return [{"variant": variant, "repeat": repeat, "accuracy": accuracy} for repeat, accuracy in accuracies.items()]


def test_the_winner_is_compared_with_every_other_set_network_by_network() -> None:
    lower = [value - 0.1 for value in SEVEN[:3]] + [value - 0.2 for value in SEVEN[3:]]
    records = compare_finals(finals(winner=SEVEN, random_real=lower, full_data=[value + 0.2 for value in SEVEN]))
    assert [(record["a"], record["b"]) for record in records] == [("winner", "random_real"), ("winner", "full_data")]
    assert records[0]["difference"] == pytest.approx(0.1 + 0.1 * 4 / 7)
    assert records[0]["test"] == "paired permutation" and records[0]["p"] == 2 / 128
    assert records[0]["p_holm"] == 4 / 128 and records[0]["significant"]


def test_a_winner_that_is_the_reference_itself_is_not_compared_with_it() -> None:
    records = compare_finals(finals(winner=SIX, paper_setting=SIX, random_real=SIX[::-1]))
    assert [record["b"] for record in records] == ["random_real"]
    assert compare_finals({}) == []


def test_repeats_pair_by_their_seed_and_not_by_their_place() -> None:
    early = dict(enumerate(SIX))
    late = {repeat: early[repeat] - 0.1 * (repeat + 1) for repeat in reversed(early)}
    (record,) = compare_variants([*rows("early", early), *rows("late", late)], {})
    expected = compare(SIX, [late[repeat] for repeat in range(6)], paired=True)
    assert (record["p"], record["effect_size"]) == (expected.p, expected.effect_size)


def test_repeats_of_which_one_is_missing_do_not_pair() -> None:
    early, late = dict(enumerate(SIX)), dict.fromkeys(range(1, 7), 0.5)
    (record,) = compare_variants([*rows("early", early), *rows("late", late)], {})
    assert record["test"] == "Welch" and "no seeds pair" in record["note"]


def test_the_first_variant_is_compared_with_baselines_too_and_nothing_of_theirs_pairs() -> None:
    winner, paper = dict(enumerate(SEVEN)), dict.fromkeys(range(7), 0.5)
    baselines = finals(random_real=[value - 0.2 for value in SEVEN])  # as many as repeats, and yet none of their seeds
    records = compare_variants([*rows("winner", winner), *rows("paper_setting", paper)], baselines)
    assert [(record["a"], record["b"]) for record in records] == [
        ("winner", "paper_setting"), ("winner", "random_real")
    ]  # fmt: skip
    assert records[0]["test"] == "paired permutation" and records[1]["test"] == "Welch"


def test_the_report_says_the_test_and_why_or_why_none() -> None:
    table, note = differences_markdown(
        compare_finals(finals(winner=SIX, random_real=[0.5 + 0.01 * k for k in range(6)]))
    ).split("\n\n")
    assert "| best trial − random real images | +0.212 |" in table
    assert table.endswith("| paired permutation | 0.0312 | 0.0312 | yes |")
    assert "the seeds pair, n = 6" in note and "Holm" in note
    table, note = differences_markdown(compare_finals(finals(winner=[0.5, 0.6], random_real=[0.1, 0.2]))).split("\n\n")
    assert table.endswith("| – | – | – | – | – | – |") and "no test: n = 2" in note
    assert differences_markdown([]) == ""
