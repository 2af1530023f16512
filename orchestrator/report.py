"""The command that rewrites reports.

python -m orchestrator.report --sweep NAME                  of a sweep or a comparison, from its files
python -m orchestrator.report --sweep NAME,OTHER            a page about several sweeps
"""

import click

from orchestrator.errors import UserError
from orchestrator.results.result_json import require_finished
from orchestrator.state.lock import exclusive_lock
from orchestrator.state.mirror import Mirror
from orchestrator.state.settings import SweepSettings
from orchestrator.state.settings_file import read_settings
from orchestrator.state.workdir import Workdir
from orchestrator.terminal.completion import complete_sweeps
from orchestrator.terminal.options import one_line_errors, workdir_option
from orchestrator.terminal.values import NAMES, ListCommand
from search_spaces import Comparison

__all__ = ["main"]


@click.command(cls=ListCommand, help="Rewrite a finished sweep's report from its files, or compare several sweeps.")
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
    from orchestrator.reporting.side_by_side import write_comparison

    sweeps = [read_settings(Workdir.at(workdir), name) for name in dict.fromkeys(names)]
    if len(sweeps) == 1:
        click.echo(_rewrite_report(sweeps[0]))
        return
    results = []
    if compared := [settings.name for settings in sweeps if isinstance(settings.space, Comparison)]:
        raise UserError(f"only sweeps can be shown side by side, and {compared[0]!r} is a comparison; leave it out")
    for settings in sweeps:
        with exclusive_lock(settings.places):
            Mirror(settings.workdir, settings.name).pull()
            results.append(require_finished(settings))
    click.echo(write_comparison(sweeps[0].workdir.root / "reports", list(zip(sweeps, results, strict=True))))


def _rewrite_report(settings: SweepSettings) -> str:
    """Write the report of a sweep or comparison from its files, and return its path or URI."""
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
