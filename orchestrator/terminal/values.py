"""Types of option values: durations, sizes, shares of a GPU, paths, and several values joined by commas."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from orchestrator.errors import UserError
from search_spaces.plain_output import Command
from trainables.errors import InputError
from trainables.storage.paths import path_of

__all__ = ["DURATION", "NAMES", "PATH", "SHARE", "SIZE", "ListCommand", "Refused", "ValueList"]


class Refused(click.ClickException):
    """An invalid value, reported in one line: click's own errors add two lines about the usage."""

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
            raise Refused(param, f"{value!r} is not a duration; write 90s, 45m, 2h or 1.5d")
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
            raise Refused(param, f"{value!r} is not an amount of memory; write 800MB or 4GB")
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
            raise Refused(param, f"{value!r} is no share of a GPU; write auto, or a number above 0 and at most 1")
        return share


SHARE = _Share()


class _Path(click.ParamType):
    """A file or folder; `~` is the home folder, also where the shell leaves it, as in `--data=~/images`."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path, with `~` expanded."""
        try:
            return path_of(value, param.opts[0] if param else "the path")
        except InputError as error:
            raise Refused(None, str(error)) from None

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Let the shell complete the names of files."""
        return [CompletionItem(incomplete, type="file")]


PATH = _Path()


class ValueList(click.ParamType):
    """One value, or several joined by commas: `--ipc 1,5,10`; a command with such options is a `ListCommand`."""

    def __init__(self, item: click.ParamType) -> None:
        """Create the type of a list whose values are of a type."""
        self.item = item
        self.name = f"{item.name} list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """Return the values, in the order given.

        Raises:
            Refused: A value is empty, or is not of the type.
        """
        parts = value.split(",") if isinstance(value, str) else value
        if "" in parts:
            raise Refused(param, f"{value!r} has an empty value; write a value before and after every comma")
        if isinstance(value, str) and self.item is not PATH and re.search(r"\s", value.strip()):
            raise Refused(param, _joined(param, re.split(r"[\s,]+", value.strip())))
        try:
            return tuple(self.item.convert(part, param, ctx) for part in parts)
        except click.BadParameter as error:
            raise Refused(param, error.message) from None


NAMES = ValueList(click.STRING)


class ListCommand(Command):
    """A command that refuses several values that are not joined by commas, in one line that shows the right form."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse `--ipc 1 5` and `--ipc 1 --ipc 5`, then parse; the command has no positional arguments.

        Raises:
            Refused: Several values are not joined by commas.
        """
        for option in self.params:
            if isinstance(option.type, ValueList):
                occurrences = [
                    _values(args, index) for index, word in enumerate(args) if word.split("=")[0] in option.opts
                ]
                if len(occurrences) > 1 or any(len(values) > 1 for values in occurrences):
                    raise Refused(option, _joined(option, [value for values in occurrences for value in values]))
        return super().parse_args(ctx, args)


def _values(args: Sequence[str], index: int) -> list[str]:
    """Return the values of the option at an index: the part after `=`, and the words up to the next option."""
    _, equals, value = args[index].partition("=")
    values = [value] if equals else []
    for word in args[index + 1 :]:
        if word.startswith("-"):
            break
        values.append(word)
    return values


def _joined(param: click.Parameter | None, words: Sequence[str]) -> str:
    option = f"{param.opts[0]} " if param else ""
    return f"several values are joined by commas: {option}{','.join(words)}"
