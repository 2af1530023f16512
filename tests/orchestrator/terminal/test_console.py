"""What is printed: names and paths as they are, and lines with commands in one piece."""

import pytest

from orchestrator.terminal.console import PIPED_WIDTH, make_console
from orchestrator.terminal.progress_bar import progress_bar

NAMES = ["[red]", "[/bold]", "[link=x]y", ":smile:", "a  b", "[0, 1]"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_no_markup(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    make_console().print(f"Sweep {name} in /data/{name}", soft_wrap=True)
    assert capsys.readouterr().out == f"Sweep {name} in /data/{name}\n"


@pytest.mark.parametrize("name", NAMES)
def test_titles_of_bars_are_no_markup(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    with progress_bar(make_console(), f"Decoding {name}", 2) as show:
        show(1)
    assert f"Decoding {name}" in capsys.readouterr().out


def test_a_line_with_a_command_is_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    command = f"resume with: {'x' * PIPED_WIDTH} --workdir {'y' * PIPED_WIDTH}"
    make_console().print(command, soft_wrap=True)
    assert capsys.readouterr().out == command + "\n"
