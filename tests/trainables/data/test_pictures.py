"""The picture of a set: every image where its class and number say, and no more than fit."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from trainables.data.pictures import (
    CELL,
    GAP,
    HEADING,
    MAX_CLASSES,
    MAX_IPC,
    OVERVIEW_PIXELS,
    draw_set,
    encode_picture,
    overview,
)


def levels(classes: int, ipc: int, channels: int) -> torch.Tensor:
    """Images of one colour each, of which no two are alike."""
    values = torch.arange(classes * ipc * channels, dtype=torch.float32).reshape(classes * ipc, channels, 1, 1)
    return (values / values.max()).expand(-1, -1, 4, 4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("classes", "ipc"), [(2, 1), (5, 3), (MAX_CLASSES + 3, 1), (2, MAX_IPC + 2)])
def test_image_k_of_a_class_is_in_row_k_of_its_column(classes: int, ipc: int, channels: int) -> None:
    images = levels(classes, ipc, channels)
    picture = np.asarray(draw_set(images, [f"class {number}" for number in range(classes)]))
    rows = min(ipc, MAX_IPC)
    line, across = HEADING + rows * (CELL + GAP), (picture.shape[1] - GAP) // (CELL + GAP)
    for label in range(min(classes, MAX_CLASSES)):
        left, top = GAP + label % across * (CELL + GAP), label // across * line + HEADING
        for row in range(rows):
            cell = picture[top + row * (CELL + GAP) :, left:][:CELL, :CELL]
            expected = (images[label * ipc + row, :, 0, 0] * 255).round().numpy()
            assert (cell == expected).all(), (label, row)
    assert picture.shape[0] == -(-min(classes, MAX_CLASSES) // across) * line, "and nothing else"


def test_files_hold_the_picture_and_the_same_bytes_every_time() -> None:
    images = levels(4, 2, 3)
    picture, again = (draw_set(images, ["a", "b", "c", "a name that is too long"]) for _ in range(2))
    png = encode_picture(picture, "PNG")
    assert Image.open(io.BytesIO(png)).tobytes() == picture.tobytes()
    assert png == encode_picture(again, "PNG")
    small = encode_picture(overview(picture), "WEBP")
    assert small == encode_picture(overview(again), "WEBP")
    assert max(Image.open(io.BytesIO(small)).size) == OVERVIEW_PIXELS < max(picture.size)
