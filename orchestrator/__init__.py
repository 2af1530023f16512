"""The orchestration of sweeps: Ray, Optuna, MLflow, reports and the command line.

The names in `__all__` are public. They are imported when they are first used, so that importing the package loads
neither torch nor ray.
"""

import os
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

# Ray reads these when it is imported, here and in child processes: they are set before any module of ours imports it.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # else `uv run` makes Ray build an environment per worker
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # MLflow and the study hold the results
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new output prints its banner even at verbosity 0
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # the user's relative paths stay valid in workers
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # CPU workers need no CUDA_VISIBLE_DEVICES

if TYPE_CHECKING:
    from orchestrator.api import open_sweep as open_sweep
    from orchestrator.api import run_sweep as run_sweep
    from orchestrator.errors import ClusterError as ClusterError
    from orchestrator.errors import NoTrialSucceeded as NoTrialSucceeded
    from orchestrator.errors import Stopped as Stopped
    from orchestrator.errors import UserError as UserError
    from orchestrator.results.sweep_result import SweepResult as SweepResult
    from orchestrator.results.sweep_result import Winner as Winner
    from search_spaces import SpaceError as SpaceError
    from trainables.errors import InputError as InputError
    from trainables.storage.shared_folder import StorageError as StorageError

    __version__: str

_MODULES = {
    "ClusterError": "orchestrator.errors",
    "InputError": "trainables.errors",
    "NoTrialSucceeded": "orchestrator.errors",
    "SpaceError": "search_spaces",
    "Stopped": "orchestrator.errors",
    "StorageError": "trainables.storage.shared_folder",
    "SweepResult": "orchestrator.results.sweep_result",
    "UserError": "orchestrator.errors",
    "Winner": "orchestrator.results.sweep_result",
    "open_sweep": "orchestrator.api",
    "run_sweep": "orchestrator.api",
}
"""The modules that define the public names."""

__all__ = [*_MODULES, "__version__"]  # noqa: PLE0604 - names of the table above


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name == "__version__":  # not at import: workers get the packages without their metadata
        return version("mdatm-sweep")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """Return the names of the package, including the public ones."""
    return sorted({*globals(), *__all__})
