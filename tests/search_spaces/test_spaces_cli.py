"""`python -m search_spaces` as a shell sees it."""

import subprocess
import sys
from pathlib import Path

import pytest

from search_spaces import Study, load, names
from search_spaces.presets import PRESETS
from search_spaces.vocabulary import VOCABULARY


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "search_spaces", *args], capture_output=True, encoding="utf-8")


def test_the_list_has_every_space_and_nothing_cut() -> None:
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    for name in names():
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"{name} ")]
        space = load(name)
        varies = (len(space.variants), "variants") if isinstance(space, Study) else (len(space.searched), "keys")
        wanted = (space.dataset, space.fixed["ipc"], *varies, space.fixed["trials"], space.horizon_epochs)
        assert [str(cell) for cell in wanted] == line.split()[-7:-1]
    assert "…" not in done.stdout


def test_the_list_has_every_preset() -> None:
    output = run().stdout
    for name, method in PRESETS.items():
        (line,) = [line for line in output.splitlines() if line.startswith(f"{name} ")]
        assert method.title[:40] in line and method.source[:20] in line


def test_a_study_shows_what_each_variant_sets() -> None:
    output = run("ti_ablation").stdout
    rows = {line.split()[0]: line.split()[1:4] for line in output.splitlines() if line.strip()}
    assert rows["varied"] == ["datm", "datm_hard", "m_datm"]
    assert rows["N"] == ["40", "40", "25"] and rows["label_mode"] == ["soft", "hard", "hard"]
    assert "A study: 9 trials, each to its end" in output
    assert "the largest T_plus + M is 52, the experts have 52 epochs" in output


@pytest.fixture(scope="module")
def tiny() -> subprocess.CompletedProcess[str]:
    return run("ti_ranges")


class TestOneSpace:
    def test_it_shows_every_parameter_once_with_meaning_and_source(
        self, tiny: subprocess.CompletedProcess[str]
    ) -> None:
        assert (tiny.returncode, tiny.stderr) == (0, "")
        space = load("ti_ranges")
        for name, dimension in space.parameters.items():
            (line,) = [line for line in tiny.stdout.splitlines() if line.split(" ")[0] == name and " = " not in line]
            assert str(dimension) in line
            assert VOCABULARY[name].meaning[:20] in line
            assert dimension.source[:20] in line

    def test_it_shows_trial_0_the_reference_and_the_rules(self, tiny: subprocess.CompletedProcess[str]) -> None:
        space = load("ti_ranges")
        for text in (
            space.title,
            space.reference,
            "T = T_minus + T_width, T_plus = T_minus + T_width + T_growth",
            "Bounds are inclusive; T_plus itself is exclusive as a start epoch unless range_end=inclusive.",
            "the largest T_plus + M is 44, the experts have 44 epochs",
        ):
            assert text in tiny.stdout
        (line,) = [line for line in tiny.stdout.splitlines() if line.startswith("lr_alpha ")]
        assert line.split()[:6] == ["lr_alpha", "1e-06", "…", "0.001,", "log", "0.0001"]


def test_a_users_file_whose_texts_look_like_markup(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from dataclasses import replace\nfrom search_spaces import load\n"
        "SPACE = replace(load('digits'), name='mine', title='[bold]why[/nonsense] [?]')\n"
    )
    done = run(str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "[bold]why[/nonsense] [?]" in done.stdout


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("ti_range", "Error: unknown space ti_range; did you mean ti_ranges?"),
        ("missing.py", "Error: missing.py: there is no such file"),
    ],
)
def test_what_cannot_be_loaded_is_one_line_and_exit_code_2(argument: str, said: str) -> None:
    done = run(argument)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
