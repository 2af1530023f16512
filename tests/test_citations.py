"""What the code and the documents refer to is there: cited headings, files, modules, anchors.

A citation is the path of a page, with the headings in quotation marks if it means a section of it:
`docs/method.md, "Experts" and "DSA"`. It may be broken over lines.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import search_spaces
from orchestrator import sweep
from search_spaces import __main__ as search_spaces_command
from tests.support.paths import ROOT

PACKAGES = ("orchestrator", "trainables", "search_spaces", "benchmarks")
PYTHON = sorted(path for folder in (*PACKAGES, "tests") for path in (ROOT / folder).rglob("*.py"))
# CHANGELOG.md is left out: it names what was.
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CONFIGURATION = [ROOT / "pyproject.toml", ROOT / "cluster" / "Dockerfile", *sorted((ROOT / "cluster").glob("*.yaml"))]

_HEADING = r'"([^"]+)"'
_CITATION = re.compile(rf"\b(docs/[\w/-]+\.md)((?:, {_HEADING}(?:(?:,| and) {_HEADING})*)?)")
_WITHOUT_A_PAGE = re.compile(r"\bMETHOD2?(?=\.md| ?§)|\bRAY\.md\b|\bDESIGN\b")
_FILE = re.compile(r"(?<![\w/.*-])((?:\w[\w-]*/)*\w[\w-]*\.py)\b")
_MODULE = re.compile(rf"(?<![\w./])((?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+)")
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)")


def headings(page: Path) -> list[str]:
    """Return a page's headings, without what is in fenced blocks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    return re.findall(r"^#+ (.+?) *$", text, re.M)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(page)}


