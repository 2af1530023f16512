"""A DeprecationWarning fails a test where our own code causes it, and is ignored where another package does.

Warnings that our code logs are printed, whatever the libraries set.
"""

import subprocess
import sys
import warnings
from typing import Any

import pytest


def warn_in(module: str) -> None:
    """Warn as a statement of a module does."""
    namespace: dict[str, Any] = {"__name__": module, "warnings": warnings}
    exec("warnings.warn('use the new name', DeprecationWarning)", namespace)


@pytest.mark.parametrize(
    "module", ["orchestrator", "orchestrator.sweep", "trainables.data", "search_spaces", "benchmarks.scale"]
)
def test_ours_fails(module: str) -> None:
    with pytest.raises(DeprecationWarning, match="use the new name"):
        warn_in(module)


@pytest.mark.parametrize("module", ["ray.tune", "mlflow", "orchestrators"])
def test_anothers_is_ignored(module: str) -> None:
    warn_in(module)


def test_what_we_warn_of_is_printed_in_a_process_that_runs_a_sweep() -> None:
    code = (
        "import logging, orchestrator.stages.sweep\n"
        "from orchestrator.tracking.served_model import _load_flavor\n"
        "_load_flavor()\n"
        "logging.getLogger('orchestrator.search.view').warning('heard')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr.splitlines()[-1] == "heard", done.stderr
