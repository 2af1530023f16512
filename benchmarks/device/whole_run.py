"""A headline run on the time that is left: experts, distillation and test on real or made images."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import headline
from benchmarks.device.results import Fact, Measurement
from benchmarks.device.timing import require, seconds_left
from benchmarks.made_images import write_made_cifar100
from benchmarks.measure import peak_bytes, reset_peak
from benchmarks.published import settings_of
from trainables.data import published
from trainables.data.datasets import prepare
from trainables.errors import DatasetError

__all__ = ["IPC", "HeadlineWork", "check_data", "whole_run"]

DATASETS = ("tiny_imagenet", "cifar100", "cifar10")
"""Datasets that a headline has settings for; the first whose files are in the folder is taken."""
IPC = 10
MARGIN = 0.9
"""Share of the time left that the run is given: it may end a little late."""


@dataclass(frozen=True, kw_only=True)
class HeadlineWork:
    """What a headline run is given."""

    made_each: int
    """Made training images of a class, if there is no data."""
    least_seconds: float
    """The run is left out if less time is left."""
    options: tuple[str, ...] = ()
    """More words of its command line."""


def check_data(data: Path) -> None:
    """Refuse a folder that holds none of the datasets; images are not decoded.

    Raises:
        DatasetError: It holds none.
    """
    for name in DATASETS:
        try:
            published.find(name, data)
        except DatasetError:
            continue
        return
    raise DatasetError(
        f"{data} holds none of the datasets {', '.join(DATASETS)}: give --data the folder of their published files or "
        "of their Parquet files, or leave it out"
    )


def whole_run(work: HeadlineWork, data: Path | None, device: str, out: Path, deadline: float) -> Iterator[Any]:
    """Run a headline within the time that is left; its files go to the folder `out`.

    Raises:
        TooLittleTime: Too little is left.
        InputError: The data cannot be read, or one expert takes too long.
    """
    require(work.least_seconds, deadline, "a headline run")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if data is None:
            name, data = "cifar100", place / "made"
            write_made_cifar100(data, work.made_each)
            yield Fact(name="data of the headline run", value="made images in the form of CIFAR-100")
        else:
            name = _dataset_in(data, place)
            yield Fact(name="data of the headline run", value=name)
        budget = MARGIN * seconds_left(deadline)
        words = ["--dataset", name, "--ipc", str(IPC), "--data", str(data), "--device", device]
        words += ["--budget-s", str(budget), "--out", str(out), *work.options]
        reset_peak(device)
        headline.run(headline.parsed(words), place)
    yield from _results(json.loads((out / "headline.json").read_text()), peak_bytes(device))


def _dataset_in(data: Path, place: Path) -> str:
    """Return the name of the dataset in a folder, after preparing it as the headline will.

    Raises:
        DatasetError: None of them can be prepared; the message is that of the last.
    """
    for name in DATASETS:
        try:
            _, values = settings_of(name, IPC)
            prepare(name, cache=place / "datasets", data=data, validation_share=values["validation_share"])
        except DatasetError:
            if name == DATASETS[-1]:
                raise
        else:
            return name
    raise AssertionError("the last dataset raises")


def _results(record: dict[str, Any], peak: int) -> Iterator[Measurement]:
    """Yield what a headline's record says of time and accuracy."""
    experts, first, last, test = record["experts"], record["curve"][0], record["curve"][-1], record["test"]
    of = f"{record['dataset']}, {experts['epochs']} epochs, {experts['at_once']} at once"
    yield Measurement(
        name="headline, an expert", unit="s", samples=(experts["seconds"] / experts["count"],), note=of
    )  # fmt: skip
    yield Measurement(
        name="headline, an iteration",
        unit="s",
        samples=(last["distillation_seconds"] / last["iteration"],),
        peak_bytes=peak,
        note=f"{last['iteration']:,} iterations in micro-batches of {record['micro_batch_images']}",
    )
    yield Measurement(
        name="headline, test accuracy",
        unit="share of the test images",
        samples=tuple(test["values"]),
        note=f"after {test['epochs']} epochs; on the validation split {first['validation_accuracy']:.3f} before the "
        f"distillation, {last['validation_accuracy']:.3f} after it",
    )
