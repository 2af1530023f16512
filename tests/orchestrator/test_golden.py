"""A sweep finds what it found before its code was moved into folders: golden values, recorded from that version.

On the machine that recorded them all values were met bit for bit. Another processor rounds otherwise: a proposal's last
digit, an accuracy by some images, and so which trial ASHA stops at a close decision. So do the double backwards that
were written out since: a step whose rounding moves an activation over ReLU's kink changes α in its fourth digit.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.support.sweeps import Sweep

pytestmark = pytest.mark.slow

GOLDEN = json.loads((Path(__file__).parent / "golden" / "sweep.json").read_text())
ACCURACY = 0.05
"""18 of the 359 images that validate."""


def close(values: list[float]) -> Any:
    return pytest.approx(values, abs=ACCURACY)


@pytest.fixture(scope="module")
def trials(first: Sweep) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(first.folder / "trials.parquet").to_pylist()
    return rows


def test_the_proposals_are_the_recorded_ones(trials: list[dict[str, Any]]) -> None:
    assert len(trials) == len(GOLDEN["trials"])
    for row, golden in zip(trials, GOLDEN["trials"], strict=True):
        for name, value in golden["settings"].items():
            exact = isinstance(value, int)
            assert row[name] == (value if exact else pytest.approx(value, rel=1e-12)), (row["id"], name)


def test_the_trials_come_to_the_recorded_figures(trials: list[dict[str, Any]]) -> None:
    for row, golden in zip(trials, GOLDEN["trials"], strict=True):
        known = {rung: value for rung, value in golden["rungs"].items() if int(rung) <= row["iterations_done"]}
        assert known, "every trial has the first rung"
        assert [row[f"validation_accuracy_{rung}"] for rung in known] == close(list(known.values()))
        if known == golden["rungs"] and row["status"] == golden["status"]:
            assert row["matching_loss_last"] == pytest.approx(golden["matching_loss"], rel=0.02)
            assert row["alpha_last"] == pytest.approx(golden["alpha"], rel=0.005)
    assert (trials[0]["status"], GOLDEN["trials"][0]["status"]) == ("finished", "finished")  # the reference
    assert sum(row["status"] == golden["status"] for row, golden in zip(trials, GOLDEN["trials"], strict=True)) >= 3


def test_the_finals_come_to_the_recorded_accuracies(first: Sweep, second: Sweep) -> None:
    for sweep in (first, second):
        found = {name: entry["accuracy"]["values"] for name, entry in sweep.result["finals"].items()}
        golden = GOLDEN["finals"][sweep.name]
        assert found.keys() == golden.keys()
        for name in golden:
            assert found[name] == close(golden[name]), name
    for regime, golden in GOLDEN["regimes"].items():
        sets = second.result["regimes"][regime]["sets"]
        assert sets.keys() == golden.keys()
        for name in golden:
            assert sets[name]["accuracy"]["values"] == close(golden[name]), (regime, name)
    variants = second.result["repeats"]["variants"]
    assert variants["winner"]["accuracy"]["values"] == close(GOLDEN["repeats"]["winner"])
