"""Small made datasets in the layouts in which the real ones are published."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.support.paths import ROOT
from trainables.config.reading import AS_IT_IS, Reading
from trainables.data import datasets
from trainables.data.datasets import ImageDataset
from trainables.data.decoding import Progress
from trainables.implementation import Implementation

REAL = ROOT.parent / "shared" / "data"
WNIDS = [f"n{10_000_000 + 7 * index}" for index in range(200)]


def picture(label: int, size: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    """A noisy picture whose brightness tells its label; uint8 [size, size, 3] or [size, size]."""
    noise = np.random.default_rng([label, seed]).integers(0, 40, (size, size, channels), dtype=np.uint8)
    return (noise + np.uint8(label)).squeeze()


def encode(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_parquet(
    path: Path,
    pictures: Iterable[np.ndarray | bytes | None],
    labels: Sequence[int | None],
    *,
    image: str = "image",
    label: str = "label",
    struct: bool = True,
    metadata: dict[str, str] | None = None,
) -> None:
    encoded = [p if isinstance(p, bytes | None) else encode(p) for p in pictures]
    column = pa.array([{"bytes": item, "path": None} for item in encoded]) if struct else pa.array(encoded, pa.binary())
    table = pa.table({image: column, label: pa.array(labels)}).replace_schema_metadata(metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=7)


def cifar10_parquet(folder: Path, **options: Any) -> list[np.ndarray]:
    """Ten classes, 4 training and 1 test image each; returns what must come out, uint8 [n, 3, 32, 32] a split."""
    expected = []
    for file, each in (("train-00000-of-00001", 4), ("test-00000-of-00001", 1)):
        labels = [label for _ in range(each) for label in range(10)]
        pictures = [picture(label, 32, seed) for seed, label in enumerate(labels)]
        write_parquet(folder / f"{file}.parquet", pictures, labels, **options)
        expected.append(np.stack(pictures).transpose(0, 3, 1, 2))
    return expected


def tiny_folder(folder: Path) -> None:
    """Tiny ImageNet's layout, 3 training and 1 validation image a class; the first training image is grey."""
    folder.mkdir(parents=True)
    (folder / "wnids.txt").write_text("\n".join(reversed(WNIDS)) + "\n")
    annotations = []
    for index, wnid in enumerate(WNIDS):
        images = folder / "train" / wnid / "images"
        images.mkdir(parents=True)
        for seed in range(3):
            channels = 1 if index == seed == 0 else 3
            images.joinpath(f"{wnid}_{seed}.JPEG").write_bytes(encode(picture(index, 64, seed, channels), "JPEG"))
    (folder / "val" / "images").mkdir(parents=True)
    for row, index in enumerate(reversed(range(200))):
        (folder / "val" / "images" / f"val_{row}.JPEG").write_bytes(encode(picture(index, 64, 9), "JPEG"))
        annotations.append(f"val_{row}.JPEG\t{WNIDS[index]}\t0\t0\t63\t63\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(annotations))


def image_folder(folder: Path, test: str = "test", suffix: str = ".png") -> None:
    """A folder for each of three classes, 4 training images and 2 others of the test split each, 12 × 12 pixels."""
    for split, count in (("train", 4), (test, 2)):
        for label, name in enumerate(("ant", "Bee", "cow")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                kind = "PNG" if suffix == ".png" else "JPEG"
                content = encode(picture(60 * label, 12, number + 4 * (split != "train")), kind)
                (folder / split / name / f"{number}{suffix}").write_bytes(content)


def prepare(
    name: str | Implementation,
    tmp_path: Path,
    data: Path | None = None,
    share: float = 0.25,
    splits: Sequence[str] = datasets.SPLITS,
    progress: Progress | None = None,
    classes: int = 0,
    reading: Reading = AS_IT_IS,
) -> ImageDataset:
    path = datasets.prepare(
        name,
        cache=tmp_path / "cache",
        data=data,
        validation_share=share,
        progress=progress,
        classes=classes,
        reading=reading,
    )
    return datasets.load(path, splits)
