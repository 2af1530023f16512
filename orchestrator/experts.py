"""The command that trains only experts: those that a space can use and the store lacks.

python -m orchestrator.experts --space ti_ranges       only the expert store
"""

from pathlib import Path

import click

from orchestrator.cluster.probe import check_answers
from orchestrator.stages.launch import outlive_driver
from orchestrator.state.settings import SweepSettings
from orchestrator.state.space import load_space
from orchestrator.state.workdir import Workdir
from orchestrator.terminal.options import expert_options, one_line_errors, preset_option, space_option
from orchestrator.terminal.process import OWN_PROCESS
from search_spaces.plain_output import Command


@click.command(cls=Command, help="Train the expert trajectories that a space can use, and nothing else.")
@space_option(required=True)
@expert_options
@preset_option
@one_line_errors
def main(
    space_name: str,
    experts: int | None,
    workdir: str,
    data: Path | None,
    address: str,
    concurrent: int | None,
    cpus: int | None,
    gpus_per_trial: float | str | None,
    patience: float,
    overrides: dict[str, str],
    retrain_corrupt: bool,
    quiet: bool,
    preset: str | None,
) -> None:
    """Run only the expert stage."""
    space = load_space(space_name, overrides, preset, expert_count=experts)
    settings = SweepSettings(
        space=space, name="experts", seed=0, workdir=Workdir.at(workdir), address=address, data=data,
        concurrent=concurrent, cpus=cpus, gpus_per_trial=gpus_per_trial, patience_s=patience,
        retrain_corrupt=retrain_corrupt, quiet=quiet, preset=preset,
    )  # fmt: skip
    settings.workdir.check_writable()
    check_answers(address)
    if address.startswith("ray://"):
        from orchestrator.cluster.client import run_on_cluster

        run_on_cluster("orchestrator.stages.experts", "run_experts", settings, "run the same command again")
    else:
        outlive_driver("trained experts are kept; run the same command again")
        from orchestrator.stages.experts import run_experts  # in the child, after the fork

        run_experts(settings)


if __name__ == "__main__":
    main(obj=OWN_PROCESS)
