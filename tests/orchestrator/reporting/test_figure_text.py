"""Names in figures: drawn as they stand, whatever they hold, without a warning of matplotlib."""

import io
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

from orchestrator.reporting.figure_text import figure_names, figure_text
from orchestrator.reporting.pictures import draw_sets
from orchestrator.reporting.sections.classes import draw_confusion
from tests.support.names import HOSTILE
from trainables.data.pictures import CELL, GAP, draw_set


def drawn(text: str, *, parse_math: bool) -> bytes:
    """Return the pixels of a text that matplotlib draws."""
    figure = plt.figure(figsize=(3, 1))
    figure.text(0.1, 0.5, text, parse_math=parse_math)
    content = io.BytesIO()
    figure.savefig(content)
    plt.close(figure)
    with Image.open(content) as picture:
        return picture.tobytes()


@pytest.mark.parametrize("name", ["$0_to_$10", "$\\frac{$", "$", "\\$5", "back\\slash", "$$", "100 %"])
def test_a_text_is_drawn_as_matplotlib_draws_it_without_mathematics(name: str) -> None:
    assert drawn(figure_text(name), parse_math=True) == drawn(name, parse_math=False)


def test_hostile_names_end_no_figure_and_warn_of_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    count = len(HOSTILE)
    confusion = np.random.default_rng(0).integers(1, 10, (2, count, count))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for first in (0, 12):  # a confusion of more than 20 classes has no names
            draw_confusion(tmp_path / "confusion.png", list(HOSTILE[first:][:12]), confusion[:, :12, :12])
        draw_sets(tmp_path / "sets.png", {"after: $x$ < |y|": torch.rand(count, 1, 4, 4)}, HOSTILE)
        picture = draw_set(torch.rand(count, 1, 4, 4), HOSTILE)
    assert caplog.records == []
    assert picture.width % (CELL + GAP) == GAP
    for name in ("confusion.png", "sets.png"):
        with Image.open(tmp_path / name) as figure:
            assert len(figure.convert("RGB").getcolors(maxcolors=1 << 24) or []) > 8


def test_a_long_name_leaves_room_for_the_figure(tmp_path: Path) -> None:
    confusion = np.ones((1, 2, 2), dtype=np.int64)
    shares = []
    for names in (["a", "b"], ["x" * 200, "y" * 200]):
        draw_confusion(tmp_path / "a.png", names, confusion)
        with Image.open(tmp_path / "a.png") as picture:
            pixels = np.asarray(picture.convert("RGB"))
        yellow = (pixels == (253, 231, 36)).all(axis=-1)  # viridis at 1, the colour of all shares
        shares.append(yellow.mean())
    assert shares[1] > shares[0] / 4 > 0


def test_a_character_that_no_font_has_is_a_box_and_the_class_has_its_number() -> None:
    unassigned = "\u0378"  # no font has it
    assert figure_text(f"a{unassigned}") == "a□"
    assert figure_names(["cat", unassigned, "□"]) == ["cat", "1: □", "□"]
    assert figure_text("a\u200d\ufe0f") in ("a", "a\u200d\ufe0f")  # joiners show nothing alone


def test_a_font_of_the_machine_is_used_for_what_matplotlibs_own_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mpl.rcParams, "font.family", ["cmr10"])  # a small font of matplotlib's own, without Cyrillic
    assert figure_text("ж") == "ж" and len(mpl.rcParams["font.family"]) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn(figure_text("ж"), parse_math=True)
