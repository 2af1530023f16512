"""Named random generators: every random choice has a name, and the name alone determines its numbers.

There is no global random state. The generator of "expert 3, epoch 7" or "iteration 120" is created from its name
when it is needed, so a resumed, extended or re-ordered run draws the same numbers as an uninterrupted one.
"""

import hashlib
import json

import torch

__all__ = ["generator", "repeat_seed", "seed_of"]


def seed_of(*name: int | str) -> int:
    """Return the seed, in [0, 2**63), of a name such as `(seed, "expert", 3, "epoch", 7)`."""
    text = json.dumps([str(part) for part in name])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def repeat_seed(seed: int, repeat: int) -> int:
    """Return the seed of a study's repeat: repeat 0 uses the sweep's seed, as the trials of a search do."""
    return seed_of(seed, "repeat", repeat) if repeat else seed


def generator(*name: int | str) -> torch.Generator:
    """Return a new CPU generator, seeded from its name.

    Numbers are always drawn on the CPU, so that CPU and GPU runs draw the same ones.
    """
    return torch.Generator().manual_seed(seed_of(*name))
