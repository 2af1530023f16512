"""The trials' file: what is read is what was written."""

from pathlib import Path

import pytest

from orchestrator.trials import TrialRecord, read_parquet, write_parquet
from search_spaces import load


@pytest.mark.parametrize("name", ["digits", "digits_ablation"])
def test_what_is_read_is_what_was_written(name: str, tmp_path: Path) -> None:
    space = load(name)
    settings = space.resolve(space.points()[0])
    measures = {"matching_loss": 0.4, "alpha": 0.01}
    records = [
        TrialRecord(number=0, status="finished", settings=settings, rungs={5: 0.1, 10: 0.2}, seconds=1.5, reason="",
                    measures={**measures, "label_inconsistency": 0.25}),
        TrialRecord(number=1, status="pruned", settings=settings, rungs={5: 0.1}, seconds=1.0, reason="stopped",
                    measures=measures),
        TrialRecord(number=2, status="failed", settings=settings, rungs={}, seconds=0.0, reason="diverged"),
    ]  # fmt: skip
    write_parquet(tmp_path / "trials.parquet", records, space.varied)
    assert read_parquet(tmp_path / "trials.parquet") == records


def test_a_sweep_without_a_trial_has_an_empty_file(tmp_path: Path) -> None:
    write_parquet(tmp_path / "trials.parquet", [], [])
    assert read_parquet(tmp_path / "trials.parquet") == []
