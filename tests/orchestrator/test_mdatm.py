"""The console command: what it lists, what it loads, what it runs, and what a shell completes."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

import orchestrator
import search_spaces
import trainables
from orchestrator import mdatm
from tests.support.paths import ROOT

COMMANDS = ["inspect", "sweep", "experts", "evaluate", "baselines", "dcs", "status", "report", "export", "ui", "spaces"]


def in_a_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_lists_the_commands_and_imports_none_of_them() -> None:
    code = (
        "import sys; from orchestrator.mdatm import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print('LOADED', *sorted(name for name in sys.modules if name.split('.')[0] in "
        "('orchestrator', 'search_spaces', 'trainables', 'torch', 'ray', 'numpy')))"
    )
    said, _, loaded = in_a_process(code).partition("LOADED ")
    listed = said.partition("Commands:\n")[2].partition("\n\n")[0]
    assert [line.split()[0] for line in listed.splitlines() if line[2] != " "] == COMMANDS
    light = ["orchestrator.terminal", "orchestrator.terminal.process"]
    assert loaded.split() == ["orchestrator", "orchestrator.mdatm", *light]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_has_each_commands_own_help(name: str) -> None:
    command = mdatm.main.get_command(click.Context(mdatm.main), name)
    assert command is not None and command.help == mdatm._COMMANDS[name].help
    done = CliRunner().invoke(mdatm.main, [name, "--help"])
    assert done.exit_code == 0 and f"Usage: main {name}" in done.output


def test_a_subcommand_is_the_module_of_its_name() -> None:
    ours = CliRunner().invoke(mdatm.main, ["sweep", "--space", "digits", "--plan", "--trials", "7"])
    assert ours.exit_code == 0 and "7, the first is" in ours.output


def test_errors_keep_their_line_and_exit_code() -> None:
    refused = CliRunner().invoke(mdatm.main, ["sweep", "--space", "digit", "--plan"])
    assert refused.exit_code == 2 and refused.output.startswith("Error: unknown space digit")
    assert CliRunner().invoke(mdatm.main, ["swep"]).exit_code == 2


def test_one_version() -> None:
    versions = {package.__version__ for package in (orchestrator, trainables, search_spaces)}
    assert len(versions) == 1
    assert CliRunner().invoke(mdatm.main, ["--version"]).output.strip().endswith(versions.pop())


@pytest.mark.parametrize("package", ["orchestrator", "trainables", "search_spaces"])
def test_the_public_names_load_when_they_are_used(package: str) -> None:
    code = (
        f"import sys, {package} as package\n"
        "assert not {'torch', 'ray', 'numpy'} & set(sys.modules)\n"
        "assert set(package.__all__) <= set(dir(package))\n"
        "missing = [name for name in package.__all__ if getattr(package, name, None) is None]\n"
        "assert not missing, missing\n"
        "assert not hasattr(package, 'no_such_name')"
    )
    in_a_process(code)
    assert (ROOT / package / "py.typed").exists()


def completed(*words: str, incomplete: str = "") -> list[str]:
    completions = ShellComplete(mdatm.main, {}, "mdatm", "_MDATM_COMPLETE").get_completions(list(words), incomplete)
    return [item.value for item in completions]


class TestCompletion:
    def test_commands(self) -> None:
        assert completed(incomplete="e") == ["experts", "evaluate", "export"]

    @pytest.mark.parametrize("words", [("sweep", "--space"), ("dcs", "--space"), ("spaces",)])
    def test_spaces(self, words: tuple[str, ...]) -> None:
        assert completed(*words, incomplete="ti_") == ["ti_ranges", "ti_range_study", "ti_ablation"]

    def test_a_file_where_no_space_begins_so(self) -> None:
        completions = ShellComplete(mdatm.main, {}, "mdatm", "_MDATM_COMPLETE").get_completions(
            ["sweep", "--space"], "./my"
        )
        assert [(item.type, item.value) for item in completions] == [("file", "./my")]

    @pytest.mark.parametrize("command", ["inspect", "evaluate", "baselines"])
    def test_datasets(self, command: str) -> None:
        assert completed(command, "--dataset", incomplete="cifar") == ["cifar10", "cifar100"]

    @pytest.mark.parametrize(
        ("command", "option"), [("sweep", "--resume"), ("report", "--sweep"), ("export", "--sweep"), ("ui", "--sweep")]
    )
    def test_sweeps_of_the_workdir(self, command: str, option: str, tmp_path: Path) -> None:
        for name in ("one", "other", "third"):
            (tmp_path / "sweeps" / name).mkdir(parents=True)
        for name in ("one", "other"):
            (tmp_path / "sweeps" / name / "settings.json").touch()
        assert completed(command, "--workdir", str(tmp_path), option, incomplete="o") == ["one", "other"]
        assert completed(command, "--workdir", str(tmp_path), option) == ["one", "other"]
        assert completed(command, "--workdir", "s3://bucket/runs", option) == []

    def test_forms_of_an_export(self) -> None:
        assert completed("export", "--to", incomplete="p") == ["parquet", "pt"]

    def test_the_next_of_several_sweeps(self, tmp_path: Path) -> None:
        (tmp_path / "sweeps" / "other").mkdir(parents=True)
        (tmp_path / "sweeps" / "other" / "settings.json").touch()
        assert completed("report", "--workdir", str(tmp_path), "--sweep", incomplete="one,o") == ["one,other"]
