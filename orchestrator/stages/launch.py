"""The start of a sweep or comparison: on this machine, or on the cluster at a ray:// address."""

from importlib import import_module

from orchestrator.cluster.probe import check_answers
from orchestrator.state.settings import SweepSettings
from orchestrator.state.settings_file import check_same_settings
from orchestrator.terminal.console import make_console
from search_spaces import Comparison

__all__ = ["run"]


def run(settings: SweepSettings) -> None:
    """Run a sweep or a comparison, on this machine or on the cluster at a ray:// address.

    Raises:
        UserError: Before any work: the workdir is not writable, the sweep exists with other settings, or no cluster
            answers at the address.
        DatasetError: The dataset's files are missing.
    """
    settings.workdir.check_writable()
    check_same_settings(settings)
    check_answers(settings.address)
    module, function = ("sweep", "run_sweep")
    if isinstance(settings.space, Comparison):
        module, function = "comparison", "run_comparison"
    if settings.address.startswith("ray://"):
        if not settings.quiet:
            make_console().print(f"Loading Ray, and sending the command to {settings.address}", markup=False)
        from orchestrator.cluster.client import run_on_cluster  # here, because --help and --plan load no ray

        run_on_cluster(f"orchestrator.stages.{module}", function, settings)
    else:
        from orchestrator.results.result_json import finished_result  # here: it loads scipy, which --help needs not

        settings.check_dataset()  # before imports that take seconds
        if not settings.quiet and finished_result(settings) is None:
            make_console().print("Loading Ray, PyTorch and MLflow: some seconds")
        getattr(import_module(f"orchestrator.stages.{module}"), function)(settings)
