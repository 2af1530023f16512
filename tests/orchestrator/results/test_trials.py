"""The trials' file: what is read is what was written."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from orchestrator.results.trials import read_parquet, write_parquet
from search_spaces import Choice, load
from tests.support.builders import trial_record


@pytest.mark.parametrize("name", ["digits", "digits_ablation"])
def test_what_is_read_is_what_was_written(name: str, tmp_path: Path) -> None:
    space = load(name)
    settings = space.resolve(space.points()[0])
    measures = {"matching_loss": 0.4, "alpha": 0.01}
    records = [
        trial_record(
            0,
            settings=settings,
            rungs={5: 0.1, 10: 0.2},
            seconds=1.5,
            measures={**measures, "label_inconsistency": 0.25},
        ),
        trial_record(1, status="pruned", settings=settings, rungs={5: 0.1}, reason="stopped", measures=measures),
        trial_record(2, status="failed", settings=settings, seconds=0.0, reason="diverged"),
    ]
    path, (shared, own) = tmp_path / "trials.parquet", space.split(settings)
    write_parquet(path, records, space.trial_keys)
    assert read_parquet(path, shared) == records
    assert own.keys() <= set(pq.read_schema(path).names) and not shared.keys() & set(pq.read_schema(path).names)


def test_a_file_with_every_setting_of_an_earlier_version_is_read_alike(tmp_path: Path) -> None:
    space = load("digits")
    settings = space.resolve(space.first())
    record = trial_record(settings=settings, rungs={5: 0.1})
    write_parquet(tmp_path / "trials.parquet", [record], settings)
    assert read_parquet(tmp_path / "trials.parquet", space.split(settings)[0]) == [record]


@pytest.mark.parametrize("values", [(0.01, 0.5), ("auto", "auto"), ("auto", 0.01)])
def test_a_setting_that_is_a_number_or_a_word_is_read_as_it_was(values: tuple[Any, Any], tmp_path: Path) -> None:
    base = load("digits")
    space = replace(base, parameters={**base.parameters, "alpha_init": Choice(("auto", 0.01, 0.5), first="auto")})
    records = [
        trial_record(number, settings=space.resolve({**space.first(), "alpha_init": value}), rungs={5: 0.1})
        for number, value in enumerate(values)
    ]
    write_parquet(tmp_path / "trials.parquet", records, space.trial_keys)
    assert read_parquet(tmp_path / "trials.parquet", space.split(records[0].settings)[0]) == records


def test_a_sweep_without_a_trial_has_an_empty_file(tmp_path: Path) -> None:
    write_parquet(tmp_path / "trials.parquet", [], [])
    assert read_parquet(tmp_path / "trials.parquet", {}) == []
