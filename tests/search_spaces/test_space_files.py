"""Loading by name and from a user's file: every way in which it fails is one line that says where."""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from search_spaces import SpaceError, load, names

GOOD = """\
from search_spaces import Fixed, load
SPACE = load("digits").override({"N": 5})
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.chdir(tmp_path)

    def writer(text: str, name: str = "mine.py") -> str:
        Path(name).write_text(textwrap.dedent(text))
        return name

    return writer


def refusal(name_or_path: str | Path) -> str:
    with pytest.raises(SpaceError) as caught:
        load(name_or_path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_names_load() -> None:
    assert names() == [
        "digits", "digits_range_study", "digits_ablation", "digits_regimes", "cifar10_ranges", "cifar10_regimes",
        "cifar100_ranges", "cifar100_range_study", "cifar100_ablation", "ti_ranges", "ti_range_study", "ti_ablation",
    ]  # fmt: skip
    assert [load(name).name for name in names()] == names()


def test_an_unknown_name_gets_the_nearest_and_all() -> None:
    assert refusal("ti_range") == (
        f"unknown space ti_range; did you mean ti_ranges? Known: {', '.join(names())}, or the path of a .py file"
    )
    assert "did you mean" not in refusal("imagenet21k")


@pytest.mark.parametrize("name", ["space", "vocabulary", "dimensions", "__main__", ""])
def test_modules_that_are_no_spaces_are_no_names(name: str) -> None:
    assert refusal(name).startswith("unknown space ")


@pytest.mark.parametrize("path", ["mine.py", "./mine.py", Path("mine.py")])
def test_a_good_file(write: Callable[..., str], path: str | Path) -> None:
    write(GOOD)
    assert load(path).fixed["N"].value == 5


def test_an_absolute_path_with_spaces_and_no_suffix(write: Callable[..., str], tmp_path: Path) -> None:
    write(GOOD, "my space")
    assert load(str(tmp_path / "my space")).name == "digits"


def test_a_file_may_shadow_a_registered_name(write: Callable[..., str]) -> None:
    write(GOOD, "ti_ranges.py")
    assert load("ti_ranges.py").name == "digits"
    assert load("ti_ranges").name == "ti_ranges"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", "mine.py: the file sets no SPACE; add SPACE = Space(...)"),
        ("SPACE = {}\n", "mine.py: SPACE must be a search_spaces.Space, not dict"),
        ("x = 1\nSPACE = (\n", "mine.py:2: SyntaxError: '(' was never closed"),
        ("x = 1\n\nSPACE = y\n", "mine.py:3: NameError: name 'y' is not defined"),
        ("import nonexistent_module\n", "mine.py:1: ModuleNotFoundError: No module named 'nonexistent_module'"),
        ("raise ValueError('a\\nb')\n", "mine.py:1: ValueError: a b"),
        ("import sys\nsys.exit(3)\n", "mine.py:2: SystemExit: 3"),
        (
            "from search_spaces import Integer\ndef f():\n    return Integer(3, 1, first=2)\nSPACE = f()\n",
            "mine.py:3: Integer: low must not be larger than high, but low=3 and high=1; swap them",
        ),
        (
            "from search_spaces import load\nSPACE = load('digits').override({'T_minus': 99})\n",
            "mine.py:2: T_plus + M must not exceed horizon_epochs at any point",
        ),
        (
            "from search_spaces import load\nSPACE = load('digit')\n",
            "mine.py:2: unknown space digit; did you mean digits?",
        ),
    ],
)
def test_bad_files_say_where(write: Callable[..., str], text: str, said: str) -> None:
    assert refusal(write(text)).startswith(said)


def test_a_file_that_is_not_text(write: Callable[..., str]) -> None:
    Path("mine.py").write_bytes(b"\xff\xfe\x00binary")
    assert refusal("mine.py").startswith("mine.py")


@pytest.mark.parametrize("path", ["missing.py", "no/such/space", Path("missing")])
def test_a_missing_file(write: Callable[..., str], path: str | Path) -> None:
    assert refusal(path).startswith(f"{path}: there is no such file")


def test_a_directory_is_no_file(write: Callable[..., str]) -> None:
    Path("folder.py").mkdir()
    assert refusal("folder.py").startswith("folder.py: there is no such file")


def test_spaces_load_none_of_the_heavy_packages_and_only_the_one_asked_for() -> None:
    code = """
        import sys
        from search_spaces import load, names
        load("digits"), names()
        heavy = {"torch", "ray", "optuna", "mlflow", "numpy", "click", "rich", "trainables", "orchestrator"}
        print(sorted(heavy & sys.modules.keys()), "search_spaces.registered.ti_ranges" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] False"
