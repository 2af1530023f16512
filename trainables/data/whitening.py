"""ZCA whitening of images, as in MTT, FTD and DATM: kornia's, eps .1, fitted on the training split.

Source: docs/method.md, "Normalisation".

With X the images as rows of intensities in [0, 1], minus their mean, and XᵀX / (n − 1) = V diag(S) Vᵀ:

    whitened = X V diag((S + eps)^−½) Vᵀ,     X = whitened V diag((S + eps)^½) Vᵀ
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainables.errors import DatasetError
from trainables.machine import Limit
from trainables.storage.atomic import write_atomically

__all__ = ["EPS", "FORMAT_VERSION", "Whitening", "check_memory", "covariance", "fit"]

FORMAT_VERSION = 1
EPS = 0.1
"""Added to the covariance's eigenvalues, in squared intensities: MTT's, FTD's and DATM's."""

_ZERO = 128  # subtracted from the stored bytes, so that a product is at most 2¹⁴
_EXACT_ROWS = 1024  # a sum of so many such products is at most 2²⁴: exact in float32, in any order
_MATRICES = 6  # matrices of d² float64 that are in memory at once
_TENSORS = ("mean", "forward", "inverse")


class Whitening:
    """An affine map of flat images: (x − mean) · forward; its inverse is x · inverse + mean.

    The matrices are symmetric, float32 [d, d] with d = ch · H · W. Read from a file they are memory-mapped, and the
    processes of a node share them.
    """

    def __init__(self, mean: Tensor, forward: Tensor, inverse: Tensor) -> None:
        self.mean = mean
        """float32 [d]."""
        self.forward = forward
        self.inverse = inverse
        self._copies: dict[tuple[str, torch.device], Tensor] = {}

    def apply(self, images: Tensor) -> Tensor:
        """Return intensities float32 [n, ch, H, W] whitened, on their device. Cost: 2 n d² operations."""
        flat = images.flatten(1) - self._on("mean", images.device)
        return (flat @ self._on("forward", images.device)).view_as(images)

    def undo(self, images: Tensor) -> Tensor:
        """Return whitened float32 [n, ch, H, W] as intensities, on their device: the inverse of `apply`."""
        flat = images.flatten(1) @ self._on("inverse", images.device)
        return (flat + self._on("mean", images.device)).view_as(images)

    def _on(self, name: str, device: torch.device) -> Tensor:
        """Return one of the tensors on a device, copied there once."""
        key = (name, device)
        if key not in self._copies:
            self._copies[key] = getattr(self, name).to(device)
        return self._copies[key]

    def write(self, path: Path, digest: str) -> None:
        """Write to a file; `digest` is the dataset's."""
        from trainables.storage.tensor_file import safetensors_content  # needed only with whitening, as below

        tensors = {name: getattr(self, name) for name in _TENSORS}
        # Not save_file(), which makes files that only their owner may read.
        write_atomically(path, lambda aside: aside.write_bytes(safetensors_content(tensors, _metadata(digest))))

    @classmethod
    def read(cls, path: Path, digest: str) -> "Whitening":
        """Map a file, which must be of the dataset with this digest.

        Raises:
            DatasetError: The file is missing, truncated, of another format, or of another dataset.
        """
        from safetensors import SafetensorError, safe_open

        if not path.is_file():
            raise DatasetError(f"{path} is missing: prepare the dataset again")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                for name, value in _metadata(digest).items():
                    if metadata.get(name) != value:
                        raise DatasetError(
                            f"{path} has {name} {metadata.get(name)}, not {value}: delete it, it is made again"
                        )
                return cls(*(file.get_tensor(name) for name in _TENSORS))
        except (SafetensorError, OSError) as error:
            raise DatasetError(f"{path} is truncated or not a whitening: delete it, it is made again") from error


def _metadata(digest: str) -> dict[str, str]:
    return {"format_version": str(FORMAT_VERSION), "eps": str(EPS), "dataset_digest": digest}


def fit(images: np.ndarray, levels: int) -> Whitening:
    """Return the whitening of uint8 images [n, ch, H, W], in which the value `levels` represents 1.0.

    It is computed in float64 up to the last rounding, on all cores: 2 n d² operations for the covariance and about
    20 d³ for the eigenvectors and the two products. Memory: about 6 matrices of d² float64; see `check_memory`.

    Raises:
        DatasetError: There are fewer than 2 images.
    """
    mean, scatter = covariance(images, levels)
    values, vectors = torch.linalg.eigh(scatter)
    root = (values.clamp_min(0) + EPS).sqrt()
    forward, inverse = ((vectors * scale) @ vectors.T for scale in (1 / root, root))
    return Whitening(mean.float(), forward.float(), inverse.float())


def check_memory(size: int, memory: Limit) -> None:
    """Refuse a whitening that needs more memory than there is.

    Args:
        size: d = ch · H · W of an image.
        memory: What this process may take.

    Raises:
        DatasetError: `fit` would need more.
    """
    needed_bytes = _MATRICES * 8 * size**2
    if needed_bytes > memory.amount:
        most = math.isqrt(memory.amount // (8 * _MATRICES))
        raise DatasetError(
            f"whitening images of {size:,} values needs {needed_bytes / 2**30:,.1f} GiB of memory, and only "
            f"{memory.amount / 2**30:,.1f} GiB may be taken ({memory.by}), enough for {most:,} values: set zca=false "
            "or a smaller image_size"
        )


def covariance(images: np.ndarray, levels: int) -> tuple[Tensor, Tensor]:
    """Return mean, float64 [d], and unbiased covariance, float64 [d, d], of uint8 images [n, ch, H, W] / levels.

    The sums are of whole numbers, so they are exact: the result does not depend on threads or on the machine.

    Raises:
        DatasetError: There are fewer than 2 images.
    """
    count, size = len(images), images[0].size
    if count < 2:
        raise DatasetError(f"whitening needs 2 training images or more, not {count}: add some")
    total = torch.zeros(size, dtype=torch.float64)
    products = torch.zeros(size, size, dtype=torch.float64)
    for first in range(0, count, _EXACT_ROWS):
        block = torch.from_numpy(images[first : first + _EXACT_ROWS].reshape(-1, size).astype(np.float32)) - _ZERO
        total += block.sum(dim=0, dtype=torch.float64)
        products += block.T @ block
    products.addr_(total, total, alpha=-1 / count).div_((count - 1) * levels**2)
    return (total / count + _ZERO) / levels, products
