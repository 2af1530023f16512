"""The tests' house: they mirror the packages, share by `tests/support`, and are there where a page names them."""

import ast
import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

TESTS = ROOT / "tests"
SOURCES = sorted(TESTS.rglob("*.py"))
FOLDERS = sorted({path.parent for path in SOURCES} - {TESTS, TESTS / "support"})
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def imports_of_tests(text: str) -> list[str]:
    """Return the modules below `tests` that a source imports from outside `tests.support`."""
    imported = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            # `from tests import support` names a module too.
            imported += [f"{module}.{alias.name}" if module == "tests" else module for alias in node.names]
    return [
        name
        for name in imported
        if name.startswith(".") or (name.split(".")[0] == "tests" and name.split(".")[1:2] != ["support"])
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(TESTS)))
def test_nothing_is_imported_from_a_test_file(path: Path) -> None:
    assert imports_of_tests(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "from tests.orchestrator.conftest import run",
        "from tests.orchestrator import conftest",
        "from tests import test_security",
        "import tests.orchestrator.test_resume",
        "from .conftest import run",
        "from . import conftest",
        "def late():\n    from tests.test_security import faults",
    ],
)
def test_a_planted_import_is_found(text: str) -> None:
    assert imports_of_tests(text) != []


@pytest.mark.parametrize("text", ["from tests.support import paths", "import tests.support.paths", "import pytest"])
def test_support_may_be_imported(text: str) -> None:
    assert imports_of_tests(text) == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(TESTS)))
def test_every_folder_mirrors_a_package(folder: Path) -> None:
    assert (ROOT / folder.relative_to(TESTS) / "__init__.py").is_file()
    assert (folder / "__init__.py").is_file(), "two test files of one name need packages"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    texts = {path.name: path.read_text() for path in SOURCES}
    for file, names in re.findall(r"\b(test_\w+\.py)((?:::\w+)*)", page.read_text()):
        assert file in texts, file
        for name in names.split("::")[1:]:
            assert re.search(rf"\b(def|class) {name}\b", texts[file]), f"{file}::{name}"
