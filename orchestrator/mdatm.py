"""The console command `mdatm`: every command of the project as a subcommand.

mdatm sweep --space digits      the same as python -m orchestrator.sweep --space digits
"""

import sys
from importlib import import_module
from typing import Any, NamedTuple

import click

from orchestrator.terminal.process import OWN_PROCESS

__all__ = ["main", "run"]


class _Command(NamedTuple):
    module: str
    help: str
    """The command's own help, which the list shows without importing the module."""


_COMMANDS = {
    "inspect": _Command(
        "orchestrator.inspect", "Say what is in a folder of pictures, and write a space for it, before any sweep."
    ),
    "sweep": _Command("orchestrator.sweep", "Search the distillation settings of a space and measure the best ones."),
    "experts": _Command(
        "orchestrator.experts", "Train the expert trajectories that a space can use, and nothing else."
    ),
    "evaluate": _Command(
        "orchestrator.evaluate", "Train fresh networks on a synthetic set and test them on real images."
    ),
    "baselines": _Command(
        "orchestrator.baselines", "Compare coresets, RDED, CA2D, SRe2L, DM, DC and M-DATM, by label regime."
    ),
    "dcs": _Command(
        "orchestrator.dcs", "Measure how distillation losses correlate with the quality of sets of equal size."
    ),
    "status": _Command(
        "orchestrator.status",
        "Say what the sweeps of a workdir do: stage, trials, best so far, time left, how to go on.",
    ),
    "report": _Command(
        "orchestrator.report", "Write a sweep's report from its files, also while it runs, or compare several sweeps."
    ),
    "export": _Command(
        "orchestrator.export",
        "Write a synthetic set as image files, Parquet, a hub's folder, .npz or .pt, for other tools.",
    ),
    "ui": _Command(
        "orchestrator.ui", "Show MLflow's pages about a sweep's trials; serves them on 127.0.0.1 if no server does."
    ),
    "spaces": _Command(
        "search_spaces.__main__",
        "List spaces and presets, or show SPACE: one of those spaces, or the path of a .py file that sets SPACE.",
    ),
}


class _Group(click.Group):
    """Imports a command's module when the command or its own help is requested."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command; its output is written with the characters that the terminal has."""
        if not all(str(stream.encoding).lower().startswith("utf") for stream in (sys.stdout, sys.stderr)):
            from search_spaces.plain_output import use_known_characters  # here, because it loads the spaces

            use_known_characters()
        return super().main(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they are used."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; None: no command has that name."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(_COMMANDS[cmd_name].module).main
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands; click's own method would import every module."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in _COMMANDS.items()])


@click.command(
    cls=_Group,
    help="Distil a small synthetic dataset from yours with M-DATM, and measure its quality.",
    epilog="`mdatm COMMAND --help` lists the options of a command. Shell completion: eval "
    '"$(_MDATM_COMPLETE=bash_source mdatm)", with zsh_source or fish_source for those shells.',
)
@click.version_option(package_name="mdatm-sweep")
def main() -> None:
    """Run a command."""


def run() -> None:
    """Run the console command, for which this process exists."""
    main(prog_name="mdatm", obj=OWN_PROCESS)


if __name__ == "__main__":
    run()
