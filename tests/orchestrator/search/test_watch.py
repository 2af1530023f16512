"""How far a trial was: what counts as progress between two losses of its process."""

from pathlib import Path

import torch

from orchestrator.search.watch import Furthest
from trainables.storage.checkpoints import checkpoint_place, write_checkpoint


def test_a_report_is_progress_once() -> None:
    furthest = Furthest("nowhere")
    assert [furthest.passed(0, iterations) for iterations in (5, 5, 10, 5, 10, 11)] == [
        True, False, True, False, False, True,
    ]  # fmt: skip
    assert furthest.passed(1, 5)


def test_a_checkpoint_within_a_rung_is_progress(tmp_path: Path) -> None:
    furthest, place = Furthest(str(tmp_path)), checkpoint_place(str(tmp_path), 0, within_rung=True)
    assert not furthest.passed_by_checkpoint(0)
    for iteration, progress in ((7, True), (7, False), (8, True)):
        write_checkpoint(place, {"iteration": iteration, "images": torch.zeros(1)})
        assert furthest.passed_by_checkpoint(0) is progress
    assert not furthest.passed(0, 5)


def test_a_checkpoint_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    Path(checkpoint_place(str(tmp_path), 0)).write_bytes(b"damaged")
    assert not Furthest(str(tmp_path)).passed_by_checkpoint(0)
