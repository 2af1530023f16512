"""What the commands' command lines share: options, and how an error ends a command."""

import functools
import math
import re
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from orchestrator.errors import ClusterError, NoTrialSucceeded, Stopped, UserError
from search_spaces import Space, SpaceError, load
from search_spaces.presets import PRESETS
from search_spaces.presets import preset as find_preset
from trainables.errors import InputError
from trainables.files import is_disk_full
from trainables.storage import StorageError

__all__ = [
    "DURATION",
    "SIZE",
    "SeveralValues",
    "data_option",
    "default_name",
    "expert_options",
    "json_option",
    "load_space",
    "one_line_errors",
    "preset_option",
    "quiet_option",
    "space_option",
    "workdir_option",
]

Command = TypeVar("Command", bound=Callable[..., Any])


def one_line_errors(command: Command) -> Command:
    """End a command with one line on stderr and the contract's exit code where the error is an expected one."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (UserError, ClusterError, NoTrialSucceeded, Stopped) as error:
            _end(error, error.exit_code)
        except (InputError, SpaceError) as error:
            _end(error, UserError.exit_code)
        except StorageError as error:
            _end(error, ClusterError.exit_code)
        except OSError as error:
            if not is_disk_full(error):
                raise
            place = f" of {error.filename}" if error.filename else ""
            _end(ClusterError(f"the disk{place} is full; free space there and go on"), ClusterError.exit_code)
        except KeyboardInterrupt:
            _end(Stopped("stopped by hand"), Stopped.exit_code)

    return wrapped  # type: ignore[return-value]


def _end(error: Exception, code: int) -> None:
    click.echo(f"Error: {' '.join(str(error).split())}", err=True)
    sys.exit(code)


class SeveralValues(click.Command):
    """A command whose options `--ipc` and `--synthetic` take all words that follow them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Say the option again before every further word; the command has no arguments of its own."""
        said: list[str] = []
        option = ""
        for word in args:
            if word.startswith("-"):
                option = word if word in ("--ipc", "--synthetic") else ""
            elif option and said[-1] != option:
                said.append(option)
            said.append(word)
        return super().parse_args(ctx, said)


class _Refused(click.ClickException):
    """A value that is none of its kind, said in one line: click's own errors add two about the usage."""

    exit_code = UserError.exit_code

    def __init__(self, param: click.Parameter | None, message: str) -> None:
        super().__init__(f"{param.opts[0]}: {message}" if param else message)


class _Duration(click.ParamType):
    """A time such as 90s, 45m, 2h or 1.5d; a bare number is seconds."""

    name = "duration"
    _seconds = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}  # noqa: RUF012 - click keeps types as instances

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", value.strip())
        if not match or float(match[1]) == 0:
            raise _Refused(param, f"{value!r} is no duration; write 90s, 45m, 2h or 1.5d")
        return float(match[1]) * self._seconds[match[2]]


DURATION = _Duration()


class _Size(click.ParamType):
    """An amount of memory such as 800MB or 4GB; GB are 10⁹ bytes, GiB 2³⁰."""

    name = "size"
    _bytes = {"B": 1, "MB": 1e6, "GB": 1e9, "MIB": 2**20, "GIB": 2**30}  # noqa: RUF012 - as above

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return bytes."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MG]I?B|B)", value.strip().upper())
        if not match or float(match[1]) == 0:
            raise _Refused(param, f"{value!r} is no amount of memory; write 800MB or 4GB")
        return float(match[1]) * self._bytes[match[2]]


SIZE = _Size()


class _Share(click.ParamType):
    """A share of one GPU, or `auto`."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """Return GPUs, in (0, 1], or `auto`."""
        if value == "auto":
            return "auto"
        try:
            share = float(value)
        except ValueError:
            share = math.nan
        if not 0 < share <= 1:
            raise _Refused(param, f"{value!r} is no share of a GPU; write auto, or a number above 0 and at most 1")
        return share


SHARE = _Share()

workdir_option = click.option(
    "--workdir", metavar="DIR|URI", default="runs", show_default=True,
    help="Folder or URI (s3://, gs://) for datasets, experts, sweeps and the MLflow and Optuna databases.",
)  # fmt: skip
data_option = click.option(
    "--data", metavar="DIR", type=click.Path(path_type=Path), help="Where the dataset's own files are."
)
preset_option = click.option(
    "--preset", metavar="NAME",
    help=f"Apply a method's rules to the space, before --set: {', '.join(PRESETS)}.",
)  # fmt: skip
quiet_option = click.option("--quiet", is_flag=True, help="No live view; only the result and errors.")

_EXPERT_OPTIONS = (
    click.option("--experts", type=click.IntRange(min=1), metavar="E", help="Number of experts; default: the space's."),
    workdir_option,
    data_option,
    click.option(
        "--address", default="local", show_default=True, metavar="ADDRESS",
        help="Ray: local (embedded), auto, HOST:PORT or ray://HOST:PORT.",
    ),
    click.option(
        "--concurrent", type=click.IntRange(min=1), metavar="K",
        help="Workers at once; default: all that fit. On a cluster so many are asked for, though fewer fit now.",
    ),
    click.option(
        "--gpus-per-trial", type=SHARE, metavar="F",
        help="Share of a GPU a worker takes, or auto: as the measured memory of a trial allows; default: 1, or a CPU.",
    ),
    click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value of the space."),
    click.option("--retrain-corrupt", is_flag=True, help="Train experts again whose files are corrupt."),
    quiet_option,
)  # fmt: skip


def _in_a_folder(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Refuse now a file that could not be written when all has been measured."""
    if path is not None and not path.absolute().parent.is_dir():
        raise _Refused(param, f"{path} is in no folder; make {path.parent} first")
    if path is not None and path.is_dir():
        raise _Refused(param, f"{path} is a folder; name a file in it")
    return path


def json_option(what: str) -> Callable[[Command], Command]:
    """Return the option that names a file for what was measured."""
    return click.option(
        "--json", "json_path", type=click.Path(path_type=Path), metavar="FILE", callback=_in_a_folder,
        help=f"Write the {what} there.",
    )  # fmt: skip


def space_option(*, required: bool) -> Callable[[Command], Command]:
    """Return the option that names the space."""
    return click.option(
        "--space", "space_name", required=required, metavar="NAME", help="A registered space, or a Python file."
    )


def expert_options(command: Command) -> Command:
    """Add the options of every command that needs a space's experts."""
    for option in reversed(_EXPERT_OPTIONS):
        command = option(command)
    return command


def load_space(name: str, overrides: tuple[str, ...], preset: str | None = None, **options: int | str | None) -> Space:
    """Load a space and apply a preset's rules, then `--set` and those options (such as trials=8) that were given."""
    settings: dict[str, Any] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise UserError(f"--set takes KEY=VALUE, not {override!r}")
        settings[key.strip()] = value.strip()
    for key, given in options.items():
        if given is not None:
            settings[key] = given
    space = load(name)
    if preset is not None:
        space = space.override(find_preset(preset).rules, source=f"--preset {preset}")
    return space.override(settings) if settings else space


def default_name(space: Space) -> str:
    """Return the name of a sweep that was given none."""
    return f"{space.name}-{datetime.now():%Y%m%d-%H%M%S}"
