"""A synthetic set and its two files: `.safetensors` with everything, `.pt` in the challenge's format.

Shape legend: S = ipc·C synthetic images, C classes, ch channels, H = W side.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trainables.data.labels import default_order_labels
from trainables.errors import SyntheticSetError
from trainables.storage.atomic import write_atomically
from trainables.storage.tensor_file import safetensors_content, torch_content

__all__ = ["SyntheticSet", "read_challenge", "read_synthetic", "write_challenge", "write_synthetic"]

FORMAT_VERSION = 2
READABLE_VERSIONS = ("1", "2")  # version 1 has no displayable images: they are computed


@dataclass(frozen=True, kw_only=True)
class SyntheticSet:
    """Images, labels and the metadata that other users of the set need."""

    images: Tensor
    """Normalised images (whitened if the setting `zca` is true), float32 [S, ch, H, W], on the CPU."""
    labels: Tensor
    """Hard labels in default order (image i has label i // ipc), int64 [S]; or soft labels, float32 [S, C]."""
    alpha: float
    """Learning rate learned along with the images."""
    dataset: str
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    """Normalisation: image = (pixel in [0, 1] − mean) / std, one value per channel."""
    std: tuple[float, ...]
    ipc: int
    """Images per class."""
    method: str
    config: Mapping[str, Any]
    """The resolved settings of the run that made the set."""
    provenance: Mapping[str, Any]
    """The set's origin: sweep, trial, seed, iteration, versions, the experts' address."""
    displayable: Tensor | None = None
    """The images as intensities for display, float32 [S, ch, H, W] in [0, 1]; None: images · std + mean, clipped, which
    is not possible for whitened images."""


def write_synthetic(path: Path, synthetic: SyntheticSet) -> None:
    """Write `images`, `displayable`, `labels`, `alpha` and the metadata as one safetensors file, atomically.

    `displayable` is float32 and not bytes: it takes as much space as the images, and is not rounded where pixels do not
    have 256 levels.

    Raises:
        SyntheticSetError: Images or labels do not agree with the set's metadata.
    """
    displayable = _displayable("the set to be written", synthetic)
    metadata = {
        "format_version": FORMAT_VERSION,
        "dataset": synthetic.dataset,
        "class_names": list(synthetic.class_names),
        "mean": list(synthetic.mean),
        "std": list(synthetic.std),
        "ipc": synthetic.ipc,
        "label_order": "default: the label of image i is i // ipc",
        "images": "ZCA-whitened" if synthetic.config.get("zca") else "normalised: (pixel in [0, 1] - mean) / std",
        "displayable": "intensities in [0, 1], clipped: for showing, not for training",
        "method": synthetic.method,
        "config": dict(synthetic.config),
        "provenance": dict(synthetic.provenance),
    }
    tensors = {
        "images": synthetic.images.contiguous(),
        "displayable": displayable.contiguous(),
        "labels": synthetic.labels,
        "alpha": torch.tensor(synthetic.alpha, dtype=torch.float32),
    }
    text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    # Not save_file(), which makes files that only their owner may read.
    write_atomically(path, lambda aside: aside.write_bytes(safetensors_content(tensors, text)))


def read_synthetic(path: Path) -> SyntheticSet:
    """Read a file of `write_synthetic`, also of format version 1, which has no displayable images.

    Raises:
        SyntheticSetError: The file is not a synthetic set; the message says why.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no dict
    except (OSError, SafetensorError) as error:
        raise SyntheticSetError(f"{path} cannot be read as safetensors: {error}") from error
    version = text.get("format_version")
    if version not in READABLE_VERSIONS:
        raise SyntheticSetError(
            f"{path} has format version {version}, this program reads {' and '.join(READABLE_VERSIONS)}"
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
            displayable=None if version == "1" else tensors["displayable"],
        )
    except KeyError as error:
        raise SyntheticSetError(f"{path} is not a synthetic set: it has no {error}") from error
    except ValueError as error:
        raise SyntheticSetError(f"{path} is not a synthetic set: its metadata cannot be read ({error})") from error
    return replace(synthetic, displayable=_displayable(str(path), synthetic))


def write_challenge(path: Path, images: Tensor) -> None:
    """Write images as the challenge's bare float tensor [ipc·C, ch, H, W], normalised, in default order.

    Source: docs/method.md, "Challenge protocol".
    """
    bare = images.detach().cpu().float().contiguous().clone()  # a view would be saved with its whole base tensor
    write_atomically(path, lambda aside: aside.write_bytes(torch_content(bare)))


def read_challenge(path: Path, *, classes: int, channels: int, image_size: int) -> tuple[Tensor, Tensor]:
    """Read a challenge submission: images float32 [S, ch, H, W] and their labels in default order, int64 [S].

    Floats of other widths are accepted and converted to float32: docs/method.md, "Challenge protocol".

    Raises:
        SyntheticSetError: The file is not a float tensor, has another shape, is not finite, or has not ipc·C images.
    """
    expected = f"[ipc·{classes}, {channels}, {image_size}, {image_size}]"
    images = _read_tensor(path, expected)
    if images.shape[1:] != (channels, image_size, image_size) or len(images) == 0 or len(images) % classes:
        channels_last = images.shape[1:] == (image_size, image_size, channels) != (channels, image_size, image_size)
        raise SyntheticSetError(
            f"{path} must hold images of shape {expected}, not {list(images.shape)}"
            f"{'; put the channels first: images.permute(0, 3, 1, 2)' if channels_last else ''}"
        )
    images = images.detach().float()
    _check_finite(str(path), images)
    return images, default_order_labels(len(images) // classes, classes)


def _read_tensor(path: Path, expected: str) -> Tensor:
    """Return the float tensor of a file, unchanged.

    Raises:
        SyntheticSetError: The file holds something else; the message says what, and the shape `expected`.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SyntheticSetError(
            f"{path} cannot be read as a tensor: {(str(error).splitlines() or [type(error).__name__])[0]}"
        ) from error
    rule = f"{path} must hold one bare float tensor {expected} of normalised images, not"
    if isinstance(content, dict):
        raise SyntheticSetError(
            f"{rule} dict with {_describe_keys(content)}; save the images' tensor alone, without labels"
        )
    if not isinstance(content, Tensor):
        raise SyntheticSetError(
            f"{rule} {type(content).__name__}; save the images' tensor alone, without labels: the label of image i is "
            "i // ipc"
        )
    if not content.is_floating_point():
        remedy = "; normalise the pixels: (pixel / 255 − mean) / std" if content.dtype == torch.uint8 else ""
        raise SyntheticSetError(f"{rule} {content.dtype}{remedy}")
    if content.layout is not torch.strided:
        raise SyntheticSetError(f"{rule} {content.layout}; save images.to_dense()")
    return content


def _describe_keys(content: dict[Any, Any]) -> str:
    """Return a dict's keys for a message; their number if there are more than four."""
    keys = [repr(key) for key in content]
    return f"{len(keys)} keys" if len(keys) > 4 else ", ".join(keys) or "no keys"


def _check(name: str, synthetic: SyntheticSet) -> None:
    """Refuse images and labels that are not those of ipc images per class in default order."""
    images, classes = synthetic.images, len(synthetic.class_names)
    expected = default_order_labels(synthetic.ipc, classes)
    if images.ndim != 4 or len(images) != len(expected) or images.dtype != torch.float32:
        raise SyntheticSetError(
            f"{name} must hold float32 images of shape [{synthetic.ipc}·{classes}, channels, height, width], "
            f"not {images.dtype} of {list(images.shape)}"
        )
    if not len(synthetic.mean) == len(synthetic.std) == images.shape[1]:
        raise SyntheticSetError(
            f"{name} must have a mean and a std for each of {images.shape[1]} channels, not {len(synthetic.mean)} and "
            f"{len(synthetic.std)}"
        )
    labels = synthetic.labels
    soft = labels.dtype == torch.float32 and labels.shape == (len(images), classes)
    if not soft and not torch.equal(labels, expected):
        raise SyntheticSetError(
            f"{name} must hold labels in default order (the label of image i is i // ipc), or float32 soft labels of "
            f"shape [{len(images)}, {classes}], not {labels.dtype} of {list(labels.shape)}"
        )
    _check_finite(name, images)


def _displayable(name: str, synthetic: SyntheticSet) -> Tensor:
    """Check a set and return its displayable images, or the un-normalised ones, clipped."""
    _check(name, synthetic)
    images, displayable = synthetic.images, synthetic.displayable
    if displayable is None:
        if synthetic.config.get("zca"):
            raise SyntheticSetError(f"{name} is whitened, so mean and std cannot show it: give displayable images")
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (synthetic.mean, synthetic.std))
        displayable = (images * std + mean).clamp(0, 1)
    if displayable.dtype != torch.float32 or displayable.shape != images.shape:
        raise SyntheticSetError(
            f"{name} must hold displayable images like its images, float32 of {list(images.shape)}, "
            f"not {displayable.dtype} of {list(displayable.shape)}"
        )
    if not bool(((displayable >= 0) & (displayable <= 1)).all()):  # NaN fails both comparisons
        raise SyntheticSetError(f"{name} must hold displayable images in [0, 1]; clip them")
    return displayable


def _check_finite(name: str, images: Tensor) -> None:
    if bad := int((~torch.isfinite(images)).sum()):
        raise SyntheticSetError(f"{name} holds {bad} pixels that are not finite numbers")
