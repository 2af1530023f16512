"""System metrics of the driver's machine during a sweep: MLflow's own collectors, journalled for the parent run.

MLflow's own monitor would send the samples itself, and stop for good when the server is unreachable.
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
from orchestrator.tracking.sweep_run import SweepRun

__all__ = ["monitored"]

INTERVAL_S = 10.0
"""Seconds between two samples; MLflow's default, unless MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL says otherwise."""
SAMPLES_DOUBLE_AFTER = 360
"""Rows after which a row is the mean of twice as many samples: an hour at 10 s, then two at 20 s, four at 40 s …"""
STOP_S = 5.0
"""Seconds that the end of a sweep waits for a collector that hangs."""
COLLECTORS: tuple[type[BaseMetricsMonitor], ...] = (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor)

_log = logging.getLogger(__name__)


@contextmanager
def monitored(run: SweepRun) -> Iterator[None]:
    """Log CPU, memory, disk, network and NVIDIA GPUs of this machine, as MLflow names them, while the context is open.

    A week has some 2,600 rows, not MLflow's 60,480. GPUs need the package nvidia-ml-py. Collectors that do not work on
    this machine are left out with a warning.
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
    """Log rows of means until the end, the last row from the samples so far."""
    interval_s = MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or INTERVAL_S
    monitors, step = _start_collectors(), run.system_steps
    while monitors and not ended.is_set():
        for _ in range(_samples(step)):
            if ended.wait(interval_s):
                break
            monitors = _collect(monitors)
        figures = _means(monitors)
        if not figures:  # the sweep ended before the first sample
            return
        try:
            run.add_system_metrics(step, figures)
        except ClusterError as error:
            _log.warning("no more system metrics: %s", error)
            return
        step += 1


def _samples(step: int) -> int:
    """Return the number of samples whose mean a row is."""
    at_first: int = MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING.get() or 1
    return at_first << step // SAMPLES_DOUBLE_AFTER


def _start_collectors() -> list[BaseMetricsMonitor]:
    """Return the collectors that work here, after a first sample that is not used: the CPU's is always 0."""
    monitors = []
    for kind in COLLECTORS:
        try:
            monitors.append(kind())
        except Exception as error:  # noqa: BLE001 - collectors may raise any error, which must not stop a sweep
            if kind is not GPUMonitor or torch.cuda.is_available():
                _leave_out(kind, error)
    monitors = _collect(monitors)
    _means(monitors)
    return monitors


def _collect(monitors: Sequence[BaseMetricsMonitor]) -> list[BaseMetricsMonitor]:
    """Take a sample with every collector, and return those that work."""
    working = []
    for monitor in monitors:
        try:
            monitor.collect_metrics()
            working.append(monitor)
        except Exception as error:  # noqa: BLE001 - as above
            _leave_out(type(monitor), error)
    return working


def _means(monitors: Sequence[BaseMetricsMonitor]) -> dict[str, float]:
    """Return the means of the samples, and clear them."""
    figures: dict[str, float] = {}
    for monitor in monitors:
        figures |= monitor.aggregate_metrics()
        monitor.clear_metrics()
    return figures


def _leave_out(kind: type[BaseMetricsMonitor], error: Exception) -> None:
    _log.warning("%s does not work here and is left out (%s: %s)", kind.__name__, type(error).__name__, error)
