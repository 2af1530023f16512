"""Everything that determines an expert's trajectory, and the store's address computed from it."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Self

from trainables.config.arithmetic import IEEE, Arithmetic
from trainables.config.experts import ExpertRecipe
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset
from trainables.data.whitening import EPS
from trainables.networks.network import Network, network_identity

__all__ = ["ExpertIdentity"]


@dataclass(frozen=True, kw_only=True)
class ExpertIdentity:
    """Everything that determines the trajectories of one store, except an expert's number in the store."""

    dataset: str
    """Name of the dataset."""
    dataset_digest: str
    """Its content and normalisation: `ImageDataset.digest`."""
    zca_epsilon: float | None
    """What whitening adds to the eigenvalues; None: the images are not whitened. `dataset_digest` depends on it."""
    network: Network
    recipe: ExpertRecipe
    augmentation: Augmentation
    seed: int
    """Seed of all experts."""
    arithmetic: Arithmetic = IEEE
    """The arithmetic of the training."""

    @classmethod
    def of(
        cls,
        dataset: ImageDataset,
        *,
        network: Network,
        recipe: ExpertRecipe,
        augmentation: Augmentation,
        seed: int,
        arithmetic: Arithmetic = IEEE,
    ) -> Self:
        """Return the identity of the experts that are trained on a dataset."""
        return cls(
            dataset=dataset.name,
            dataset_digest=dataset.digest,
            zca_epsilon=EPS if dataset.whitening else None,
            network=network,
            recipe=recipe,
            augmentation=augmentation,
            seed=seed,
            arithmetic=arithmetic,
        )

    def record(self) -> dict[str, Any]:
        """Return the identity as in a manifest; the address is its hash, so its keys and values must never change."""
        label = self.arithmetic.label
        normalisation = {} if self.zca_epsilon is None else {"zca": self.zca_epsilon}
        return {
            "dataset": {"name": self.dataset, "digest": self.dataset_digest, **normalisation},
            "network": network_identity(self.network),
            "recipe": asdict(self.recipe),
            "augmentation": asdict(self.augmentation),
            "seed": self.seed,
            **({"arithmetic": label} if label else {}),
        }

    @cached_property
    def address(self) -> str:
        """The name of the store's folder: the first 20 hexadecimal digits of the record's SHA-256."""
        return hashlib.sha256(json.dumps(self.record(), sort_keys=True).encode()).hexdigest()[:20]
