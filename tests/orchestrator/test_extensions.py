"""A coreset, a distillation method, a dataset and a network from a user's files, in real sweeps."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.state.settings_file import read_settings, write_settings
from orchestrator.state.workdir import Workdir
from search_spaces import load, registry
from search_spaces.entry import Kind
from tests.support.builders import sweep_settings
from tests.support.extensions import COMPARISON, STUDY, write_extensions
from tests.support.processes import assert_refused, run


@pytest.fixture(scope="module", autouse=True)
def own_registry() -> Iterator[None]:
    """A registry of this module's own, so that what users' files add here is unknown to other tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_entries", dict(registry._entries))
        yield


@pytest.mark.slow
def test_a_sweep_uses_all_four_and_goes_on_without_their_files(tmp_path: Path) -> None:
    space, workdir = write_extensions(tmp_path / "mine", STUDY), tmp_path / "runs"
    done = run("orchestrator.sweep", "--space", space, "--workdir", workdir, "--name", "a", "--concurrent", 1)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = workdir / "sweeps" / "a"
    result = json.loads((folder / "result.json").read_text())
    assert set(result["study"]["variants"]) == {"dm", "halved", "m_datm"}
    assert result["trials"] == {"finished": 6, "pruned": 0, "failed": 0, "paused": 0}
    assert {"nearest_mean", "k_center"} <= set(result["finals"])
    report = (folder / "report.md").read_text()
    assert "nearest the mean" in report and "`stripes`" in report

    # A driver that died before its last networks were measured, and a user who has lost the files.
    lines = (folder / "progress.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line).get("set") != "nearest_mean"]
    assert len(kept) < len(lines)
    (folder / "progress.jsonl").write_text("".join(kept))
    (folder / "result.json").unlink()
    for made in (folder / "checkpoints" / "baselines").iterdir():
        made.unlink()
    shutil.rmtree(space.parent)
    again = run("orchestrator.sweep", "--resume", "a", "--workdir", workdir)
    assert again.returncode == 0, again.stdout + again.stderr
    resumed = json.loads((folder / "result.json").read_text())
    assert resumed["finals"] == result["finals"] and resumed["study"] == result["study"]


@pytest.mark.slow
@pytest.mark.rare
def test_a_comparison_measures_them_beside_its_own(tmp_path: Path) -> None:
    space, workdir = write_extensions(tmp_path / "mine", COMPARISON), tmp_path / "runs"
    done = run("orchestrator.baselines", "--space", space, "--workdir", workdir, "--name", "a", "--concurrent", 1)
    assert done.returncode == 0, done.stdout + done.stderr
    records = json.loads((workdir / "sweeps" / "a" / "result.json").read_text())["records"]
    assert [(each["method"], each["regime"]) for each in records] == [
        (method, regime) for method in ("nearest_mean", "halved") for regime in ("hard", "soft")
    ]
    assert "DM, halved" in (workdir / "sweeps" / "a" / "report.md").read_text()


def test_what_is_written_down_needs_no_files(tmp_path: Path) -> None:
    path = write_extensions(tmp_path / "mine", STUDY)
    settings = sweep_settings(space=load(path), workdir=Workdir.at(str(tmp_path / "runs")))
    write_settings(settings)
    shutil.rmtree(path.parent)
    stored = read_settings(settings.workdir, "a")
    assert stored.space == settings.space
    assert {each.kind for each in stored.space.extensions} == {Kind.CORESET, Kind.METHOD, Kind.DATASET, Kind.NETWORK}
    stored.check_dataset()


def test_a_file_that_fails_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    space, workdir = write_extensions(tmp_path / "mine", STUDY), tmp_path / "runs"
    file = space.with_name("coreset.py")
    file.write_text("raise ValueError('not today')\n" + file.read_text())
    done = run("orchestrator.sweep", "--space", space, "--workdir", workdir, "--name", "a")
    assert_refused(done, "coreset.py, an implementation of this sweep, fails when it is loaded: ValueError: not today")
    assert not list(workdir.glob("sweeps/*")) and not list(workdir.glob("experts/*"))


def test_the_plan_knows_a_users_dataset(tmp_path: Path) -> None:
    space = write_extensions(tmp_path / "mine", STUDY)
    done = run("orchestrator.sweep", "--space", space, "--plan", "--workdir", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert "nearest_mean" in done.stdout and not (tmp_path / "runs").exists()
