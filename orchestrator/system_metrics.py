"""What the driver's machine does while a sweep runs: MLflow's own collectors, journalled for the parent run.

MLflow's own monitor would send what they collect by itself, and stop for good when the server is away.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from mlflow.environment_variables import (
    MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING,
    MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL,
)
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

from orchestrator.errors import ClusterError
from orchestrator.tracking import SweepRun

__all__ = ["monitored"]

INTERVAL_S = 10.0
"""Between two samples; MLflow's, unless MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL says otherwise."""
SAMPLES_DOUBLE_AFTER = 360
"""Rows after which a row is the mean of twice as many samples: an hour at 10 s, then two at 20 s, four at 40 s …"""
STOP_S = 5.0
"""How long the end of a sweep waits for a collector that hangs."""
COLLECTORS: tuple[type[BaseMetricsMonitor], ...] = (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor)

_log = logging.getLogger(__name__)


@contextmanager
def monitored(run: SweepRun) -> Iterator[None]:
    """Log CPU, memory, disk, network and NVIDIA GPUs of this machine, as MLflow names them, while the context is open.

    A week is some 2,600 rows and not MLflow's 60,480. GPUs need the package nvidia-ml-py. What does not work on this
    machine is left out with a warning.
    """
    ended = threading.Event()
    thread = threading.Thread(target=_monitor, args=(run, ended), name="system metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(STOP_S)


def _monitor(run: SweepRun, ended: threading.Event) -> None:
    """Log a row of means after another, and at the end what was collected of the last."""
    interval_s = MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or INTERVAL_S
    monitors, step = _started(), run.system_steps
    while monitors and not ended.is_set():
        for _ in range(_samples(step)):
            if ended.wait(interval_s):
                break
            monitors = _collected(monitors)
        figures = _means(monitors)
        if not figures:  # it ended before there was a sample
            return
        try:
            run.add_system_metrics(step, figures)
        except ClusterError as error:
            _log.warning("no more system metrics: %s", error)
            return
        step += 1


def _samples(step: int) -> int:
    """Return of how many samples a row is the mean."""
    at_first: int = MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING.get() or 1
    return at_first << step // SAMPLES_DOUBLE_AFTER


def _started() -> list[BaseMetricsMonitor]:
    """Return the collectors that work here, after a first sample that is not used: the CPU's is always 0."""
    monitors = []
    for kind in COLLECTORS:
        try:
            monitors.append(kind())
        except Exception as error:  # noqa: BLE001 - an odd machine raises what it likes, and that is no reason to stop
            if kind is not GPUMonitor or torch.cuda.is_available():
                _leave_out(kind, error)
    monitors = _collected(monitors)
    _means(monitors)
    return monitors


def _collected(monitors: Sequence[BaseMetricsMonitor]) -> list[BaseMetricsMonitor]:
    """Let each collector take a sample, and return those that could."""
    working = []
    for monitor in monitors:
        try:
            monitor.collect_metrics()
            working.append(monitor)
        except Exception as error:  # noqa: BLE001 - as above
            _leave_out(type(monitor), error)
    return working


def _means(monitors: Sequence[BaseMetricsMonitor]) -> dict[str, float]:
    """Return the means of the samples, and forget them."""
    figures: dict[str, float] = {}
    for monitor in monitors:
        figures |= monitor.aggregate_metrics()
        monitor.clear_metrics()
    return figures


def _leave_out(kind: type[BaseMetricsMonitor], error: Exception) -> None:
    _log.warning("no system metrics of MLflow's %s here (%s: %s)", kind.__name__, type(error).__name__, error)
