"""The start of a sweep or comparison: on this machine, or on the cluster at a ray:// address."""

from importlib import import_module

from orchestrator.cluster.guard import continue_in_child
from orchestrator.cluster.probe import check_answers
from orchestrator.errors import ClusterError
from orchestrator.state.settings import SweepSettings
from orchestrator.state.settings_file import check_same_settings
from orchestrator.state.workdir import check_place_writable
from orchestrator.terminal.console import make_console
from orchestrator.terminal.process import owns_process
from search_spaces import Comparison

__all__ = ["outlive_driver", "run"]


def run(settings: SweepSettings) -> None:
    """Run a sweep or a comparison, on this machine or on the cluster at a ray:// address.

    Raises:
        UserError: Before any work: the workdir or the place of checkpoints cannot be written, the sweep exists with
            other settings, or no cluster answers at the address.
        DatasetError: The dataset's files are missing.
        ClusterError: Ray ended the driver.
    """
    settings.workdir.check_writable()
    if settings.storage_path is not None and not settings.address.startswith("ray://"):
        check_place_writable(settings.storage_path, "the place of checkpoints", "--storage-path")
    check_same_settings(settings)
    check_answers(settings.address)
    module, function = ("sweep", "run_sweep")
    if isinstance(settings.space, Comparison):
        module, function = "comparison", "run_comparison"
    if settings.address.startswith("ray://"):
        if not settings.quiet:
            make_console().print(f"Loading Ray, and sending the command to {settings.address}", markup=False)
        from orchestrator.cluster.client import run_on_cluster  # here, because --help and --plan load no ray

        remedy = f"resume with: {settings.resume_command} --address {settings.address}"
        run_on_cluster(f"orchestrator.stages.{module}", function, settings, remedy)
    else:
        outlive_driver(f"resume with: {settings.resume_command}", settings)
        from orchestrator.results.result_json import finished_result  # here: it loads scipy, which --help needs not

        settings.check_dataset()  # before imports that take seconds
        if not settings.quiet and finished_result(settings) is None:
            make_console().print("Loading Ray, PyTorch and MLflow: some seconds")
        getattr(import_module(f"orchestrator.stages.{module}"), function)(settings)


def outlive_driver(remedy: str, sweep: SweepSettings | None = None) -> None:
    """Continue a command in a child process, so that the command can say what happened if Ray ends the driver.

    A call from Python continues in its own process, which a notebook or script shares.

    Args:
        remedy: What to do after the driver was lost.
        sweep: The sweep whose result.json is to say it.

    Raises:
        ClusterError: Ray ended the driver; raised in the first process.
    """

    def lost(reason: str) -> ClusterError:
        if sweep is not None:
            from orchestrator.stages.driver import close_lost  # here: it loads Ray and MLflow

            close_lost(sweep, reason)
        return ClusterError(f"{reason}; {remedy}")

    if owns_process():
        continue_in_child(lost)
