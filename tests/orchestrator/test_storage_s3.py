"""A workdir at s3://, with a real S3 server: a sweep whose machine is lost goes on on another, bit for bit."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mlflow.tracking import MlflowClient

from orchestrator.state.mirror import Mirror
from orchestrator.state.workdir import Workdir
from tests.support.processes import assert_refused, run
from tests.support.servers import s3_server
from tests.support.sweep_records import rows, study, tracked
from tests.support.sweeps import Sweep, begin, kill_when
from trainables.data.synthetic import read_synthetic

pytestmark = pytest.mark.slow

NAME = "head-lost"
URI = "s3://bucket/a prefix/runs"


@pytest.fixture(scope="module")
def s3() -> Iterator[None]:
    """A server of its own, and an environment that leads there."""
    with s3_server() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield


def machine(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go on on another machine; return its cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
    return tmp_path / name / "mdatm"


@pytest.mark.rare
def test_a_sweep_whose_machine_is_lost_goes_on_on_another_bit_for_bit(
    s3: None, first: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = machine(tmp_path, "lost", monkeypatch)

    def in_the_second_trial() -> bool:
        folder = next(cache.glob(f"*/sweeps/{NAME}"), cache)
        progress = folder / "progress.jsonl"
        if not progress.exists() or '"stage": "search"' not in progress.read_text():
            return False  # nobody else may open the study while it is made
        trials = study(folder, NAME)
        return len(trials) > 1 and trials[0].state.is_finished() and bool(trials[1].intermediate_values)

    kill_when(begin(URI, NAME), in_the_second_trial)
    shutil.rmtree(cache, ignore_errors=True)

    cache = machine(tmp_path, "next", monkeypatch)
    done = run("orchestrator.sweep", "--resume", NAME, "--workdir", URI)
    assert done.returncode == 0, done.stdout + done.stderr
    resumed = Sweep(next(cache.iterdir()), NAME, done.stdout)

    assert rows(resumed) == rows(first)
    for part in ("finals", "trials", "best", "paper"):
        assert resumed.result[part] == first.result[part]
    images = [read_synthetic(sweep.folder / "synthetic.safetensors").images for sweep in (first, resumed)]
    assert torch.equal(*images)
    assert resumed.result["experts"]["trained"] == 0  # they were at the URI
    assert f"{URI}/sweeps/{NAME}/report.md" in resumed.output

    # MLflow has every trial once; what it was told last on the lost machine may be lacking.
    runs = tracked(resumed)
    assert [name for name in sorted(runs) if name.startswith("trial-")] == [row["id"] for row in rows(resumed)]
    assert [runs[name][0] for name in sorted(runs)] == [tracked(first)[name][0] for name in sorted(runs)]

    # A third machine has the finished sweep, pictures and all.
    machine(tmp_path, "third", monkeypatch)
    found = Workdir.at(URI)
    Mirror(found, NAME).pull()
    for file in ("result.json", "report.md", "trials.parquet", "synthetic.safetensors", "figures/synthetic.png"):
        assert (found.sweep(NAME) / file).read_bytes() == (resumed.folder / file).read_bytes()
    place = resumed.result["mlflow"]
    client = MlflowClient(found.databases(NAME).mlflow_uri)
    assert client.get_run(place["parent_run_id"]).info.status == "FINISHED"
    report = client.download_artifacts(place["parent_run_id"], "report.md", str(tmp_path))
    assert Path(report).read_bytes() == (resumed.folder / "report.md").read_bytes()


def test_what_is_wrong_is_one_line(s3: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = machine(tmp_path, "any", monkeypatch)
    unknown = run("orchestrator.sweep", "--resume", "never", "--workdir", URI)
    assert_refused(unknown, "no sweep named 'never' in s3://bucket/a prefix/runs", "check the name and --workdir")
    other = run("orchestrator.sweep", "--space", "digits", "--workdir", "s3://nobody/runs")
    assert_refused(other, "s3://nobody/runs cannot be written", "NO_SUCH_BUCKET", "AWS_ENDPOINT_URL")
    query = run("orchestrator.experts", "--space", "digits", "--workdir", "s3://bucket?region=x")
    assert_refused(query, "s3://bucket?region=x", "AWS_ENDPOINT_URL")
    assert not cache.exists()
