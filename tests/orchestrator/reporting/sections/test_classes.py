"""The report class by class: shares by hand, the order, and what is shown of many classes."""

from pathlib import Path

import numpy as np
from PIL import Image

from orchestrator.reporting.sections.classes import class_section, draw_confusion
from orchestrator.results.finals import CHALLENGE, read_confusions, write_finals
from trainables.evaluation.metrics import Metrics

NAMES = ["cat", "dog", "owl"]
TWO = np.array([[[8, 2, 0], [0, 10, 0], [5, 0, 5]], [[6, 4, 0], [0, 10, 0], [5, 0, 5]]])


def confusions(classes: int) -> np.ndarray:
    """One network that gets k images of class k right, and takes the others for the class after it."""
    counts = np.zeros((1, classes, classes), dtype=np.int64)
    for k in range(classes):
        counts[0, k, k], counts[0, k, (k + 1) % classes] = k, classes - k
    return np.repeat(counts, 2, axis=0)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    metrics = [Metrics(tuple(tuple(row) for row in each.tolist())) for each in TWO]
    in_regime = {"soft": {"trial-003": metrics[::-1]}}  # which says nothing of the finals' own protocol
    finals = {CHALLENGE: {"trial-003": metrics, "random_real": metrics[:1]}, **in_regime}
    write_finals(tmp_path / "finals.parquet", finals, NAMES)
    names, found = read_confusions(tmp_path / "finals.parquet")
    assert names == NAMES and list(found) == ["trial-003", "random_real"]
    assert np.array_equal(found["trial-003"], TWO) and np.array_equal(found["random_real"], TWO[:1])


def test_every_class_best_first_with_its_accuracy_and_the_largest_mistakes() -> None:
    _, said, table, _ = class_section(NAMES, {"trial-003": TWO, "random_real": TWO[:1]}, "trial-003").split("\n\n")
    assert table.splitlines()[2:] == [
        "| dog | 10 | 1.000 ± 0.000 | 1.000 |",
        "| cat | 10 | 0.700 ± 0.141 | 0.800 |",
        "| owl | 10 | 0.500 ± 0.000 | 0.500 |",
    ]
    assert "all classes" in said and "owl for cat (50%), cat for dog (30%)" in said


def test_a_class_without_test_images_has_no_accuracy() -> None:
    without = TWO.copy()
    without[:, 1] = 0
    table = class_section(NAMES, {"trial-003": without, "random_real": without}, "trial-003").split("\n\n")[2]
    assert "| dog | 0 | – | – |" in table.splitlines()


def test_of_many_classes_the_best_and_the_worst() -> None:
    names, many = [f"class {k}" for k in range(30)], confusions(30)
    _, said, table, _ = class_section(names, {"best": many, "random_real": many}, "best").split("\n\n")
    shown = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert shown == [f"class {k}" for k in (*range(29, 19, -1), *range(9, -1, -1))]
    assert "the 10 best and the 10 worst of 30 classes" in said


def test_the_picture_has_a_colour_for_every_share(tmp_path: Path) -> None:
    draw_confusion(tmp_path / "confusion.png", NAMES, TWO)
    with Image.open(tmp_path / "confusion.png") as picture:
        colors = picture.convert("RGB").getcolors(maxcolors=1 << 24)
        assert colors is not None and len(colors) > 50
