"""The report's parts: the command that repeats a sweep, the algorithm with its values, the page with its pictures."""

import base64
import re
import shlex
from pathlib import Path

import optuna
import pytest
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from PIL import Image

from orchestrator.reporting.page import write_html
from orchestrator.reporting.sections import importance as search_figures
from orchestrator.reporting.sections.algorithm import pseudo_code
from orchestrator.results.trials import TrialRecord
from orchestrator.state.settings import repeat_command
from orchestrator.state.space import load_space
from search_spaces import Choice, Real, load, names
from tests.support.builders import sweep_settings, trial_record

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def options(command: str) -> dict[str, list[str]]:
    words = shlex.split(command)[3:]
    found: dict[str, list[str]] = {}
    for option, value in zip(words[::2], words[1::2], strict=True):
        found.setdefault(option, []).append(value)
    return found


@pytest.mark.parametrize("overrides", [{}, {"N": "3", "augmentation": "color_flip", "zca": "true"}])
@pytest.mark.parametrize("preset", [None, "ftd"])
def test_the_command_gives_the_same_space_again(overrides: dict[str, str], preset: str | None) -> None:
    space = load_space("digits", overrides, preset, trials=7)
    settings = sweep_settings(space=space, seed=3, preset=preset, data=Path("some where"))
    given = options(repeat_command(settings))
    again = load_space(
        given["--space"][0], dict(word.split("=") for word in given.get("--set", ())), *given.get("--preset", ())
    )
    assert again == space
    assert given["--seed"] == ["3"] and given["--data"] == [str(Path("some where").absolute())]


@pytest.mark.parametrize("name", names())
def test_the_algorithm_has_the_values_of_its_setting(name: str) -> None:
    space = load(name)
    for point in space.points()[:6]:
        settings = space.resolve(point)
        text = pseudo_code(settings)
        if settings["method"] != "trajectory":
            assert f"R_c: {settings['batch_real']} real images" in text and f"rate {settings['lr_pixel']:g}" in text
            assert ("ψ" in text) == (settings["method"] == "distribution")
            continue
        assert f"{settings['N']} times" in text and f"θ*_(t+{settings['M']})" in text
        assert f"start epoch t from {settings['T_minus']} …" in text
        assert (f"⌊i / {settings['interval']}⌋, {settings['T_plus']}" in text) == (settings["T"] < settings["T_plus"])
        assert ("y ← SGD step" in text) == (settings["label_mode"] == "soft")
        assert ("S̄" in text) == (settings["ema_decay"] > 0)


class TestPage:
    def test_has_its_pictures_inside_and_asks_nobody_for_anything(self, tmp_path: Path) -> None:
        (tmp_path / "figures").mkdir()
        (tmp_path / "figures" / "a.png").write_bytes(PIXEL)
        write_html(
            tmp_path / "report.html", "# Title\n\n![A](figures/a.png)\n\n| a | b |\n|---|---|\n| 1 | 2 |\n", title="T"
        )
        page = (tmp_path / "report.html").read_text()
        assert re.findall(r'src="(data:image/png;base64,[^"]+)"', page) == [
            f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"
        ]
        assert "http" not in page and "<script" not in page and "<td>2</td>" in page

    def test_shows_markup_in_names_as_it_is(self, tmp_path: Path) -> None:
        write_html(tmp_path / "report.html", "<script>alert(1)</script> & `<b>`", title="<i>")
        page = (tmp_path / "report.html").read_text()
        assert "<script>" not in page and "&lt;script&gt;" in page and "<title>&lt;i&gt;</title>" in page

    def test_a_picture_that_is_not_there_is_an_error_and_leaves_no_page(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            write_html(tmp_path / "report.html", "![A](no.png)", title="T")
        assert list(tmp_path.iterdir()) == []


class TestSearchFigures:
    SPACE = load("digits")

    def records(self, count: int, matters: str) -> list[TrialRecord]:
        """Random trials whose accuracy follows from one setting alone."""
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        records = []
        for number in range(count):
            drawn = study.ask()
            self.SPACE.draw(drawn)
            accuracy = drawn.params[matters] / self.SPACE.searched[matters].high  # type: ignore[union-attr]
            records.append(
                trial_record(number, settings=self.SPACE.resolve(drawn.params), rungs={5: accuracy / 2, 10: accuracy})
            )
        return records

    @pytest.mark.parametrize("matters", ["N", "T_minus"])
    def test_importance_finds_the_setting_that_matters(self, matters: str) -> None:
        study = search_figures._at_first_rung(self.SPACE, self.records(40, matters))
        shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
        assert next(iter(shares)) == matters and shares[matters] > 0.8

    def test_heights_run_from_bound_to_bound(self) -> None:
        for each in self.SPACE.searched.values():
            assert not isinstance(each, Choice)
            assert [search_figures._height(each, bound) for bound in (each.low, each.high)] == pytest.approx([0, 1])
        assert search_figures._height(Real(1.0, 100.0, first=1.0, log=True), 10.0) == pytest.approx(0.5)
        assert search_figures._height(Choice(("a", "b"), first="a"), "b") == 0.75  # type: ignore[arg-type]

    def test_pictures_have_colours(self, tmp_path: Path) -> None:
        records = self.records(12, "N")
        for draw in (search_figures.draw_importance, search_figures.draw_parallel):
            draw(tmp_path / "a.png", self.SPACE, records)
            with Image.open(tmp_path / "a.png") as picture:
                assert len(picture.convert("RGB").getcolors(maxcolors=1 << 24) or []) > 8

    def test_too_few_trials_tell_nothing(self) -> None:
        records = self.records(4, "N")
        assert search_figures.has_enough_trials(records) and not search_figures.has_enough_trials(records[:3])
        assert not search_figures.has_enough_trials([records[0]] * 5)
