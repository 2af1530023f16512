"""The start of a sweep or comparison: on this machine, or on the cluster at a ray:// address."""

from importlib import import_module

from orchestrator.cluster.probe import check_answers
from orchestrator.state.settings import SweepSettings
from orchestrator.state.settings_file import check_same_settings
from orchestrator.state.workdir import check_place_writable
from search_spaces import Comparison

__all__ = ["run"]


def run(settings: SweepSettings) -> None:
    """Run a sweep or a comparison, on this machine or on the cluster at a ray:// address.

    Raises:
        UserError: Before any work: the workdir or the place of checkpoints cannot be written, the sweep exists with
            other settings, or no cluster answers at the address.
        DatasetError: The dataset's files are missing.
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
        from orchestrator.cluster.client import run_on_cluster  # here, because --help and --plan load no ray

        run_on_cluster(f"orchestrator.stages.{module}", function, settings)
    else:
        settings.check_dataset()  # before imports that take seconds
        getattr(import_module(f"orchestrator.stages.{module}"), function)(settings)
