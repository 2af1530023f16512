"""Whatever ends a sweep, in whichever stage: result.json and trials.parquet have what had ended by then."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pyarrow.parquet as pq
import pytest
import ray

import orchestrator
from orchestrator.search.view import SearchView
from orchestrator.stages import sweep as stages
from orchestrator.state.progress import Progress

pytestmark = [pytest.mark.slow, pytest.mark.rare, pytest.mark.timeout(900)]

SETTINGS = {
    "iterations": 10, "validation_every_iterations": 5, "first_rung_iterations": 5, "validation_epochs": 10,
    "validation_networks": 1, "protocol_epochs": 20, "full_data_epochs": 1,
}  # fmt: skip
SMALL: dict[str, Any] = {
    "trials": 3, "experts": 1, "final_seeds": 1, "networks": 2, "baselines": "none", "concurrent": 1, "quiet": True,
}  # fmt: skip


class Planted(Exception):
    """What a test plants."""


@pytest.fixture
def one_ray() -> Iterator[None]:
    """One Ray for all the calls of a test, which else start one each."""
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=10**8, log_to_driver=False)
    yield
    ray.shutdown()


def raises() -> None:
    raise Planted("it was [planted]")


def interrupts() -> None:
    """Do what Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGINT)


@contextmanager
def planted(owner: Any, name: str, ends: Callable[[], None], *, calls: int) -> Iterator[None]:
    """Let a function end the sweep after so many calls; until then it does its work."""
    original, made = getattr(owner, name), 0

    def function(*args: Any, **kwargs: Any) -> Any:
        nonlocal made
        made += 1
        if made > calls:
            ends()
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, function)
        yield


STAGES = {
    "experts": (stages, "ensure_experts", 0),
    "search": (SearchView, "on_trial_complete", 1),
    "finals, distillations": (stages, "read_synthetic_sets", 1),
    "finals, networks": (Progress, "add_final", 3),
    "diagnostics": (stages, "measure_diagnostics", 0),
    "report": (stages, "write_outputs", 0),
}
"""Where each stage is ended: the function, and its calls before that one."""


def ended_in_study(workdir: Path, name: str) -> int:
    storage = f"sqlite:///{workdir / 'optuna.db'}"
    if name not in optuna.get_all_study_names(storage):
        return 0
    return sum(trial.state.is_finished() for trial in optuna.load_study(study_name=name, storage=storage).trials)


@pytest.mark.parametrize("ends", [raises, interrupts])
def test_what_had_ended_is_there_in_every_stage(one_ray: None, tmp_path: Path, ends: Callable[[], None]) -> None:
    def run() -> orchestrator.SweepResult:
        return orchestrator.run_sweep("digits", settings=SETTINGS, name="a", workdir=tmp_path, **SMALL)

    folder, seen = tmp_path / "sweeps" / "a", []
    for stage, (owner, name, calls) in STAGES.items():
        with planted(owner, name, ends, calls=calls), pytest.raises(Exception) as error:
            run()
        assert isinstance(error.value, orchestrator.Stopped) == (ends is interrupts), (stage, error.value)
        result = json.loads((folder / "result.json").read_text())
        assert result["status"] == ("stopped" if ends is interrupts else "failed")
        assert result["under_way"]["stage"] == stage and result["under_way"]["reason"]
        rows = [row for row in pq.read_table(folder / "trials.parquet").to_pylist() if row["status"] != "unfinished"]
        assert sum(result["trials"].values()) == len(rows) == ended_in_study(tmp_path, "a")
        networks = sum(metrics["accuracy"]["n"] for metrics in result["finals"].values())
        seen.append((len(rows), networks > 0, result["best"] is not None))
    assert seen[0][0] == 0 and 1 <= seen[1][0] <= 3
    assert all(trials == 3 and best for trials, _, best in seen[2:])
    assert [measured for _, measured, _ in seen] == [False, False, False, True, True, True]
    finished = run()
    assert finished.record["status"] == "finished" and "under_way" not in finished.record
    assert sum(finished.record["trials"].values()) == 3
