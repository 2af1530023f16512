"""Sweeps whose processes are killed at random moments leave what an undisturbed sweep leaves, bit for bit."""

from pathlib import Path

import pytest

from tests.support.accidents import draw_accidents, run_with_accidents
from tests.support.sweep_records import different_files, rows, tracked
from tests.support.sweeps import Sweep, run_sweep

pytestmark = [pytest.mark.slow, pytest.mark.rare]

FINALS = ("--final-seeds", "1", "--baselines", "k_center")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A sweep from nothing."""
    return run_sweep(tmp_path_factory.mktemp("undisturbed"), "sweep", *FINALS)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_killed_the_sweep_is_the_undisturbed_one(undisturbed: Sweep, tmp_path: Path, seed: int) -> None:
    sweep = undisturbed
    accidents = draw_accidents(seed)
    said = run_with_accidents(tmp_path, "sweep", accidents, sweep.result["seconds"], *FINALS)

    disturbed = Sweep(tmp_path, "sweep", said[-1])
    told = f"seed {seed}: {accidents}\n{''.join(said)}"
    assert rows(disturbed) == rows(sweep), told
    assert tracked(disturbed) == tracked(sweep), told
    for part in ("finals", "repeats", "trials", "best", "paper"):
        assert disturbed.result[part] == sweep.result[part], told
    assert different_files(sweep, disturbed) == [], told
