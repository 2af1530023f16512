"""settings.json: when a sweep of the same name was asked to do the same."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.state.settings import SweepSettings
from orchestrator.state.settings_file import check_same_settings, read_settings, write_settings
from orchestrator.state.workdir import Workdir
from tests.support.builders import sweep_settings


@pytest.fixture
def written(tmp_path: Path) -> SweepSettings:
    settings = sweep_settings(workdir=Workdir(tmp_path))
    write_settings(settings)
    return settings


def changed(settings: SweepSettings, key: str, **values: Any) -> SweepSettings:
    parameters = dict(settings.space.parameters)
    parameters[key] = replace(parameters[key], **values)
    return replace(settings, space=replace(settings.space, parameters=parameters))


@pytest.mark.parametrize("key", ["N", "batch_syn", "ipc"])
def test_another_wording_of_a_source_is_no_difference(written: SweepSettings, key: str) -> None:
    check_same_settings(changed(written, key, source="said otherwise"))


def test_another_wording_of_the_question_is_no_difference(written: SweepSettings) -> None:
    check_same_settings(replace(written, space=replace(written.space, title="asked otherwise", reference="ours")))


def test_another_value_is_a_difference_and_is_named(written: SweepSettings) -> None:
    with pytest.raises(UserError, match=r"with other settings \(expert_lr differ\)"):
        check_same_settings(changed(written, "expert_lr", value=0.02))


def test_paths_are_stored_absolute_and_data_may_be_elsewhere_when_a_sweep_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    workdir = Workdir(tmp_path / "runs")
    asked = {"storage_path": "kept", "tracking_uri": "sqlite:///~/runs.db", "study_uri": "sqlite:///studies.db"}
    write_settings(sweep_settings(workdir=workdir, data=Path("imgs"), **asked))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    stored = read_settings(workdir, "a")
    assert (stored.data, stored.storage_path) == (tmp_path / "imgs", f"{tmp_path}/kept")
    assert stored.tracking_uri == f"sqlite:///{tmp_path}/home/runs.db"
    assert stored.study_uri == f"sqlite:///{tmp_path}/studies.db"
    assert read_settings(workdir, "a", data=Path("~/imgs")).data == tmp_path / "home" / "imgs"


def test_cores_may_change_and_those_of_this_machine_are_not_a_clusters(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path)
    write_settings(sweep_settings(workdir=workdir, cpus=2))
    check_same_settings(sweep_settings(workdir=workdir))
    assert read_settings(workdir, "a").cpus == 2
    assert read_settings(workdir, "a", address="auto").cpus is None
    with pytest.raises(UserError, match="--cpus is for the embedded Ray"):
        read_settings(workdir, "a", address="auto", cpus=3)


@pytest.mark.parametrize("name", ["my sweep", "[red]", 'o\'neil "2"', "$(x)"])
def test_printed_commands_can_be_pasted(name: str) -> None:
    settings = sweep_settings(name=name, workdir=Workdir(Path("/data/a  b/[bold]'s")))
    assert shlex.split(settings.resume_command)[-4:] == ["--resume", name, "--workdir", "/data/a  b/[bold]'s"]
    assert shlex.split(settings.pages_command)[-4:] == ["--workdir", "/data/a  b/[bold]'s", "--sweep", name]


def test_the_patience_is_kept_may_change_and_is_missing_in_old_files(written: SweepSettings) -> None:
    impatient = replace(written, patience_s=5.0)
    check_same_settings(impatient)
    write_settings(impatient)
    assert read_settings(written.workdir, written.name).patience_s == 5
    record = json.loads(written.places.settings_file.read_text())
    del record["patience_s"]
    written.places.settings_file.write_text(json.dumps(record))
    assert read_settings(written.workdir, written.name).patience_s == 600
