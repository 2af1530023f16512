"""Keys of images, which decide ties and random choices instead of row numbers.

Row numbers depend on the order in which files were read. A choice by these keys selects the same images in any order;
among exact duplicates, with equal pixels and label, the order is arbitrary.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor

from trainables.data.datasets import ImageDataset
from trainables.data.preparation import StoredSplit
from trainables.seeding import seed_of

__all__ = ["content_keys", "named_keys", "pixel_keys"]


def content_keys(dataset: ImageDataset, split: str) -> Tensor:
    """Return the keys of a split's images, int64 [n] in [0, 2**63): hashes of stored pixels and label.

    Cost: one read of the split's bytes; one image at a time is in memory.
    """
    images, labels = dataset.split(split).images, dataset.split(split).labels
    pairs = zip(images, labels.tolist(), strict=True)
    return torch.tensor([_hash(label.to_bytes(8), image.tobytes()) for image, label in pairs])


def pixel_keys(split: StoredSplit) -> np.ndarray:
    """Return hashes of the stored pixels alone, int64 [n] in [0, 2**63): images of other labels may share one.

    Cost: one read of the split's bytes; one block of images at a time is in memory. Two different images of a million
    share a key with a probability below 1e-7.
    """
    hashes = (_hash(image.tobytes()) for block in split.blocks() for image in block)
    return np.fromiter(hashes, dtype=np.int64, count=len(split.labels))


def named_keys(contents: Tensor, *name: int | str) -> Tensor:
    """Return the keys, int64 [n] in [0, 2**63), for a name such as `(seed, "coresets", "random")`.

    Args:
        contents: `content_keys`, int64 [n].
        name: As for `seeding.generator`; another name orders the images independently.
    """
    salt = seed_of(*name).to_bytes(8)
    return torch.tensor([_hash(salt, key.to_bytes(8)) for key in contents.tolist()])


def _hash(*parts: bytes) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return int.from_bytes(digest.digest(), "big") >> 1
