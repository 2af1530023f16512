"""The inspection of a dataset before any sweep, and the space that suits it."""

import shlex
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

from rich.console import Console

from orchestrator.errors import UserError
from orchestrator.results.inspection import Inspection
from orchestrator.stages.inputs import prepare_dataset
from orchestrator.terminal.progress_bar import progress_bar
from search_spaces import Fixed, Space, load, names
from search_spaces.dimensions import Dimension, Value
from search_spaces.nearest import nearest
from search_spaces.set_size import size_text
from search_spaces.space_file import space_text
from search_spaces.suggested import suggested
from search_spaces.vocabulary import DEFAULTS, key
from trainables.config.reading import Reading
from trainables.data import catalog
from trainables.data.datasets import load as load_dataset
from trainables.data.duplicates import duplicates_of
from trainables.data.inspection import class_contents
from trainables.data.preparation import SPLITS
from trainables.data.published import find
from trainables.data.real_images import check_ipc
from trainables.data.source import Source, shown
from trainables.data.survey import LARGEST_SIDE, Survey, survey
from trainables.errors import DatasetError

__all__ = ["inspect_dataset", "read_settings", "suggest_space", "sweep_commands"]

READING = tuple(field.name for field in fields(Reading))
"""Keys of a space that say how files are read."""
KEYS = (*READING, "validation_share", "classes", "ipc")
"""Keys of a space that an inspection reads."""
IPC = 1
"""Images per class of a suggested space, unless they are set."""
_EXAMPLE = "my_space.py"


def read_settings(overrides: Mapping[str, str]) -> dict[str, Value]:
    """Return the values of `--set`, parsed as in a sweep.

    Raises:
        SpaceError: A key is unknown, or a value breaks its rule.
        UserError: A key does not concern the data.
    """
    for name in overrides:
        key(name)  # refuses an unknown name
        if name not in KEYS:
            raise UserError(f"inspect does not read {name}, {nearest(name, KEYS)}; give it to the sweep")
    return {name: key(name).parse(text) for name, text in overrides.items()}


def inspect_dataset(
    dataset: str, data: Path | None, settings: Mapping[str, Value], datasets: Path, console: Console
) -> Inspection:
    """Read the headers of a dataset's pictures, prepare it as a sweep does, and describe it.

    Pictures of different sizes are resized to a suggested size unless one is set, and damaged ones are left out unless
    they are to be refused.

    Args:
        dataset: The dataset's name.
        data: The folder of its files.
        settings: What `read_settings` returned.
        datasets: Folder of prepared datasets.
        console: Shows the progress.

    Raises:
        DatasetError: As `datasets.prepare`.
        ConfigError: A class has fewer training images than `ipc`.
    """
    needed = {name: value for name, value in settings.items() if name != "ipc"}
    # Any size does for a survey; without one, the finder would read it from the first picture, which may be damaged.
    source = _find(dataset, data, {**needed, "image_size": needed.get("image_size") or LARGEST_SIDE})
    surveyed = _survey(source, console)
    if not needed.get("image_size") and not _as_they_are(source, surveyed):
        needed["image_size"] = surveyed.suggested_size
    source = _find(dataset, data, needed)
    path, damaged = _prepare(source, needed, datasets, console)
    if damaged:
        needed["damaged"] = "skip"
    prepared = load_dataset(path, SPLITS)
    check_ipc(prepared, int(settings.get("ipc", IPC)))
    return Inspection(
        dataset=prepared,
        findings=source.findings,
        survey=surveyed,
        classes=class_contents(path),
        duplicates=duplicates_of(path),
        settings={name: value for name, value in needed.items() if value != DEFAULTS[name]},
    )


def _find(dataset: str, data: Path | None, settings: Mapping[str, Value]) -> Source:
    return find(dataset, data, Reading.from_settings(settings))


def _survey(source: Source, console: Console) -> Survey:
    """Read the headers of all pictures, with a progress bar."""
    found = source.open()
    total = len(found.train.labels) + len(found.test.labels)
    with progress_bar(console, "Reading the headers", total) as show:
        return survey((found.train, found.test), lambda done, total: show(done))


