"""A result in a few sentences: the description of a sweep's run."""

from dataclasses import replace
from pathlib import Path

from orchestrator.reporting.summary import describe
from orchestrator.results.finals import CHALLENGE
from orchestrator.results.statistics import summarize
from orchestrator.results.study import study_rows, summarize_study
from orchestrator.state.settings import repeat_command
from orchestrator.state.workdir import Workdir
from tests.support.builders import sweep_settings, trial_record
from tests.support.results import MEASURED, finished_result
from tests.support.studies import load_study
from trainables.evaluation.metrics import TESTED


def test_it_says_the_result_how_to_repeat_it_and_where_the_report_is(tmp_path: Path) -> None:
    settings, outcome = sweep_settings(workdir=Workdir(tmp_path)), finished_result()
    text = describe(outcome, settings)
    assert "**trial-000**" in text and "Of 4 trials 3 finished, 1 were pruned, 0 failed" in text
    assert "reaches **0.900 ± 0.071** test accuracy with 2 networks" in text
    assert "| random real images | 0.525 ± 0.035 |" in text and "best trial − random real images" in text
    assert repeat_command(settings) in text and f"in `{settings.places.folder}`" in text
    assert "![" not in text, "MLflow resolves no paths of artifacts"


def test_it_has_a_studys_variants_and_what_fresh_seeds_came_to(tmp_path: Path) -> None:
    settings, outcome = sweep_settings(workdir=Workdir(tmp_path)), finished_result()
    space = load_study("digits_range_study")
    records = [
        trial_record(number, settings=space.resolve(point), rungs={40: 0.5})
        for number, point in enumerate(space.points())
    ]
    rows = study_rows(space, records, {record.name: MEASURED[CHALLENGE]["trial-000"] for record in records})
    study = describe({**outcome, "study": summarize_study(space, rows)}, replace(settings, space=space))
    for variant in space.variants:
        assert f"| {variant} |" in study
    variants = {"winner": dict.fromkeys(("validation_accuracy", *TESTED), summarize([0.25, 0.75]))}
    again = describe({**outcome, "repeats": {"variants": variants, "comparisons": []}}, settings)
    assert "with seeds that the search never saw" in again and "| best trial | 0.500 ± 0.354 |" in again