def citations(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the cited pages, each with the cited headings."""
    for match in _CITATION.finditer(re.sub(r"\s+(?:# )?", " ", text)):
        yield match[1], re.findall(_HEADING, match[2])


def wrong_citations(text: str) -> list[str]:
    """Return the citations that lead nowhere, and those of a page that no reader has."""
    wrong = [match.group() for match in _WITHOUT_A_PAGE.finditer(text)]
    for page, cited in citations(text):
        if not (ROOT / page).is_file():
            wrong.append(page)
        else:
            wrong += [f'{page}, "{heading}"' for heading in cited if heading not in headings(ROOT / page)]
    return wrong


def prose(path: Path) -> str:
    """Return a file's text; of Python its docstrings and comments."""
    text = path.read_text()
    if path.suffix != ".py":
        return text
    strings = [
        node.value.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return "\n".join([*strings, *(token.string for token in tokens if token.type == tokenize.COMMENT)])


def missing_names(text: str) -> list[str]:
    """Return the Python files and the modules that a text names and that are not there.

    A file is named by its path or by the end of it. One whose name begins with `my_` is the reader's own.
    """
    names = [name for name in _FILE.findall(text) if not name.startswith("my_")]
    missing = [name for name in names if not any(path.as_posix().endswith(f"/{name}") for path in PYTHON)]
    missing += [name for name in _MODULE.findall(text) if not is_defined(name)]
    return missing


def is_defined(name: str) -> bool:
    """Say whether a dotted name is a module, or is in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        module = ROOT.joinpath(*parts[:length])
        source = module.with_suffix(".py") if module.with_suffix(".py").is_file() else module / "__init__.py"
        if source.is_file():
            return length == len(parts) or re.search(rf"\b{parts[length]}\b", source.read_text()) is not None
    return False


def wrong_anchors(page: Path, text: str) -> list[str]:
    """Return the anchors of a page's links that no heading has."""
    wrong = []
    for target, anchor in _LINK.findall(text):
        linked = page.parent / target if target else page
        if not linked.is_file() or anchor not in anchors(linked):
            wrong.append(f"{target}#{anchor}")
    return wrong


@pytest.mark.parametrize("folder", [*PACKAGES, "tests"])
def test_citations_of_the_code_lead_somewhere(folder: str) -> None:
    planted = Path(__file__)
    files = [path for path in PYTHON if path.is_relative_to(ROOT / folder) and path != planted]
    assert {str(path): wrong for path in files if (wrong := wrong_citations(path.read_text()))} == {}


def test_citations_of_the_pages_and_of_the_configuration_lead_somewhere() -> None:
    files = [*PAGES, *CONFIGURATION]
    assert {str(path): wrong for path in files if (wrong := wrong_citations(path.read_text()))} == {}


def printed(command: object, *arguments: str) -> str:
    done = CliRunner().invoke(command, arguments)  # type: ignore[arg-type]
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("space", [None, *search_spaces.names()])
def test_citations_in_what_the_spaces_print_lead_somewhere(space: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_spaces_command, "PIPED_WIDTH", 1000)  # no cell is broken over lines
    output = printed(search_spaces_command.main, *([space] if space else []))
    assert any(cited for _, cited in citations(output))
    assert wrong_citations(output) == []


@pytest.mark.parametrize("space", search_spaces.names())
def test_citations_in_a_plan_lead_somewhere(space: str, tmp_path: Path) -> None:
    assert wrong_citations(printed(sweep.main, "--space", space, "--plan", "--workdir", str(tmp_path))) == []


@pytest.mark.parametrize("folder", [*PACKAGES, "tests"])
def test_files_and_modules_that_the_code_names_are_there(folder: str) -> None:
    files = [path for path in PYTHON if path.is_relative_to(ROOT / folder)]
    assert {str(path): missing for path in files if (missing := missing_names(prose(path)))} == {}


def test_files_and_modules_that_the_pages_and_the_configuration_name_are_there() -> None:
    files = [*PAGES, *CONFIGURATION]
    assert {str(path): missing for path in files if (missing := missing_names(prose(path)))} == {}


def test_anchors_of_links_are_headings() -> None:
    assert {str(page): wrong for page in PAGES if (wrong := wrong_anchors(page, page.read_text()))} == {}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('docs/method.md, "Experts" and "Nowhere"', ['docs/method.md, "Nowhere"']),
        (
            'docs/method.md,\n    # "Nowhere", "DM" and "No\n    # such heading"',
            ['docs/method.md, "Nowhere"', 'docs/method.md, "No such heading"'],
        ),
        ("docs/no-such-page.md", ["docs/no-such-page.md"]),
        ("method §2".upper(), ["method".upper()]),
        ("ray".upper() + ".md", ["ray".upper() + ".md"]),
        ("design, Contracts".upper(), ["design".upper()]),
        ('docs/method.md, "Experts", steps 1 to 5, and docs/method.md, "DM", "DC" and "DSA".', []),
        ("docs/design/dcs.md; METHODS and _METHOD_NAMES are names; §4.1 of arXiv 1509.09308", []),
    ],
)
def test_a_wrong_citation_is_found(text: str, wrong: list[str]) -> None:
    assert wrong_citations(text) == wrong


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("`coresets/nowhere.py` and `nowhere.py`", ["coresets/nowhere.py", "nowhere.py"]),
        ("`trainables.nowhere.select`", ["trainables.nowhere.select"]),
        ("`trainables.seeding.no_such_function`", ["trainables.seeding.no_such_function"]),
        ("`storage/atomic.py`, `trainables.seeding.seed_of`, `python -m orchestrator.sweep --space my_space.py`", []),
    ],
)
def test_a_name_that_is_not_there_is_found(text: str, missing: list[str]) -> None:
    assert missing_names(text) == missing


def test_a_wrong_anchor_is_found() -> None:
    page = ROOT / "docs" / "method.md"
    assert wrong_anchors(page, "[a](ray.md#tune) [b](#dsa) [c](ray.md#nowhere) [d](nowhere.md#dsa)") == [
        "ray.md#nowhere",
        "nowhere.md#dsa",
    ]
