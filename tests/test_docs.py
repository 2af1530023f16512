"""The documentation: pages are linked, command lines parse, the example runs, the folders are all described."""

import ast
import importlib
import importlib.util
import itertools
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

from search_spaces import SpaceError, load, names
from tests.support.paths import ROOT

README = ROOT / "README.md"
HOUSE = ROOT / "docs" / "design" / "house.md"
RELIABILITY = ROOT / "docs" / "reliability.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PACKAGES = ("orchestrator", "trainables", "search_spaces")


def links(page: Path) -> set[Path]:
    """Return the files that a page links."""
    return {
        (page.parent / target).resolve() for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text())
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_resolves(page: Path) -> None:
    missing = [file for file in links(page) if not file.exists()]
    assert missing == []


def test_every_page_is_linked_from_the_readme_or_from_a_page_that_it_links() -> None:
    near = {page for page in links(README) if page.suffix == ".md"}
    linked = near.union(*map(links, near))
    assert {page.resolve() for page in PAGES} - {README} <= linked


# --- Command lines ----------------------------------------------------------------------------------------------------

COMMAND = r"(?:python -m (?:orchestrator\.\w+|search_spaces|benchmarks\.\w+)|mdatm \w+)"


def command_lines(page: Path) -> list[str]:
    """Return the project's command lines in a page's code blocks, and those that stand inline with arguments."""
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(rf"(?m)^ +(?:pip install uv && )?(?:[A-Z_]+=\S+ )*(?:uv run )?({COMMAND}(?: .*)?)$", text)
    return blocks + re.findall(rf"`(?:uv run )?({COMMAND} [^`]+)`", text)


def command(line: str) -> tuple[str, list[str]]:
    """Return the module that a command line starts and its arguments."""
    words = shlex.split(line, comments=True)
    if words[0] == "mdatm":
        return ("search_spaces" if words[1] == "spaces" else f"orchestrator.{words[1]}"), words[2:]
    return words[2], words[3:]


LINES = [
    pytest.param(line, id=f"{page.name}: {line[:70]}")
    for page in PAGES
    for line in command_lines(page)
]  # fmt: skip


def test_the_pages_show_the_command_lines_that_are_checked() -> None:
    modules = {command(str(param.values[0]))[0] for param in LINES}
    commands = {"inspect", "sweep", "experts", "evaluate", "baselines", "dcs", "status", "report", "export", "ui"}
    assert modules >= {"search_spaces", *(f"orchestrator.{name}" for name in commands)}


@pytest.mark.parametrize("line", LINES)
def test_a_command_line_parses(line: str) -> None:
    check(line)


@pytest.mark.parametrize(
    "line",
    [
        "python -m orchestrator.sweep --spaces digits",
        "python -m orchestrator.sweep --space digits --set no_such_key=5",
        "python -m orchestrator.evaluate --dataset digits",
        "mdatm experts --space digits --trials 3",
        "python -m benchmarks.headline --no-such-option",
        "python -m benchmarks.nothing",
    ],
)
def test_a_command_line_with_a_fault_does_not_parse(line: str) -> None:
    with pytest.raises((click.ClickException, SpaceError, AssertionError)):
        check(line)


def check(line: str) -> None:
    """Parse a command line without running it, and apply its overrides to its space where that is a registered one."""
    module, arguments = command(line)
    if module.startswith("benchmarks."):
        spec = importlib.util.find_spec(module)
        assert spec is not None and spec.origin is not None, module
        source = Path(spec.origin).read_text()
        assert all(f'"{word}"' in source for word in arguments if word.startswith("--")), line
        return
    main: click.Command = importlib.import_module(
        "search_spaces.__main__" if module == "search_spaces" else module
    ).main
    given = main.make_context(module, list(arguments)).params  # click empties the list
    overrides = dict(value.split("=", 1) for option, value in itertools.pairwise(arguments) if option == "--set")
    if overrides and given.get("space_name") in names():
        load(given["space_name"]).override(overrides)


def test_the_first_command_installs_the_product_alone_and_the_tests_ask_for_their_group() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["uv"]["default-groups"] == []
    tools = {re.split(r"[\[<>=]", requirement)[0] for requirement in project["dependency-groups"]["dev"]}
    for page in (README, ROOT / "CONTRIBUTING.md"):
        commands = re.findall(r"uv run .*", page.read_text())
        assert any(line.startswith("uv run --group dev pytest") for line in commands)
        for line in commands:
            assert "--group dev" in line or not set(line.split()) & tools, line


# --- Examples ---------------------------------------------------------------------------------------------------------


def test_the_notebook_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "how-to" / "use-the-numerics.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    exec(compile(example, page.name, "exec"), {})
    assert re.match(r"[\d.]+ tensor\(\[(\d, ){4}\d\]\)", capsys.readouterr().out)


# --- Named code -------------------------------------------------------------------------------------------------------


def definitions(file: Path) -> set[str]:
    """Return the functions and classes of a file, and the methods and functions within a class as CLASS.NAME."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


def test_the_page_about_the_folders_lists_each_of_them_once() -> None:
    listed = re.findall(r"(?m)^\| `([\w/]+)/` \|", HOUSE.read_text())
    folders = [
        str(folder.relative_to(ROOT))
        for package in PACKAGES
        for folder in [ROOT / package, *(ROOT / package).rglob("*/")]
        if any(folder.glob("*.py"))
    ]
    assert sorted(listed) == sorted(folders)


def test_the_page_about_the_folders_names_files_and_functions_that_exist() -> None:
    text = HOUSE.read_text()
    for folder, first in re.findall(r"(?m)^\| `([\w/]+/)` \|.*\| `(\w+\.py)` \|$", text):
        assert (ROOT / folder / first).is_file(), folder + first
    answers = re.findall(r"`([\w/]+\.py)::([\w.]+)`", text)
    assert len(answers) == 5
    for file, name in answers:
        assert name in definitions(ROOT / file), f"{file}::{name}"


def test_every_promise_of_reliability_names_a_test() -> None:
    promises = [line for line in RELIABILITY.read_text().splitlines() if line.startswith("| ")][1:]
    assert promises
    assert [promise for promise in promises if not re.search(r"`test_\w+\.py", promise)] == []
