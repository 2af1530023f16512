"""A synthetic set in the forms that other tools read: image folder, Parquet, a hub's folder, .npz, .pt.

Images have 8 bits a channel, as those tools expect them, or stay the floats that networks were trained on. Images of 8
bits are rounded and clipped, which their writer measures. Every form has the same facts about the set, as JSON.

Shape legend: S = ipc·C synthetic images, C classes, ch channels, H = W side.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainables.data.forms import FOLDER, HUB, NPZ, PARQUET, PT
from trainables.data.labels import default_order_labels
from trainables.data.names import folder_names, text_names
from trainables.data.pictures import encode_picture
from trainables.data.synthetic import SyntheticSet, write_challenge

__all__ = ["ExportedSet", "intensities_of", "pixels_of", "write_form"]

ABOUT = "about.json"
"""The facts about the set, beside images of forms whose files cannot hold them."""


@dataclass(frozen=True, kw_only=True)
class ExportedSet:
    """A set as its files will hold it."""

    synthetic: SyntheticSet
    as_floats: bool
    """Whether images are the normalised floats, and not pictures of 8 bits."""
    about: Mapping[str, Any]
    """Facts about the set, as JSON holds them."""

    @property
    def images(self) -> np.ndarray:
        """uint8 or float32, [S, H, W] of grey and [S, H, W, ch] of coloured images."""
        images = self.synthetic.images if self.as_floats else pixels_of(self.synthetic)
        return np.ascontiguousarray(images.permute(0, 2, 3, 1).squeeze(-1).numpy())

    @property
    def labels(self) -> np.ndarray:
        """Classes in default order, int64 [S]: those with which the set was judged."""
        return default_order_labels(self.synthetic.ipc, len(self.synthetic.class_names)).numpy()

    @property
    def soft_labels(self) -> np.ndarray | None:
        """Learned labels, float32 [S, C]; None: the set has none."""
        labels = self.synthetic.labels
        return labels.numpy() if labels.is_floating_point() else None

    @property
    def class_names(self) -> list[str]:
        """Names of the C classes, as files in UTF-8 hold them."""
        return text_names(self.synthetic.class_names)


def pixels_of(synthetic: SyntheticSet) -> Tensor:
    """Return the displayable images rounded to 8 bits, uint8 [S, ch, H, W]."""
    assert synthetic.displayable is not None, "a set that was read has displayable images"
    return (synthetic.displayable * 255).round().to(torch.uint8)


def intensities_of(pixels: Tensor) -> Tensor:
    """Return pixels uint8 as those who read them do: float32 in [0, 1]."""
    return pixels.float() / 255


def _write_folder(folder: Path, exported: ExportedSet) -> None:
    """Write CLASS/00000.png, as torchvision's ImageFolder reads it, labels.csv and the facts.

    labels.csv has the place of each picture, its label in the set and its soft label. ImageFolder numbers classes by
    the order of the folders' names.
    """
    names, soft = folder_names(exported.synthetic.class_names), exported.soft_labels
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", "label", *(f"soft_label_{label}" for label in range(len(names)) if soft is not None)])
    for number, (label, content) in enumerate(zip(exported.labels.tolist(), _pngs(exported), strict=True)):
        file = folder / names[label] / f"{number % exported.synthetic.ipc:05d}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        place = file.relative_to(folder).as_posix()
        table.writerow([place, label, *(soft[number].tolist() if soft is not None else ())])
    (folder / "labels.csv").write_text(text.getvalue(), encoding="utf-8")
    classes = [
        {"label": label, "name": name, "folder": place}
        for label, (name, place) in enumerate(zip(exported.class_names, names, strict=True))
    ]
    _write_about(folder, {**exported.about, "classes": classes})


def _write_parquet(folder: Path, exported: ExportedSet) -> None:
    """Write train.parquet with the features of the `datasets` package: image, label and soft_label."""
    _write_table(folder / "train.parquet", exported)


def _write_hub(folder: Path, exported: ExportedSet) -> None:
    """Write the Parquet file where a hub looks for it; the data card is written by who knows the figures."""
    (folder / "data").mkdir()
    _write_table(folder / "data" / "train-00000-of-00001.parquet", exported)


def _write_npz(folder: Path, exported: ExportedSet) -> None:
    """Write train.npz: arrays with MedMNIST's names, soft labels, alpha, normalisation and names; no pickles."""
    synthetic, soft = exported.synthetic, exported.soft_labels
    arrays: dict[str, np.ndarray] = {
        "train_images": exported.images,
        "train_labels": exported.labels,
        **({} if soft is None else {"train_soft_labels": soft}),
        "alpha": np.array(synthetic.alpha, dtype=np.float32),
        "mean": np.array(synthetic.mean, dtype=np.float32),
        "std": np.array(synthetic.std, dtype=np.float32),
        "class_names": np.array(exported.class_names, dtype=np.str_),
        "about": np.array(_json(exported.about)),
    }
    np.savez(folder / "train.npz", **arrays)  # type: ignore[arg-type]


def _write_pt(folder: Path, exported: ExportedSet) -> None:
    """Write train.pt, the challenge's bare tensor, the soft labels in a tensor beside it, and the facts."""
    write_challenge(folder / "train.pt", exported.synthetic.images)
    if exported.soft_labels is not None:
        torch.save(exported.synthetic.labels.clone(), folder / "soft_labels.pt")
    _write_about(folder, exported.about)


_WRITERS: Mapping[str, Callable[[Path, ExportedSet], None]] = {
    FOLDER: _write_folder,
    PARQUET: _write_parquet,
    HUB: _write_hub,
    NPZ: _write_npz,
    PT: _write_pt,
}


def write_form(folder: Path, form: str, exported: ExportedSet) -> None:
    """Write a set in one of `forms.FORMS` into an empty folder.

    Raises:
        OSError: A file cannot be written.
    """
    _WRITERS[form](folder, exported)


def _pngs(exported: ExportedSet) -> list[bytes]:
    return [encode_picture(Image.fromarray(pixels), "PNG") for pixels in exported.images]


def _write_table(path: Path, exported: ExportedSet) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    soft = exported.soft_labels
    if exported.as_floats:
        images: Any = pa.array(exported.synthetic.images.tolist(), pa.list_(pa.list_(pa.list_(pa.float32()))))
        shape = list(exported.synthetic.images.shape[1:])
        feature: dict[str, Any] = {"shape": shape, "dtype": "float32", "_type": "Array3D"}
    else:
        rows = [{"bytes": content, "path": f"{row:05d}.png"} for row, content in enumerate(_pngs(exported))]
        images, feature = pa.array(rows, pa.struct({"bytes": pa.binary(), "path": pa.string()})), {"_type": "Image"}
    columns = {"image": images, "label": pa.array(exported.labels)}
    features = {"image": feature, "label": {"names": exported.class_names, "_type": "ClassLabel"}}
    if soft is not None:
        columns["soft_label"] = pa.array(list(soft), pa.list_(pa.float32()))
        features["soft_label"] = {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "List"}
    metadata = {"huggingface": _json({"info": {"features": features}}), "mdatm": _json(exported.about)}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)


def _write_about(folder: Path, about: Mapping[str, Any]) -> None:
    (folder / ABOUT).write_text(f"{_json(about, indent=1)}\n", encoding="utf-8")


def _json(content: Any, indent: int | None = None) -> str:
    return json.dumps(content, indent=indent, allow_nan=False)
