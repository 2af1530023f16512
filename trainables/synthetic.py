"""A synthetic set and its two files: `.safetensors` with everything, `.pt` as the challenge wants it.

Shape legend: S = ipc·C synthetic images, C classes, ch channels, H = W side.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainables.errors import SyntheticSetError
from trainables.files import write_atomically
from trainables.labels import default_order_labels

__all__ = ["SyntheticSet", "read_challenge", "read_synthetic", "write_challenge", "write_synthetic"]

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class SyntheticSet:
    """Images, labels and what a stranger needs to know to use them."""

    images: Tensor
    """Normalised, float32 [S, ch, H, W], on the CPU."""
    labels: Tensor
    """Hard labels in default order (image i has label i // ipc), int64 [S]; or soft labels, float32 [S, C]."""
    alpha: float
    """Learning rate learned along with the images."""
    dataset: str
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    """Normalisation: image = (pixel in [0, 1] − mean) / std, a value a channel."""
    std: tuple[float, ...]
    ipc: int
    """Images per class."""
    method: str
    config: Mapping[str, Any]
    """The resolved settings that made it."""
    provenance: Mapping[str, Any]
    """Where it comes from: sweep, trial, seed, iteration, versions, the experts' address."""


def write_synthetic(path: Path, synthetic: SyntheticSet) -> None:
    """Write `images`, `labels`, `alpha` and the metadata as one safetensors file, atomically.

    Raises:
        SyntheticSetError: The set is not what its metadata would say it is.
    """
    _check("the set to be written", synthetic)
    metadata = {
        "format_version": FORMAT_VERSION,
        "dataset": synthetic.dataset,
        "class_names": list(synthetic.class_names),
        "mean": list(synthetic.mean),
        "std": list(synthetic.std),
        "ipc": synthetic.ipc,
        "label_order": "default: the label of image i is i // ipc",
        "images": "normalised: (pixel in [0, 1] - mean) / std",
        "method": synthetic.method,
        "config": dict(synthetic.config),
        "provenance": dict(synthetic.provenance),
    }
    tensors = {
        "images": synthetic.images.contiguous(),
        "labels": synthetic.labels,
        "alpha": torch.tensor(synthetic.alpha, dtype=torch.float32),
    }
    text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    write_atomically(path, lambda aside: save_file(tensors, aside, metadata=text))


def read_synthetic(path: Path) -> SyntheticSet:
    """Read what `write_synthetic` wrote.

    Raises:
        SyntheticSetError: The file is not such a set; the message says why.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no dict
    except (OSError, SafetensorError) as error:
        raise SyntheticSetError(f"{path} cannot be read as safetensors: {error}") from error
    if text.get("format_version") != str(FORMAT_VERSION):
        raise SyntheticSetError(
            f"{path} has format version {text.get('format_version')}, this program reads {FORMAT_VERSION}"
        )
    try:
        synthetic = SyntheticSet(
            images=tensors["images"],
            labels=tensors["labels"],
            alpha=float(tensors["alpha"]),
            dataset=text["dataset"],
            class_names=tuple(json.loads(text["class_names"])),
            mean=tuple(json.loads(text["mean"])),
            std=tuple(json.loads(text["std"])),
            ipc=int(text["ipc"]),
            method=text["method"],
            config=json.loads(text["config"]),
            provenance=json.loads(text["provenance"]),
        )
    except KeyError as error:
        raise SyntheticSetError(f"{path} is no synthetic set: it has no {error}") from error
    except ValueError as error:
        raise SyntheticSetError(f"{path} is no synthetic set: its metadata cannot be read ({error})") from error
    _check(str(path), synthetic)
    return synthetic


def write_challenge(path: Path, images: Tensor) -> None:
    """Write images as the challenge's bare float tensor [ipc·C, ch, H, W], normalised, in default order. METHOD §3."""
    bare = images.detach().cpu().float().contiguous().clone()  # a view would be saved with all it is a view of
    write_atomically(path, lambda aside: torch.save(bare, aside))


def read_challenge(path: Path, *, classes: int, channels: int, image_size: int) -> tuple[Tensor, Tensor]:
    """Read a challenge submission: images float32 [S, ch, H, W] and their labels in default order, int64 [S].

    Raises:
        SyntheticSetError: It is no float tensor, of another shape, not finite, or not ipc·C images long.
    """
    try:
        images = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SyntheticSetError(
            f"{path} cannot be read as a tensor: {(str(error).splitlines() or [type(error).__name__])[0]}"
        ) from error
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise SyntheticSetError(f"{path} must hold one bare float tensor, not {kind}")
    if images.shape[1:] != (channels, image_size, image_size) or len(images) == 0 or len(images) % classes:
        raise SyntheticSetError(
            f"{path} must hold images of shape [ipc·{classes}, {channels}, {image_size}, {image_size}], "
            f"not {list(images.shape)}"
        )
    _check_finite(str(path), images)
    return images.float(), default_order_labels(len(images) // classes, classes)


def _check(name: str, synthetic: SyntheticSet) -> None:
    """Refuse images and labels that are not those of ipc images per class in default order."""
    images, classes = synthetic.images, len(synthetic.class_names)
    expected = default_order_labels(synthetic.ipc, classes)
    if images.ndim != 4 or len(images) != len(expected) or images.dtype != torch.float32:
        raise SyntheticSetError(
            f"{name} must hold float32 images of shape [{synthetic.ipc}·{classes}, channels, height, width], "
            f"not {images.dtype} of {list(images.shape)}"
        )
    labels = synthetic.labels
    soft = labels.dtype == torch.float32 and labels.shape == (len(images), classes)
    if not soft and not torch.equal(labels, expected):
        raise SyntheticSetError(
            f"{name} must hold labels in default order (the label of image i is i // ipc), or float32 soft labels of "
            f"shape [{len(images)}, {classes}], not {labels.dtype} of {list(labels.shape)}"
        )
    _check_finite(name, images)


def _check_finite(name: str, images: Tensor) -> None:
    if bad := int((~torch.isfinite(images)).sum()):
        raise SyntheticSetError(f"{name} holds {bad} pixels that are not finite numbers")
