"""What the driver's machine does, as MLflow's page of a run shows it."""

import logging
import threading
import time
from collections.abc import Callable

import pytest
from mlflow.entities import Metric
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.tracking import MlflowClient

from orchestrator.state.workdir import Workdir
from orchestrator.tracking import system_metrics
from orchestrator.tracking.opening import open_sweep_run
from orchestrator.tracking.sweep_run import SweepRun
from orchestrator.tracking.system_metrics import monitored

OF_EVERY_MACHINE = {
    "cpu_utilization_percentage", "system_memory_usage_megabytes", "system_memory_usage_percentage",
    "disk_usage_percentage", "disk_usage_megabytes", "disk_available_megabytes", "network_receive_megabytes",
    "network_transmit_megabytes",
}  # fmt: skip


class Counting(BaseMetricsMonitor):
    """A collector whose samples are 0, 1, 2 …; the first one is that of the start."""

    taken = 0

    def collect_metrics(self) -> None:
        self._metrics[type(self).__name__].append(self.taken)
        self.taken += 1

    def aggregate_metrics(self) -> dict[str, float]:
        return {name: sum(values) / len(values) for name, values in self._metrics.items()}


class Unable(Counting):
    """One that this machine cannot even begin."""

    def __init__(self) -> None:
        raise AttributeError("'NoneType' object has no attribute 'bytes_recv'")


class Failing(Counting):
    """One that fails after some samples."""

    def collect_metrics(self) -> None:
        super().collect_metrics()
        if self.taken == 4:
            raise RuntimeError("the driver is gone")


class Announcing(Counting):
    """One that says when it has taken some samples."""

    has_some = threading.Event()

    def collect_metrics(self) -> None:
        super().collect_metrics()
        if self.taken == 4:
            self.has_some.set()


@pytest.fixture(autouse=True)
def _short_interval(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01")
    caplog.set_level(logging.WARNING, logger="orchestrator")


def opened(workdir: Workdir, sweep: str) -> SweepRun:
    return open_sweep_run(None, workdir, "space", sweep, {})


def monitor_until(run: SweepRun, reached: Callable[[], bool]) -> None:
    """Monitor until something has happened; the test's own timeout bounds it."""
    with monitored(run), run.journal.changed:
        run.journal.changed.wait_for(reached)


def rows(workdir: Workdir, run: SweepRun, name: str) -> list[Metric]:
    client = MlflowClient(workdir.mlflow_uri)
    return sorted(client.get_metric_history(run.run_id, f"system/{name}"), key=lambda row: row.step)


def test_rows_have_mlflows_names_and_a_second_driver_goes_on(workdir: Workdir) -> None:
    for steps in (3, 6):
        run = opened(workdir, "real")
        monitor_until(run, lambda run=run, steps=steps: run.system_steps >= steps)  # type: ignore[misc]
        assert run.end("FINISHED") == 0
    names = MlflowClient(workdir.mlflow_uri).get_run(run.run_id).data.metrics.keys()
    assert {name for name in names if "/gpu_" not in name} == {f"system/{name}" for name in OF_EVERY_MACHINE}
    for name in OF_EVERY_MACHINE:
        found = rows(workdir, run, name)
        assert len(found) >= 6 and [row.step for row in found] == list(range(len(found))), "none twice, none left out"
        assert all(row.value >= 0 for row in found)


@pytest.mark.parametrize(("samples", "means"), [("1", [1, 2, 3.5, 5.5, 8.5]), ("2", [1.5, 3.5, 6.5, 10.5])])
def test_the_further_a_sweep_the_longer_the_means(
    workdir: Workdir, monkeypatch: pytest.MonkeyPatch, samples: str, means: list[float]
) -> None:
    monkeypatch.setattr(system_metrics, "COLLECTORS", (Counting,))
    monkeypatch.setattr(system_metrics, "SAMPLES_DOUBLE_AFTER", 2)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", samples)
    run = opened(workdir, f"means-of-{samples}")
    monitor_until(run, lambda: run.system_steps >= len(means))
    assert run.end("FINISHED") == 0
    assert [row.value for row in rows(workdir, run, "Counting")][: len(means)] == means


def test_a_week_is_less_than_3000_rows() -> None:
    step = samples = 0
    while samples < 7 * 24 * 3600 / system_metrics.INTERVAL_S:
        samples += system_metrics._samples(step)
        step += 1
    assert 2600 <= step < 3000


def test_what_was_collected_of_a_row_is_not_lost(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_metrics, "COLLECTORS", (Announcing,))
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "1000000")
    run = opened(workdir, "short")
    with monitored(run):
        Announcing.has_some.wait()
    assert run.system_steps == 1
    assert run.end("FINISHED") == 0
    (row,) = rows(workdir, run, "Announcing")
    assert row.step == 0 and row.value >= 2, "the mean of 1, 2, 3 and perhaps more"


def test_a_collector_that_does_not_work_here_is_left_out(
    workdir: Workdir, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(system_metrics, "COLLECTORS", (Unable, Failing, Counting))
    run = opened(workdir, "odd")
    monitor_until(run, lambda: run.system_steps >= 6)
    assert run.end("FINISHED") == 0
    assert [record.message for record in caplog.records] == [
        "Unable does not work here and is left out (AttributeError: 'NoneType' object has no attribute 'bytes_recv')",
        "Failing does not work here and is left out (RuntimeError: the driver is gone)",
    ]
    assert len(rows(workdir, run, "Counting")) >= 6 and [row.value for row in rows(workdir, run, "Failing")] == [1, 2]


def test_a_journal_that_cannot_be_written_ends_the_rows_and_not_the_sweep(
    workdir: Workdir, caplog: pytest.LogCaptureFixture
) -> None:
    run = opened(workdir, "full")
    assert run.flush() == 0
    run.journal._database.execute("PRAGMA query_only = ON")  # a full disk refuses only what finds no old room
    with monitored(run):
        while not caplog.records:
            time.sleep(0.01)
    run.journal._database.execute("PRAGMA query_only = OFF")
    assert [record.message.partition(" (")[0] for record in caplog.records] == [
        f"no more system metrics: the journal {run.journal.database} cannot be written"
    ]
    assert run.end("FINISHED") == 0
