"""Which trials hardly moved their images."""

from typing import Any

import pytest

from orchestrator.results.movement import hardly_moved


@pytest.mark.parametrize(
    ("skip_rate", "displacement", "still"),
    [
        (1.0, 0.0, True), (0.51, 2.0, True), (0.5, 0.01, False),
        (0.0, 0.009, True), (0.0, 0.3, False), (None, None, False),
    ],
)  # fmt: skip
def test_by_skipped_updates_and_by_distance(skip_rate: Any, displacement: Any, still: bool) -> None:
    assert hardly_moved({"skip_rate": skip_rate, "image_displacement": displacement}) == still