def _as_they_are(source: Source, surveyed: Survey) -> bool:
    """Return whether the readable pictures need not be resized."""
    side, name = surveyed.square_side, source.facts.name
    expected = catalog.facts(name).image_size if name in catalog.names() else side
    return side is not None and side == expected


def _prepare(source: Source, settings: Mapping[str, Value], datasets: Path, console: Console) -> tuple[Path, bool]:
    """Return the prepared file, and whether damaged pictures were left out for it.

    Raises:
        DatasetError: There are damaged pictures and settings refuse them, or anything else is wrong.
    """
    share, classes = float(settings.get("validation_share", DEFAULTS["validation_share"])), settings.get("classes", 0)

    def prepare(reading: Reading) -> Path:
        return prepare_dataset(source, datasets, share, console, reading=reading, classes=int(classes))

    reading = Reading.from_settings(settings)
    try:
        return prepare(reading), False
    except DatasetError:
        if "damaged" in settings:
            raise
    return prepare(replace(reading, damaged="skip")), True  # refused again for anything but damage


def suggest_space(found: Inspection, settings: Mapping[str, Value], data: Path | None, file: Path) -> str:
    """Return the text of a file whose space suits a dataset.

    Args:
        found: The dataset.
        settings: What `read_settings` returned.
        data: The folder of its files.
        file: The file; its name is the space's.
    """
    dataset, ipc = found.dataset, int(settings.get("ipc", IPC))
    images = sum(each.train + each.validation for each in found.classes)
    size = f"{dataset.image_size} × {dataset.image_size} pixels"
    suggestion = suggested(
        train_images=images, classes=dataset.classes, image_size=dataset.image_size, channels=dataset.channels, ipc=ipc
    )
    reasons = {
        "image_size": f"the files are {found.survey.range_text}",
        "damaged": f"{dataset.damage.count if dataset.damage else 0:,} of the files are damaged",
    }
    of_the_data: dict[str, Dimension] = {
        name: Fixed(value, source="given" if name in settings else reasons[name])
        for name, value in found.settings.items()
    }
    space = Space(
        name=file.stem,
        title=f"Which settings suit {dataset.classes} classes of {size}?",
        dataset=dataset.name,
        reference="settings that follow from the data's size, written by inspect",
        parameters={**of_the_data, **suggestion.parameters, **of_the_data},
    )
    heading = [
        f"A search on {dataset.classes} classes with {images:,} training images of {size}.",
        "",
        _sweep_command(data, file),
        "",
        f"The values suit a set of {size_text(ipc)}. For a larger one write it anew, as with --set ipc=10.",
    ]
    if damage := dataset.damage:
        heading += ["", f'damaged="skip" leaves out {damage.count:,} damaged files: {damage}']
    return space_text(space, heading, keys=list({**of_the_data, **suggestion.parameters}))


def sweep_commands(found: Inspection, data: Path | None, file: Path | None) -> list[str]:
    """Return the shortest commands that run a sweep on a dataset.

    Args:
        found: The dataset.
        data: The folder of its files.
        file: The file of its space; None: it was not written.
    """
    if file is not None:
        return [_sweep_command(data, file)]
    for name in names():
        if load(name).dataset == found.dataset.name:
            return [_command("sweep", "--space", name, *_data_words(data), *_set_words(found.settings))]
    inspected = [*_data_words(data), *_set_words(found.settings), "--write-space", _EXAMPLE]
    return [_command("inspect", *inspected), _sweep_command(data, Path(_EXAMPLE))]


def _sweep_command(data: Path | None, file: Path) -> str:
    return _command("sweep", "--space", str(file), *_data_words(data))


def _command(name: str, *words: str) -> str:
    return shown(shlex.join(["python", "-m", f"orchestrator.{name}", *words]))


def _data_words(data: Path | None) -> list[str]:
    return [] if data is None else ["--data", str(data)]


def _set_words(settings: Mapping[str, Value]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
