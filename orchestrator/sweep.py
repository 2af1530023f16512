"""The main job: plan → experts → search → finals → report.

python -m orchestrator.sweep --space digits
"""

from pathlib import Path

import click

from orchestrator.errors import UserError
from orchestrator.planning.devices import GPUS, gpu_name
from orchestrator.planning.tables import print_plan
from orchestrator.stages.launch import run
from orchestrator.state.settings import SweepSettings
from orchestrator.state.settings_file import read_settings
from orchestrator.state.space import default_name, load_space
from orchestrator.state.workdir import Workdir
from orchestrator.terminal.completion import complete_sweeps
from orchestrator.terminal.console import make_console
from orchestrator.terminal.options import expert_options, one_line_errors, preset_option, space_option
from orchestrator.terminal.process import OWN_PROCESS
from orchestrator.terminal.values import DURATION, NAMES, SIZE, ListCommand

__all__ = ["main"]

_WITH_RESUME = {
    "address": "address", "concurrent": "concurrent", "cpus": "cpus", "gpus_per_trial": "gpus_per_trial",
    "time_budget": "time_budget_s", "patience": "patience_s", "data": "data", "retrain_corrupt": "retrain_corrupt",
    "quiet": "quiet",
}  # fmt: skip
"""Options that may be given with --resume, and the settings that they set."""


@click.command(cls=ListCommand, help="Search the distillation settings of a space and measure the best ones.")
@space_option(required=False)
@expert_options
@preset_option
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="Number of trials; default: the space's.")
@click.option(
    "--final-seeds",
    type=click.IntRange(min=0),
    metavar="K",
    help="Fresh distillations of the winner's and the reference's settings in the finals; default: the space's.",
)
@click.option(
    "--networks", type=click.IntRange(min=2), metavar="K", help="Networks that the finals train on each set; "
    "default: the space's.",
)  # fmt: skip
@click.option(
    "--baselines", type=NAMES, metavar="NAMES",
    help="Sets that the finals measure beside random real images: names joined by commas, all or none; "
    "default: the space's.",
)  # fmt: skip
@click.option(
    "--regimes", type=NAMES, metavar="NAMES",
    help="Label regimes in which the best set and the baselines are also measured: hard,soft,soft_kd, all or none; "
    "default: the space's.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of search and distillation."
)
@click.option(
    "--name", metavar="SWEEP", help="Name of the sweep; default: space, date and time. Resumes an interrupted sweep."
)
@click.option(
    "--resume",
    metavar="SWEEP",
    shell_complete=complete_sweeps,
    help="Resume a sweep of the workdir with its settings.",
)
@click.option("--plan", is_flag=True, help="Print the planned work and its cost, and start nothing.")
@click.option("--gpu", metavar="NAME", help=f"With --plan: the cost by stage on one of {', '.join(GPUS)}.")
@click.option(
    "--time-budget", type=DURATION, metavar="2h",
    help="Time for the search, without finals and report. Trials that it cuts off are paused; they continue with "
    "--resume SWEEP and a larger one.",
)  # fmt: skip
@click.option(
    "--memory-budget",
    type=SIZE,
    metavar="4GB",
    help="Memory for the graphs of a trial's inner steps; default: its share of the device's memory. The gradient "
    "is the same.",
)
@click.option("--tracking-uri", metavar="URI", help="MLflow server; default: SQLite in the workdir.")
@click.option(
    "--study-uri", metavar="URI",
    help="Database of Optuna's studies, such as postgresql://USER@HOST/DATABASE; default: SQLite in the workdir.",
)  # fmt: skip
@click.option(
    "--storage-path", metavar="URI", help="Place of checkpoints, which all nodes reach; default: the sweep's folder."
)
@click.pass_context
@one_line_errors
def main(
    context: click.Context,
    space_name: str | None,
    experts: int | None,
    trials: int | None,
    final_seeds: int | None,
    networks: int | None,
    baselines: tuple[str, ...] | None,
    regimes: tuple[str, ...] | None,
    seed: int,
    workdir: str,
    name: str | None,
    resume: str | None,
    plan: bool,
    gpu: str | None,
    concurrent: int | None,
    cpus: int | None,
    gpus_per_trial: float | str | None,
    patience: float,
    time_budget: float | None,
    memory_budget: float | None,
    address: str,
    tracking_uri: str | None,
    study_uri: str | None,
    storage_path: str | None,
    data: Path | None,
    overrides: dict[str, str],
    preset: str | None,
    retrain_corrupt: bool,
    quiet: bool,
) -> None:
    """Read the command line, then print the plan or run the sweep."""
    if gpu is not None and not plan:
        raise UserError(
            "--gpu names the GPU of a plan; add --plan, or leave it out: a sweep takes the GPUs that Ray has"
        )
    if study_uri is not None:
        from orchestrator.search.database import check_study_uri

        check_study_uri(study_uri)
    if resume is not None:
        settings = _resumed(context, resume)
    elif space_name is None:
        raise UserError("a sweep needs --space NAME, or --resume SWEEP to resume one")
    else:
        space = load_space(
            space_name, overrides, preset,
            expert_count=experts, trials=trials, final_seeds=final_seeds, final_networks=networks,
            baselines=baselines, regimes=regimes,
        )  # fmt: skip
        settings = SweepSettings(
            space=space,
            name=default_name(space) if name is None else name,
            seed=seed,
            workdir=Workdir.at(workdir),
            address=address,
            concurrent=concurrent,
            cpus=cpus,
            gpus_per_trial=gpus_per_trial,
            time_budget_s=time_budget,
            patience_s=patience,
            memory_budget_bytes=memory_budget,
            tracking_uri=tracking_uri,
            study_uri=study_uri,
            storage_path=storage_path,
            data=data,
            preset=preset,
            retrain_corrupt=retrain_corrupt,
            quiet=quiet,
        )
    console = make_console(quiet=quiet)
    if plan:
        print_plan(console, settings, None if gpu is None else gpu_name(gpu))
        return
    run(settings)


def _resumed(context: click.Context, name: str) -> SweepSettings:
    """Return the stored settings of a sweep, changed by the options that may be given with --resume.

    Raises:
        UserError: Another option is given, or the workdir has no such sweep.
    """
    given = {
        parameter
        for parameter in context.params
        if context.get_parameter_source(parameter) is click.core.ParameterSource.COMMANDLINE
    }
    refused = given - _WITH_RESUME.keys() - {"resume", "workdir", "plan", "gpu"}
    if refused:
        options = {parameter.name: parameter.opts[0] for parameter in context.command.params}
        raise UserError(
            f"--resume reads the sweep's settings from its folder; leave out "
            f"{', '.join(sorted(options[parameter] for parameter in refused))}"
        )
    changes = {field: context.params[option] for option, field in _WITH_RESUME.items() if option in given}
    return read_settings(Workdir.at(context.params["workdir"]), name, **changes)


if __name__ == "__main__":
    main(obj=OWN_PROCESS)
