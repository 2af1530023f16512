"""A trial's checkpoint: a reader sees the complete new one or the old one, on a path and at a URI."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.errors import CheckpointError
from trainables.storage.checkpoints import checkpoint_place, read_checkpoint, write_checkpoint

STATE: dict[str, Any] = {
    "images": torch.arange(12, dtype=torch.float32).reshape(1, 3, 2, 2),
    "labels": torch.tensor([3, 1]),
    "alpha": 0.1 + 0.2,
    "iteration": 7,
    "losses": [1.5, math.inf],
}


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_state_is_read_as_it_was_written(tmp_path: Path, scheme: str) -> None:
    place = checkpoint_place(f"{scheme}{tmp_path}", 4)
    assert read_checkpoint(place) is None
    write_checkpoint(place, STATE)
    read = read_checkpoint(place)
    assert read is not None
    assert read.keys() == STATE.keys()
    assert torch.equal(read["images"], STATE["images"]) and torch.equal(read["labels"], STATE["labels"])
    assert (read["alpha"], read["iteration"], read["losses"]) == (STATE["alpha"], 7, [1.5, math.inf])
    write_checkpoint(place, STATE | {"iteration": 8})
    read = read_checkpoint(place)
    assert read is not None and read["iteration"] == 8
    assert [path.name for path in tmp_path.iterdir()] == ["trial-004.safetensors"]


def test_a_file_that_is_no_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    place = checkpoint_place(str(tmp_path), 0)
    write_checkpoint(place, STATE)
    whole = Path(place).read_bytes()
    Path(place).write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=r"trial-000\.safetensors is not a trial's checkpoint"):
        read_checkpoint(place)
    Path(place).write_bytes(whole.replace(b'"format_version":"2"', b'"format_version":"9"'))
    with pytest.raises(CheckpointError, match="format version 9, this program reads 2"):
        read_checkpoint(place)
