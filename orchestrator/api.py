"""The Python calls: `run_sweep` does what `python -m orchestrator.sweep` does, `open_sweep` reads a finished sweep."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.results.sweep_result import SweepResult, read_result
from orchestrator.stages.launch import run
from orchestrator.state.settings import PATIENCE_S, SweepSettings
from orchestrator.state.settings_file import read_settings
from orchestrator.state.space import default_name, load_space
from orchestrator.state.workdir import Workdir
from search_spaces import Comparison, Space

__all__ = ["open_sweep", "run_sweep"]


def run_sweep(
    space: str | Path | Space,
    *,
    settings: Mapping[str, Any] | None = None,
    preset: str | None = None,
    trials: int | None = None,
    experts: int | None = None,
    final_seeds: int | None = None,
    networks: int | None = None,
    baselines: str | Sequence[str] | None = None,
    regimes: str | Sequence[str] | None = None,
    seed: int = 0,
    name: str | None = None,
    workdir: str | Path = "runs",
    data: str | Path | None = None,
    address: str = "local",
    concurrent: int | None = None,
    cpus: int | None = None,
    gpus_per_trial: float | str | None = None,
    time_budget_s: float | None = None,
    patience_s: float = PATIENCE_S,
    memory_budget_bytes: float | None = None,
    tracking_uri: str | None = None,
    study_uri: str | None = None,
    storage_path: str | None = None,
    retrain_corrupt: bool = False,
    quiet: bool = False,
) -> SweepResult:
    """Search the distillation settings of a space and measure the best ones on the test split.

    The arguments are the options of `python -m orchestrator.sweep`. An interrupted sweep of the same name is resumed;
    the result of a finished one is read. Ray is started and stopped, unless it runs already. The call works in any
    thread, but only in the main thread do Ctrl-C and SIGTERM stop it in order.

    Args:
        space: The name of a registered space, the path of a Python file, or a space.
        settings: Values of the space to override, by key; `--set`.
        preset: The method whose rules are applied before the overrides.
        trials: Number of trials; None, here and below: the space's.
        experts: Number of experts.
        final_seeds: Fresh distillations of the winner's and the reference's settings in the finals.
        networks: Networks that the finals train on each set.
        baselines: Names of the sets that the finals measure beside random real images; `all` or `none`.
        regimes: Names of the label regimes; `all` or `none`.
        seed: Seed of search and distillation.
        name: Name of the sweep; None: space, date and time.
        workdir: Folder or URI of datasets, experts, sweeps and databases.
        data: Folder of the dataset's own files.
        address: Ray's address: local, auto, HOST:PORT or ray://HOST:PORT. At ray:// the result is read from the
            workdir, which this machine must reach too.
        concurrent: Workers at once; None: all for which there are cores and memory.
        cpus: CPU cores of a Ray that the call starts; None: those that this process was granted.
        gpus_per_trial: GPUs of a worker, above 0 and at most 1, or `auto`; None: one where there is a GPU.
        time_budget_s: Seconds for the search, over all calls. Trials that it cuts off are paused; the same call with a
            larger one continues them and measures anew.
        patience_s: Seconds without progress, while processes are lost, after which the sweep is given up.
        memory_budget_bytes: Bytes for the graphs of a trial's inner steps.
        tracking_uri: MLflow's server; None: SQLite in the workdir.
        study_uri: Database of Optuna's studies; None: SQLite in the workdir.
        storage_path: Path or URI of checkpoints, which all nodes reach; None: the sweep's folder.
        retrain_corrupt: Retrain experts whose files are corrupt.
        quiet: Print only the result, and no progress.

    Returns:
        The sweep's result.

    Raises:
        SpaceError: The space, or a value in it, is invalid.
        UserError: An argument is invalid.
        InputError: The dataset or another file is missing or invalid.
        ClusterError: Ray, MLflow or a disk failed.
        StorageError: A file at a URI cannot be read or written.
        NoTrialSucceeded: All trials failed.
        Stopped: Ctrl-C or SIGTERM ended the sweep; the same call with the same name resumes it.
    """
    if study_uri is not None:
        from orchestrator.search.database import check_study_uri

        check_study_uri(study_uri)
    chosen = load_space(
        space, settings or {}, preset,
        expert_count=experts, trials=trials, final_seeds=final_seeds, final_networks=networks, baselines=baselines,
        regimes=regimes,
    )  # fmt: skip
    if isinstance(chosen, Comparison):
        raise UserError(f"{chosen.name} is a comparison, which has no winner; run python -m orchestrator.baselines")
    sweep_settings = SweepSettings(
        space=chosen,
        name=default_name(chosen) if name is None else name,
        seed=seed,
        workdir=Workdir.at(os.fspath(workdir)),
        address=address,
        concurrent=concurrent,
        cpus=cpus,
        gpus_per_trial=gpus_per_trial,
        time_budget_s=time_budget_s,
        patience_s=patience_s,
        memory_budget_bytes=memory_budget_bytes,
        tracking_uri=tracking_uri,
        study_uri=study_uri,
        storage_path=storage_path,
        data=None if data is None else Path(data),
        preset=preset,
        retrain_corrupt=retrain_corrupt,
        quiet=quiet,
    )
    run(sweep_settings)
    return read_result(sweep_settings)


def open_sweep(name: str, workdir: str | Path = "runs") -> SweepResult:
    """Return the result of a finished sweep.

    Args:
        name: The sweep's name.
        workdir: The sweep's workdir, a folder or URI.

    Raises:
        UserError: The sweep does not exist, is a comparison, or is not finished.
    """
    settings = read_settings(Workdir.at(os.fspath(workdir)), name)
    if isinstance(settings.space, Comparison):
        raise UserError(f"{name!r} is a comparison, which has no winner; its records are in {settings.places.shared}")
    return read_result(settings)
