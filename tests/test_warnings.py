"""A DeprecationWarning fails a test where our own code causes it, and is ignored where another package does."""

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
