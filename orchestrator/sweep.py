"""The main job: plan → experts → search → finals → report.

python -m orchestrator.sweep --space digits
"""

from importlib import import_module
from pathlib import Path

import click

from orchestrator.address import check_answers
from orchestrator.cli import (
    DURATION,
    SIZE,
    default_name,
    expert_options,
    load_space,
    one_line_errors,
    preset_option,
    space_option,
)
from orchestrator.console import make_console
from orchestrator.errors import UserError
from orchestrator.plan import print_plan
from orchestrator.settings import SweepSettings, Workdir

__all__ = ["main", "run"]

_WITH_RESUME = {
    "address": "address", "concurrent": "concurrent", "gpus_per_trial": "gpus_per_trial",
    "time_budget": "time_budget_s", "retrain_corrupt": "retrain_corrupt", "quiet": "quiet",
}  # fmt: skip
"""Options that may go with --resume, and the settings they are."""


@click.command(help="Search the distillation settings of a space and say what they are worth.")
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
    "--baselines", metavar="NAMES", help="Sets that the finals measure beside random real images: names joined by "
    "commas, all or none; default: the space's.",
)  # fmt: skip
@click.option(
    "--regimes", metavar="NAMES", help="Label regimes in which the best set and the baselines are measured once more: "
    "hard,soft,soft_kd, all or none; default: the space's.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of search and distillation."
)
@click.option(
    "--name", metavar="SWEEP", help="Name of the sweep; default: space, date and time. One that was cut off goes on."
)
@click.option("--resume", metavar="SWEEP", help="Go on with a sweep of the workdir, with the settings it was given.")
@click.option("--plan", is_flag=True, help="Print what would run and what it would cost, and start nothing.")
@click.option("--time-budget", type=DURATION, metavar="2h", help="Time for the search; finals and report come after.")
@click.option(
    "--memory-budget",
    type=SIZE,
    metavar="4GB",
    help="Memory for the graph of a trial's inner step; default: what the device has free. The gradient is the same.",
)
@click.option("--tracking-uri", metavar="URI", help="MLflow server; default: SQLite in the workdir.")
@click.option(
    "--study-uri", metavar="URI",
    help="Database of Optuna's studies, such as postgresql://USER@HOST/DATABASE; default: SQLite in the workdir.",
)  # fmt: skip
@click.option("--storage-path", metavar="URI", help="Where all nodes reach checkpoints; default: the sweep's folder.")
@click.pass_context
@one_line_errors
def main(
    context: click.Context,
    space_name: str | None,
    experts: int | None,
    trials: int | None,
    final_seeds: int | None,
    networks: int | None,
    baselines: str | None,
    regimes: str | None,
    seed: int,
    workdir: str,
    name: str | None,
    resume: str | None,
    plan: bool,
    concurrent: int | None,
    gpus_per_trial: float | str | None,
    time_budget: float | None,
    memory_budget: float | None,
    address: str,
    tracking_uri: str | None,
    study_uri: str | None,
    storage_path: str | None,
    data: Path | None,
    overrides: tuple[str, ...],
    preset: str | None,
    retrain_corrupt: bool,
    quiet: bool,
) -> None:
    """Read the command line, then plan or run."""
    if study_uri is not None:
        from orchestrator.study_storage import check_study_uri

        check_study_uri(study_uri)
    if resume is not None:
        settings = _resumed(context, resume)
    elif space_name is None:
        raise UserError("a sweep needs --space NAME, or --resume SWEEP to go on with one")
    else:
        space = load_space(
            space_name, overrides, preset,
            expert_count=experts, trials=trials, final_seeds=final_seeds, final_networks=networks,
            baselines=baselines, regimes=regimes,
        )  # fmt: skip
        settings = SweepSettings(
            space=space,
            name=name or default_name(space),
            seed=seed,
            workdir=Workdir.at(workdir),
            address=address,
            concurrent=concurrent,
            gpus_per_trial=gpus_per_trial,
            time_budget_s=time_budget,
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
        print_plan(console, settings)
        return
    run(settings)


def run(settings: SweepSettings) -> None:
    """Run a sweep or a comparison, here or on the cluster at a ray:// address; what cannot work is refused first."""
    settings.workdir.check_writable()
    settings.check_same()
    check_answers(settings.address)
    module, function = ("comparison", "run_comparison") if settings.space.ipcs else ("stages", "run_sweep")
    if settings.address.startswith("ray://"):
        from orchestrator.remote import run_on_cluster  # only now: --help and --plan load neither torch nor ray

        run_on_cluster(f"orchestrator.{module}", function, settings)
    else:
        settings.check_dataset()  # at once, before seconds of imports
        getattr(import_module(f"orchestrator.{module}"), function)(settings)


def _resumed(context: click.Context, name: str) -> SweepSettings:
    """Return the settings of a sweep to go on with, and how it is to run from now on."""
    given = {
        parameter
        for parameter in context.params
        if context.get_parameter_source(parameter) is click.core.ParameterSource.COMMANDLINE
    }
    own = given - _WITH_RESUME.keys() - {"resume", "workdir", "plan"}
    if own:
        options = {parameter.name: parameter.opts[0] for parameter in context.command.params}
        raise UserError(
            f"--resume takes what the sweep was asked to do from its settings; leave out "
            f"{', '.join(sorted(options[each] for each in own))}"
        )
    how_it_runs = {field: context.params[option] for option, field in _WITH_RESUME.items() if option in given}
    return SweepSettings.stored(Workdir.at(context.params["workdir"]), name, **how_it_runs)


if __name__ == "__main__":
    main()
