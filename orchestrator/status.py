"""The command that says what the sweeps of a workdir do, while they run and after.

python -m orchestrator.status              all sweeps of the workdir
python -m orchestrator.status NAME --watch
"""

import json
import time

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from orchestrator.errors import ClusterError, UserError
from orchestrator.state.settings_file import read_settings
from orchestrator.state.workdir import Workdir
from orchestrator.terminal.completion import complete_sweeps
from orchestrator.terminal.console import make_console
from orchestrator.terminal.options import one_line_errors, workdir_option
from search_spaces.plain_output import Command

__all__ = ["main"]

REFRESH_S = 2.0


@click.command(
    cls=Command, help="Say what the sweeps of a workdir do: stage, trials, best so far, time left, how to go on."
)
@click.argument("sweep", required=False, metavar="[SWEEP]", shell_complete=complete_sweeps)
@workdir_option
@click.option("--watch", is_flag=True, help="Refresh until Ctrl-C, or until none of the sweeps runs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a list of sweeps.")
@one_line_errors
def main(sweep: str | None, workdir: str, watch: bool, as_json: bool) -> None:
    """Print the standings."""
    place, console = Workdir.at(workdir), make_console()
    if watch and as_json:
        raise UserError("--watch shows text for people; leave out --watch or --json")
    if watch:
        _watch(console, place, sweep)
        return
    facts, lines, _ = _read(place, sweep)
    if as_json:
        click.echo(json.dumps(facts, indent=1))
    else:
        console.print(_text(lines), soft_wrap=True)


def _watch(console: Console, workdir: Workdir, sweep: str | None) -> None:
    """Show the standings until none of the sweeps runs: on a terminal in place, else whenever they have changed."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                _, lines, running = _read(workdir, sweep)
                live.update(_text(lines), refresh=True)
                if not running:
                    return
                time.sleep(REFRESH_S)
    before = None
    while True:
        _, lines, running = _read(workdir, sweep)
        if lines != before:
            console.print(_text(lines), soft_wrap=True)
        if not running:
            return
        before = lines
        time.sleep(REFRESH_S)


def _read(workdir: Workdir, sweep: str | None) -> tuple[list[dict[str, object]], list[str], bool]:
    """Return the sweeps' facts, their lines, and whether any of them runs.

    A sweep that cannot be read is one line, unless it is the only one.

    Raises:
        UserError: The workdir has no such sweep, or none.
        ClusterError: The named sweep cannot be read.
    """
    from orchestrator.reporting.standing import facts_of, lines_of  # here: pandas and scipy take a second to load
    from orchestrator.results.standing import read_standing
    from orchestrator.tracking.unsent import unsent_entries

    names = workdir.sweeps() if sweep is None else [sweep]
    if not names:
        raise UserError(f"there is no sweep in {workdir}; run one, or check --workdir")
    facts: list[dict[str, object]] = []
    lines: list[str] = []
    running = False
    for name in names:
        try:
            settings = read_settings(workdir, name)
            standing = read_standing(settings)
            unsent = None if standing.elsewhere else unsent_entries(settings.places.folder)
        except (UserError, ClusterError) as error:
            if sweep is not None:
                raise
            facts.append({"sweep": name, "state": None, "error": str(error)})
            lines += ["", f"{name}: cannot be read: {error}"]
            continue
        running = running or not standing.state.ended
        facts.append(facts_of(standing, unsent))
        lines += ["", *lines_of(standing, unsent)]
    return facts, lines[1:], running


def _text(lines: list[str]) -> Text:
    return Text("\n".join(lines))


if __name__ == "__main__":
    main()
