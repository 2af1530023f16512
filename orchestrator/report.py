"""The command that writes reports.

python -m orchestrator.report --sweep NAME              of a sweep or a comparison, from its files, also while it runs
python -m orchestrator.report --sweep NAME,OTHER        a page about several sweeps
"""

from typing import TYPE_CHECKING

import click

from orchestrator.errors import UserError
from orchestrator.results.result_json import require_finished
from orchestrator.state.lock import exclusive_lock
from orchestrator.state.looking import fetch
from orchestrator.state.mirror import Mirror
from orchestrator.state.settings import SweepSettings
from orchestrator.state.settings_file import read_settings
from orchestrator.state.workdir import Workdir
from orchestrator.terminal.completion import complete_sweeps
from orchestrator.terminal.options import one_line_errors, workdir_option
from orchestrator.terminal.values import NAMES, ListCommand
from search_spaces import Comparison

if TYPE_CHECKING:
    from orchestrator.results.standing import Standing

__all__ = ["main"]


@click.command(
    cls=ListCommand, help="Write a sweep's report from its files, also while it runs, or compare several sweeps."
)
@workdir_option
@click.option(
    "--sweep",
    "names",
    required=True,
    type=NAMES,
    metavar="SWEEP,…",
    shell_complete=complete_sweeps,
    help="Name of a sweep; several, joined by commas: a page that compares them.",
)
@one_line_errors
def main(workdir: str, names: tuple[str, ...]) -> None:
    """Write the report and print its path."""
    sweeps = [read_settings(Workdir.at(workdir), name) for name in dict.fromkeys(names)]
    if len(sweeps) == 1:
        click.echo(_write_report(sweeps[0]))
        return
    if compared := [settings.name for settings in sweeps if isinstance(settings.space, Comparison)]:
        raise UserError(f"only sweeps can be shown side by side, and {compared[0]!r} is a comparison; leave it out")
    from orchestrator.reporting.side_by_side import write_comparison

    standings = [_standing(settings) for settings in sweeps]
    for standing in standings:
        if not (standing.result and standing.result["best"]):
            raise UserError(
                f"{standing.settings.name!r} is {standing.state}, and no trial of it has reached a rung; leave it out"
            )
    click.echo(write_comparison(sweeps[0].workdir.root / "reports", standings))


def _standing(settings: SweepSettings) -> "Standing":
    """Return the standing of a sweep, whose folder is brought up to date."""
    from orchestrator.results.standing import read_standing

    standing = read_standing(settings)
    fetch(settings.places)
    return standing


def _write_report(settings: SweepSettings) -> str:
    """Write the report of a sweep or comparison from its files, and return its path or URI.

    Only a finished one has nobody who pushes its folder to a workdir's URI; the others' reports stay here.
    """
    from orchestrator.reporting.interim import write_interim_report
    from orchestrator.results.trials import read_parquet

    standing = _standing(settings)
    folder = settings.places.folder
    if standing.state == "finished":
        return _rewrite_report(settings)
    if standing.result is None or standing.under_way is None:
        raise UserError(
            f"{settings.name!r} is {standing.state} and has nothing to report yet; resume it: {settings.resume_command}"
        )
    is_comparison = isinstance(settings.space, Comparison)
    write_interim_report(standing, [] if is_comparison else read_parquet(folder / "trials.parquet", settings.fixed))
    return f"{folder}/report.html"


def _rewrite_report(settings: SweepSettings) -> str:
    """Write the report of a finished sweep or comparison from its files, and return its path or URI."""
    import pyarrow.parquet as pq

    from orchestrator.reporting.comparison import report_comparison
    from orchestrator.reporting.sweep import write_report
    from orchestrator.results.trials import read_parquet

    with exclusive_lock(settings.places):
        mirror = Mirror(settings.workdir, settings.name)
        mirror.pull()
        result = require_finished(settings)
        if isinstance(settings.space, Comparison):
            report_comparison(settings, result)
            mirror.push()
            return f"{settings.places.shared}/report.html"
        study = settings.places.folder / "study.parquet"
        rows = pq.read_table(study).to_pylist() if study.exists() else []
        write_report(settings, result, read_parquet(settings.places.folder / "trials.parquet", settings.fixed), rows)
        mirror.push()
    return f"{settings.places.shared}/report.html"


if __name__ == "__main__":
    main()
