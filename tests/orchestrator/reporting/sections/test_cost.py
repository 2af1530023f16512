"""What the report says a sweep cost, by hand."""

from orchestrator.reporting.sections.cost import cost_section
from orchestrator.results.trials import TrialRecord
from tests.support.builders import trial_record


def record(number: int, iterations: int, seconds: float) -> TrialRecord:
    rungs = {iterations: 0.5} if iterations else {}
    return trial_record(number, rungs=rungs, seconds=seconds)


def result(gpus: float) -> dict[str, object]:
    return {
        "seconds": {"experts": 1800.0, "search": 7200.0, "finals": 900.0, "total": 9900.0},
        "workers": {"count": 4, "gpus_each": gpus},
        "experts": {"trained": 3, "reused": 5},
    }


def test_hours_are_those_of_workers_and_a_stopped_trial_would_have_taken_longer() -> None:
    trials = [record(0, 100, 3600.0), record(1, 25, 1800.0), record(2, 0, 180.0)]  # the last failed before any rung
    _, table, text = cost_section(100, result(0.5), trials).split("\n\n")
    assert table.splitlines()[2:] == [
        "| experts | 1800 s | 2 | 1 |",
        "| search | 7200 s | 1.55 | 0.775 |",
        "| finals | 900 s | 1 | 0.5 |",
        "| all | 9900 s | 4.55 | 2.27 |",
    ]
    assert "about 3 CPU-core-hours and 1.5 GPU-hours" in text and "1.9 times as much" in text
    assert "a CPU core each and 0.5 of a GPU" in text


def test_without_gpus_and_pruning_it_says_so() -> None:
    _, table, text = cost_section(100, result(0), [record(0, 100, 3600.0)]).split("\n\n")
    assert "| search | 7200 s | 1 | – |" in table and "No trial was stopped early." in text and "GPU" not in text


def test_the_time_of_trial_0_stands_beside_the_plans() -> None:
    planned = {"device": "A10G", "low_s": 900.0, "high_s": 1600.0}
    text = cost_section(100, {**result(1), "planned_trial": planned}, [record(0, 100, 3600.0)])
    assert "Trial 0 took 3,600 s; the plan says 900 s to 1,600 s on A10G: 3 times as long." in text
    for trials, said in (([record(1, 100, 3600.0)], planned), ([record(0, 100, 3600.0)], None)):
        assert "the plan says" not in cost_section(100, {**result(1), "planned_trial": said}, trials)
