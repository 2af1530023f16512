"""Options that several commands share, and the end of a command by an error."""

import functools
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from orchestrator.errors import ClusterError, NoTrialSucceeded, Stopped, UserError
from orchestrator.terminal.values import DURATION, PATH, SHARE, Refused
from search_spaces import SpaceError
from search_spaces.completion import complete_spaces
from search_spaces.presets import PRESETS
from trainables.errors import InputError
from trainables.storage.atomic import is_disk_full
from trainables.storage.shared_folder import StorageError

__all__ = [
    "data_option",
    "expert_options",
    "json_option",
    "one_line_errors",
    "overrides_option",
    "preset_option",
    "quiet_option",
    "space_option",
    "workdir_option",
]

Command = TypeVar("Command", bound=Callable[..., Any])


def one_line_errors(command: Command) -> Command:
    """End a command at an expected error with one line on stderr and the exit code of the error's class.

    Exit codes: 2 for the user's input, 3 for the cluster, storage or a full disk, 4 if no trial succeeded, 130 if
    stopped by hand. Other errors are raised unchanged.
    """

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
            _end(
                ClusterError(f"the disk{place} is full; free space and run the same command again"),
                ClusterError.exit_code,
            )
        except KeyboardInterrupt:
            _end(Stopped("stopped by hand"), Stopped.exit_code)

    return wrapped  # type: ignore[return-value]


def _end(error: Exception, code: int) -> None:
    click.echo(f"Error: {_one_line(str(error))}", err=True)
    sys.exit(code)


def _one_line(text: str) -> str:
    """Join the lines of a text, and leave out other control characters, which change a terminal.

    Other spaces stay, because a path or a command may hold them.
    """
    line = " ".join(line.strip() for line in text.splitlines() if line.strip())
    return "".join(character for character in line if unicodedata.category(character) != "Cc")


workdir_option = click.option(
    "--workdir", metavar="DIR|URI", default="runs", show_default=True,
    help="Folder or URI (s3://, gs://) for datasets, experts, sweeps and the MLflow and Optuna databases.",
)  # fmt: skip
data_option = click.option("--data", metavar="DIR", type=PATH, help="Folder of the dataset's own files.")
preset_option = click.option(
    "--preset", metavar="NAME",
    help=f"Apply a method's rules to the space, before --set: {', '.join(PRESETS)}.",
)  # fmt: skip
quiet_option = click.option("--quiet", is_flag=True, help="Print only the result and errors, no live view.")


def _keys_and_values(ctx: click.Context, param: click.Parameter, words: tuple[str, ...]) -> dict[str, str]:
    """Return the values of `--set` by key; if a key occurs several times, the last value counts.

    Raises:
        Refused: A word has no equals sign.
    """
    values: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise Refused(param, f"an override is KEY=VALUE, not {word!r}")
        values[key.strip()] = value.strip()
    return values


def overrides_option(purpose: str) -> Callable[[Command], Command]:
    """Return the option `--set`.

    Args:
        purpose: The help text.
    """
    return click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", callback=_keys_and_values, help=purpose
    )


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
        help="Workers at once; default: all for which there are cores and memory. A joined cluster is asked for K "
        "workers, even if fewer fit now.",
    ),
    click.option(
        "--cpus", type=click.IntRange(min=1), metavar="N",
        help="CPU cores of the embedded Ray, one a worker; default: those that this process was granted by taskset, "
        "its control group or Slurm.",
    ),
    click.option(
        "--gpus-per-trial", type=SHARE, metavar="F",
        help="Share of a GPU for each worker, or auto: by a trial's measured memory and time; default: 1, without GPUs "
        "a CPU core.",
    ),
    click.option(
        "--patience", type=DURATION, default="10m", show_default=True, metavar="10m",
        help="Give up after this time without progress, while memory or nodes are lost; until then processes are "
        "started again.",
    ),
    overrides_option("Override a value of the space; may be repeated."),
    click.option("--retrain-corrupt", is_flag=True, help="Retrain experts whose files are corrupt."),
    quiet_option,
)  # fmt: skip


def _check_writable_file(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Refuse, before any measurement, a file that could not be written after it.

    Raises:
        Refused: The file's folder does not exist, or the path is a folder.
    """
    if path is not None and not path.absolute().parent.is_dir():
        raise Refused(param, f"the folder of {path} does not exist; create {path.parent} first")
    if path is not None and path.is_dir():
        raise Refused(param, f"{path} is a folder; name a file in it")
    return path


def json_option(what: str) -> Callable[[Command], Command]:
    """Return the option `--json`, which names a file for the measured values.

    Args:
        what: The content of the file, for the help text.
    """
    return click.option(
        "--json", "json_path", type=PATH, metavar="FILE", callback=_check_writable_file,
        help=f"Write the {what} to this file.",
    )  # fmt: skip


def space_option(*, required: bool) -> Callable[[Command], Command]:
    """Return the option `--space`."""
    return click.option(
        "--space",
        "space_name",
        required=required,
        metavar="NAME",
        shell_complete=complete_spaces,
        help="A registered space, or a Python file.",
    )


def expert_options(command: Command) -> Command:
    """Add the options of every command that needs a space's experts."""
    for option in reversed(_EXPERT_OPTIONS):
        command = option(command)
    return command
