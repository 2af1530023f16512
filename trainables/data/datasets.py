"""Prepared datasets: decoded once into one Arrow file, then memory-mapped by every process of a node.

`prepare` writes the file, `load` maps it. The file holds three splits: train, validation (a fixed stratified share of
the published training images, which neither experts nor distillation use) and test, which `load` maps only if it is
named. `whiten` writes a second file beside it, which `load` accepts too: the same images, normalised by ZCA whitening
instead of by mean and standard deviation.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from trainables.config.reading import AS_IT_IS, Reading
from trainables.data import catalog, published, whitening
from trainables.data.conversion import convert
from trainables.data.damage import Damage
from trainables.data.decoding import Progress
from trainables.data.preparation import FORMAT_VERSION, SPLITS, StoredSplit, check_disk, write
from trainables.data.source import Source
from trainables.data.whitening import Whitening
from trainables.errors import DatasetError
from trainables.implementation import Implementation
from trainables.machine import Machine

__all__ = [
    "FORMAT_VERSION",
    "SPLITS",
    "ImageDataset",
    "Rows",
    "Split",
    "check_whitening",
    "load",
    "names",
    "open_splits",
    "prepare",
    "prepare_source",
    "prepared",
    "whiten",
    "whitened",
]

_WHITENED = ".zca.safetensors"

Rows = Sequence[int] | np.ndarray | Tensor
"""Row numbers within a split, on the CPU."""


def names() -> tuple[str, ...]:
    """Return the names that `prepare` knows."""
    return (*catalog.names(), *catalog.OWN_FACTS)


class Split:
    """Images uint8 [n, ch, H, W] and labels int64 [n] of one split: read-only views on the memory-mapped file."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, digest: str) -> None:
        self.images = images
        self.labels = labels
        self.digest = digest
        """SHA-256 of shape, images and labels."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class ImageDataset:
    """A dataset's loaded splits, and the facts for normalising, augmenting and displaying its images."""

    name: str
    class_names: tuple[str, ...]
    channels: int
    image_size: int
    """Height and width in pixels."""
    mean: tuple[float, ...]
    """Mean per channel, in [0, 1]."""
    std: tuple[float, ...]
    """Standard deviation per channel, likewise."""
    levels: int
    """The pixel value that represents 1.0."""
    augmentation: tuple[str, ...]
    """The augmentation families that do not change an image's class."""
    digest: str
    """SHA-256 of all splits, the normalisation (also whitening) and levels; independent of the files' place."""
    validation_share: float
    """Share of every class's training images in the validation split."""
    path: Path
    splits: dict[str, Split]
    whitening: Whitening | None = None
    """Normalises in place of mean and std; None: mean and std normalise."""
    damage: Damage | None = None
    """The damaged images that were left out of all splits; None: there were none."""

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def split(self, name: str) -> Split:
        """Return a loaded split.

        Raises:
            DatasetError: The split was not loaded.
        """
        if name not in self.splits:
            raise DatasetError(f"split {name!r} is not loaded, only {', '.join(self.splits)}: name it in load()")
        return self.splits[name]

    def pixels(self, split: str, rows: Rows | None = None) -> Tensor:
        """Return images as stored, uint8 [n, ch, H, W], copied from the read-only map."""
        images = self.split(split).images
        return torch.from_numpy(np.array(images if rows is None else images[np.asarray(rows)]))

    def labels(self, split: str, rows: Rows | None = None) -> Tensor:
        """Return labels, int64 [n], as a new tensor."""
        labels = self.split(split).labels
        return torch.from_numpy(np.array(labels if rows is None else labels[np.asarray(rows)]))

    def normalized(self, split: str, rows: Rows | None = None, device: torch.device | str = "cpu") -> Tensor:
        """Return images normalised, float32 [n, ch, H, W], as a new tensor on a device; see `normalize`.

        Their bytes are sent to the device and normalised there: a whitening takes a CPU core 3 ms an image of 64 × 64.
        It takes four times the memory of the stored bytes; if that is too much, keep `pixels` and `normalize` batches.
        """
        return self.normalize(self.pixels(split, rows).to(device))

    def normalize(self, pixels: Tensor) -> Tensor:
        """Return (pixels / levels − mean) / std, float32 [n, ch, H, W], on the device of the pixels [n, ch, H, W].

        With a whitening, pixels / levels are whitened instead, as in MTT, FTD and DATM: docs/method.md,
        "Normalisation".
        """
        return self.normalize_intensities(pixels.to(torch.float32, copy=True).div_(self.levels))

    def normalize_intensities(self, images: Tensor) -> Tensor:
        """Return intensities float32 [n, ch, H, W] in [0, 1] normalised, as `normalize`; they may be overwritten."""
        if self.whitening:
            return self.whitening.apply(images)
        return images.sub_(_per_channel(self.mean, images)).div_(_per_channel(self.std, images))

    def displayable(self, images: Tensor) -> Tensor:
        """Return normalised images float32 [n, ch, H, W] as intensities, clipped to [0, 1], on their device."""
        if self.whitening:
            return self.whitening.undo(images).clamp(0, 1)
        return (images * _per_channel(self.std, images) + _per_channel(self.mean, images)).clamp(0, 1)


