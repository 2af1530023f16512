"""Several values of an option are joined by commas; any other form is refused in one line that says so."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from benchmarks import experts as experts_benchmark
from benchmarks import gradient, scale, sharing
from orchestrator import baselines, dcs, report, sweep
from orchestrator.terminal.values import NAMES, PATH, ListCommand, ValueList


@click.command(cls=ListCommand)
@click.option("--ipc", type=ValueList(click.IntRange(min=1)), default="1,5")
@click.option("--file", type=ValueList(PATH), default=())
@click.option("--flag", is_flag=True)
def command(ipc: tuple[int, ...], file: tuple[Path, ...], flag: bool) -> None:
    click.echo(f"{ipc} {[str(path) for path in file]} {flag}")


@pytest.mark.parametrize(
    ("words", "read"),
    [
        ([], "(1, 5) [] False"),
        (["--ipc", "10"], "(10,) [] False"),
        (["--ipc", "10,1", "--flag"], "(10, 1) [] True"),
        (["--ipc=2,3"], "(2, 3) [] False"),
        (["--file", "a b,c"], "(1, 5) ['a b', 'c'] False"),
    ],
)
def test_values_are_read_in_the_order_given(words: list[str], read: str) -> None:
    done = CliRunner().invoke(command, words)
    assert (done.exit_code, done.output.strip()) == (0, read)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ipc", "1", "5", "10"], "--ipc: several values are joined by commas: --ipc 1,5,10"),
        (["--ipc", "1", "--flag", "--ipc", "5"], "--ipc: several values are joined by commas: --ipc 1,5"),
        (["--ipc=1", "--ipc=5"], "--ipc: several values are joined by commas: --ipc 1,5"),
        (["--ipc", "1 5 10"], "--ipc: several values are joined by commas: --ipc 1,5,10"),
        (["--ipc", "1", "--file", "a", "b"], "--file: several values are joined by commas: --file a,b"),
        (["--ipc", "2, 3"], "--ipc: several values are joined by commas: --ipc 2,3"),
        (["--ipc", "1,,5"], "--ipc: '1,,5' has an empty value; write a value before and after every comma"),
        (["--ipc", ""], "--ipc: '' has an empty value; write a value before and after every comma"),
        (["--ipc", "1,0"], "--ipc: 0 is not in the range x>=1."),
        (["--ipc", "1,x"], "--ipc: 'x' is not a valid integer range."),
    ],
)
def test_anything_else_is_refused_in_one_line(words: list[str], message: str) -> None:
    done = CliRunner().invoke(command, words)
    assert (done.exit_code, done.output) == (2, f"Error: {message}\n")


OURS = (baselines, dcs, report, sweep, gradient, experts_benchmark, scale, sharing)


@pytest.mark.parametrize("module", OURS, ids=lambda module: module.__name__)
def test_every_option_of_several_values_says_how_they_are_given(module: object) -> None:
    ours = module.main  # type: ignore[attr-defined]
    options = [option for option in ours.params if isinstance(option.type, ValueList)]
    assert options
    for option in options:
        first = {"--synthetic": "a.safetensors", "--dtype": "fp32", "--method": "exact"}.get(option.opts[0], "2")
        done = CliRunner().invoke(ours, [option.opts[0], first, "other"])
        joined = f"Error: {option.opts[0]}: several values are joined by commas: {option.opts[0]} {first},other\n"
        assert (done.exit_code, done.output) == (2, joined)


@pytest.mark.parametrize("module", OURS, ids=lambda module: module.__name__)
def test_only_overrides_are_repeated(module: object) -> None:
    repeated = {option.name for option in module.main.params if option.multiple}  # type: ignore[attr-defined]
    assert repeated <= {"overrides"}


def test_names_are_text() -> None:
    assert NAMES.convert("a,b", None, None) == ("a", "b")
