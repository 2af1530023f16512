"""The command that makes reports again.

python -m orchestrator.report --sweep NAME                  a sweep's or a comparison's, from what it has left
python -m orchestrator.report --sweep NAME --sweep OTHER    a page about several sweeps
"""

from typing import Any

import click

from orchestrator.cli import one_line_errors, workdir_option
from orchestrator.errors import UserError
from orchestrator.mirror import Mirror
from orchestrator.settings import SweepSettings
from orchestrator.workdir import Workdir

__all__ = ["main"]


@click.command(help="Make a finished sweep's report again from what it has left, or compare several.")
@workdir_option
@click.option(
    "--sweep", "names", required=True, multiple=True, metavar="SWEEP", help="Name of a sweep; several: a page."
)
@one_line_errors
def main(workdir: str, names: tuple[str, ...]) -> None:
    """Write the report and say where it is."""
    from orchestrator.several import write_comparison

    sweeps = [SweepSettings.stored(Workdir.at(workdir), name) for name in dict.fromkeys(names)]
    if len(sweeps) == 1:
        click.echo(_again(sweeps[0]))
        return
    results = []
    if compared := [settings.name for settings in sweeps if settings.space.ipcs]:
        raise UserError(f"a page about several is of sweeps, and {compared[0]!r} is a comparison; leave it out")
    for settings in sweeps:
        with settings.held():
            Mirror(settings.workdir, settings.name).pull()
            results.append(_finished(settings))
    click.echo(write_comparison(sweeps[0].workdir.root / "reports", list(zip(sweeps, results, strict=True))))


def _again(settings: SweepSettings) -> str:
    """Write a sweep's report again and return where it is."""
    import pyarrow.parquet as pq

    from orchestrator.comparison_report import report_comparison
    from orchestrator.sweep_report import write_report
    from orchestrator.trials import read_parquet

    with settings.held():
        mirror = Mirror(settings.workdir, settings.name)
        mirror.pull()
        result = _finished(settings)
        if settings.space.ipcs:
            report_comparison(settings, result)
            mirror.push()
            return f"{settings.place}/report.html"
        study = settings.folder / "study.parquet"
        rows = pq.read_table(study).to_pylist() if study.exists() else []
        write_report(settings, result, read_parquet(settings.folder / "trials.parquet"), rows)
        mirror.push()
    return f"{settings.place}/report.html"


def _finished(settings: SweepSettings) -> dict[str, Any]:
    """Return what result.json holds of a finished sweep."""
    result = settings.stored_result() or {"status": "not begun"}
    if result["status"] != "finished":
        raise UserError(
            f"only a finished sweep has a report, and {settings.name!r} is {result['status']}; go on with it: "
            f"{settings.resume_command}"
        )
    if "workers" not in result and not settings.space.ipcs:
        raise UserError(f"{settings.folder}/result.json is of an earlier version of this program; run the sweep anew")
    return result


if __name__ == "__main__":
    main()