def _per_channel(values: tuple[float, ...], like: Tensor) -> Tensor:
    """Return a value for each channel, [ch, 1, 1], in the dtype and on the device of images."""
    return _constants(values, like.dtype, like.device)


@lru_cache(maxsize=16)
def _constants(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a value for each channel, [ch, 1, 1]; sent to a device once, because a GPU waits for every such copy."""
    return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)


def prepare(
    dataset: str | Implementation,
    *,
    cache: Path,
    data: Path | None = None,
    validation_share: float,
    classes: int = 0,
    reading: Reading = AS_IT_IS,
    progress: Progress | None = None,
) -> Path:
    """Decode a dataset into `cache`, unless the same source was decoded before, and return the file for `load`.

    Several processes may prepare the same dataset at once: one does it, and the others wait. A process that was killed
    leaves what it has decoded, and the next one goes on from there. Memory: less than a GiB beside the libraries,
    whatever the dataset holds. Disk: the decoded images twice, until the file is whole.

    Args:
        dataset: One of `names()`, or the implementation of any dataset.
        cache: Folder of prepared datasets; created if it does not exist.
        data: Folder of the published files; None for the digits, which are part of scikit-learn.
        validation_share: Share of each class's training images that becomes the validation split, in (0, 1); at
            least one image per class, and not all of them.
        classes: Number of classes to keep, in label order, in every split; 0 keeps all. The images keep the whole
            dataset's normalisation constants and splits.
        reading: How its files are read: sizes, transparency, damage, splits.
        progress: See `decoding.Progress`; not called if nothing is decoded.

    Raises:
        DatasetError: The name is unknown, the folder does not hold the dataset, a file in it is damaged, it has fewer
            classes, its images are not of one size, or the disk has no room.
    """
    return prepare_source(
        published.find(dataset, data, reading),
        cache=cache,
        validation_share=validation_share,
        classes=classes,
        reading=reading,
        progress=progress,
    )


def prepare_source(
    source: Source,
    *,
    cache: Path,
    validation_share: float,
    classes: int = 0,
    reading: Reading = AS_IT_IS,
    progress: Progress | None = None,
) -> Path:
    """Do what `prepare` does for a source that was found before, with the same reading; its files are not searched.

    Raises:
        DatasetError: As `prepare`, or `validation_share` is not in (0, 1).
    """
    path = prepared(source, cache=cache, validation_share=validation_share, classes=classes, reading=reading)
    whole = prepared(source, cache=cache, validation_share=validation_share, reading=reading)
    if not path.exists():
        if not whole.exists():
            convert(source, whole, validation_share, reading, progress)
        if path != whole:
            _keep_classes(whole, path, classes)
    return path


def prepared(
    source: Source, *, cache: Path, validation_share: float, classes: int = 0, reading: Reading = AS_IT_IS
) -> Path:
    """Return the path of the file that `prepare_source` makes, whether or not it exists; for the arguments, `prepare`.

    Raises:
        DatasetError: There are fewer classes, or `validation_share` is not in (0, 1).
    """
    if not 0 < validation_share < 1:
        raise DatasetError(f"validation_share must be above 0 and below 1, not {validation_share}: .1 is usual")
    facts = source.facts
    catalog.check_classes(classes, facts.classes, facts.name)
    key: list[Any] = [
        FORMAT_VERSION, facts.name, float(validation_share), facts.mean, facts.std, facts.augmentation,
        source.fingerprint,
    ]  # fmt: skip
    if changed := reading.changed():  # only then: files from before there was a reading keep their names
        key.append(changed)
    stem = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:20]
    return cache / f"{stem}-first-{classes}.arrow" if 0 < classes < facts.classes else cache / f"{stem}.arrow"


def _keep_classes(path: Path, kept: Path, classes: int) -> None:
    """Write the first classes of a prepared dataset to a file beside it."""
    _, _, metadata = _open(path)
    with open_splits(path) as splits:
        first = {name: split.only(split.labels < classes) for name, split in splits.items()}
        check_disk(kept, sum(split.image_bytes for split in first.values()), f"keeping the first {classes} classes")
        write(kept, first, {**metadata, "class_names": metadata["class_names"][:classes]})


@contextmanager
def open_splits(path: Path) -> Iterator[dict[str, StoredSplit]]:
    """Open a prepared dataset to read all of it in blocks; all pages of `load`'s map would count as memory.

    Args:
        path: What `prepare` returned.
    """
    with path.open("rb") as file:
        mapped, reader, metadata = _open(path)
        shape = tuple(metadata["shape"])
        splits = {name: _map_split(reader, metadata, name) for name in SPLITS}
        yield {
            name: StoredSplit(
                shape=shape,
                rows=np.arange(len(split)),
                labels=split.labels,
                read=partial(_rows_at, file, split.images.ctypes.data - mapped.address, shape),
            )
            for name, split in splits.items()
        }


def _rows_at(file: BinaryIO, place: int, shape: tuple[int, ...], first: int, count: int) -> np.ndarray:
    """Return images that lie in a file from `place` on, uint8 [count, ch, H, W]."""
    file.seek(place + first * math.prod(shape))
    return np.frombuffer(file.read(count * math.prod(shape)), np.uint8).reshape(count, *shape)


def whitened(path: Path) -> Path:
    """Return the path that `whiten` writes for a prepared dataset."""
    return path.with_name(f"{path.stem}{_WHITENED}")


def whiten(path: Path) -> Path:
    """Fit ZCA whitening on the train split of a prepared dataset, unless its file exists, and return that file.

    Args:
        path: What `prepare` returned; the file for `load` is written beside it, 8 d² bytes for d = ch · H · W.

    Raises:
        DatasetError: `load` refuses the dataset, or the memory does not suffice.
    """
    target = whitened(path)
    if not target.exists():
        dataset = load(path, ("train",))
        whitening.check_memory(dataset.channels * dataset.image_size**2, Machine().memory())
        whitening.fit(dataset.split("train").images, dataset.levels).write(target, dataset.digest)
    return target


def check_whitening(
    source: Source, *, cache: Path, validation_share: float, classes: int, reading: Reading = AS_IT_IS
) -> None:
    """Refuse a whitening that needs more memory than there is, before images are decoded; for the arguments, `prepare`.

    Raises:
        DatasetError: `whiten` would need more, and has not been done before.
    """
    path = prepared(source, cache=cache, validation_share=validation_share, classes=classes, reading=reading)
    if not whitened(path).exists():
        facts = source.facts
        whitening.check_memory(facts.channels * facts.image_size**2, Machine().memory())


def load(path: Path, splits: Sequence[str] = ("train", "validation")) -> ImageDataset:
    """Map splits of a prepared dataset; processes on one node share the memory.

    Args:
        path: What `prepare` or `whiten` returned.
        splits: Which splits; the test split is loaded only if it is named.

    Raises:
        DatasetError: The file is missing, truncated or of another format; or a split is unknown.
    """
    if unknown := [split for split in splits if split not in SPLITS]:
        raise DatasetError(f"splits are {', '.join(SPLITS)}; not {', '.join(unknown)}")
    if path.name.endswith(_WHITENED):
        dataset = load(path.with_name(f"{path.name.removesuffix(_WHITENED)}.arrow"), splits)
        key = json.dumps([dataset.digest, "zca", whitening.FORMAT_VERSION, whitening.EPS])
        return replace(
            dataset,
            digest=hashlib.sha256(key.encode()).hexdigest(),
            path=path,
            whitening=Whitening.read(path, dataset.digest),
        )
    try:
        _, reader, metadata = _open(path)
        channels, image_size, _ = metadata["shape"]
        return ImageDataset(
            name=metadata["name"],
            class_names=tuple(metadata["class_names"]),
            channels=channels,
            image_size=image_size,
            mean=tuple(metadata["mean"]),
            std=tuple(metadata["std"]),
            levels=metadata["levels"],
            augmentation=tuple(metadata["augmentation"]),
            digest=metadata["digest"],
            validation_share=metadata["validation_share"],
            path=path,
            damage=Damage.read(metadata.get("damage")),
            splits={split: _map_split(reader, metadata, split) for split in splits},
        )
    except DatasetError:
        raise
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
        raise DatasetError(f"{path} is truncated or not a prepared dataset: delete it, it is made again") from error


def _open(path: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Map a prepared file and return the map as a buffer, Arrow's reader and the metadata."""
    if not path.is_file():
        raise DatasetError(f"{path} is missing: prepare the dataset again")
    mapped = pa.memory_map(str(path), "r").read_buffer()
    reader = pa.ipc.open_file(mapped)
    metadata = {key.decode(): json.loads(value) for key, value in (reader.schema.metadata or {}).items()}
    if (version := metadata["format_version"]) != FORMAT_VERSION:
        raise DatasetError(f"{path} has format version {version}, not {FORMAT_VERSION}: delete it, it is made again")
    return mapped, reader, metadata


def _map_split(reader: Any, metadata: dict[str, Any], split: str) -> Split:
    batch = reader.get_batch(SPLITS.index(split))
    rows, shape = metadata["rows"][split], metadata["shape"]
    # Views on the buffers: Arrow's to_numpy() would import pandas in every worker.
    images = np.frombuffer(batch.column("image").values.buffers()[1], np.uint8, rows * math.prod(shape))
    labels = np.frombuffer(batch.column("label").buffers()[1], np.int64, rows)
    return Split(images.reshape(rows, *shape), labels, metadata["split_digests"][split])
