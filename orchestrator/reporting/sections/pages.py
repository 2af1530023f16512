"""The section that says where a sweep's runs in MLflow are, and which command opens their pages."""

import shlex
from collections.abc import Mapping

from orchestrator.reporting.templating import render
from orchestrator.state.settings import SweepSettings

__all__ = ["pages_command", "pages_section"]


def pages_command(settings: SweepSettings) -> str:
    """Return the command that opens MLflow's pages about a sweep."""
    words = ["python", "-m", "orchestrator.ui", "--workdir", str(settings.workdir), "--sweep", settings.name]
    return shlex.join(words)


def pages_section(settings: SweepSettings, mlflow: Mapping[str, str]) -> str:
    """Return the section in Markdown.

    Args:
        settings: The sweep's.
        mlflow: `mlflow` of result.json.
    """
    return render("sections/pages.md.j2", mlflow=mlflow, command=pages_command(settings))
