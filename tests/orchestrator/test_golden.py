"""A sweep finds what it found before its code was moved into folders: golden values, recorded from that version.

On the machine that recorded them all values were met bit for bit. Here proposals are exact, and what networks compute
is within what another processor's rounding makes of it.
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
    assert [{name: row[name] for name in GOLDEN["trials"][0]["settings"]} for row in trials] == [
        trial["settings"] for trial in GOLDEN["trials"]
    ]
    assert [row["status"] for row in trials] == [trial["status"] for trial in GOLDEN["trials"]]


def test_the_trials_come_to_the_recorded_figures(trials: list[dict[str, Any]]) -> None:
    for row, golden in zip(trials, GOLDEN["trials"], strict=True):
        assert [row[f"validation_accuracy_{rung}"] for rung in golden["rungs"]] == close(list(golden["rungs"].values()))
        assert row["matching_loss_last"] == pytest.approx(golden["matching_loss"], rel=0.02)
        assert row["alpha_last"] == pytest.approx(golden["alpha"], rel=0.001)


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
