"""Inputs of coreset methods: training images, scoring runs on them, and a validation; computed when first used."""

import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from trainables.baselines.coresets.scores import Dynamics, features, gradient_norms
from trainables.baselines.coresets.scoring_runs import SET_EPOCHS, recorded, scoring_epochs
from trainables.config.protocol import Protocol
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset
from trainables.data.image_keys import content_keys, named_keys
from trainables.errors import ConfigError
from trainables.networks.network import Network
from trainables.seeding import seed_of

__all__ = ["EARLY_EPOCHS", "EARLY_RUNS", "Coreset", "Evidence"]

EARLY_RUNS = 10
"""Number of runs that EL2N and GraNd average; docs/method.md, "Coresets" has at least 10."""
EARLY_EPOCHS = 10
"""Epochs of each of these runs; docs/coresets/el2n.md."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The training images of a dataset, and scores of them by networks in training.

    Scoring runs train with hard labels under `Protocol.regime("hard")`. They are stored in `folder`, so that methods,
    sizes and later processes share them.
    """

    dataset: ImageDataset
    """Coresets are chosen from its training split."""
    network: Network
    """The network that scoring runs train."""
    augmentation: Augmentation
    """DSA families of the scoring runs' training."""
    device: torch.device
    """Device of the scoring runs."""
    folder: Path
    """Folder of the stored runs; created if it does not exist."""
    epochs: int
    """Epochs of the full training, from which features, forgetting and uncertainty are computed."""
    validate: Callable[[Tensor], float] | None = None
    """Returns the accuracy, on validation and never test images, of networks trained on training rows int64 [ipc·C] in
    default order; only el2n_best uses it."""

    def long_run(self, seed: int) -> Dynamics:
        """Return the full training, the hard-label recipe over `epochs`."""
        return self._run(Protocol.regime("hard", epochs=self.epochs), seed_of(seed, "coresets", "long run"))

    def early_runs(self, seed: int, count: int, epochs: int) -> Iterator[Dynamics]:
        """Yield `count` independent runs of the first `epochs` epochs of the hard-label recipe.

        The recipe is that of 300 epochs, so the learning rate does not drop in an early run. A run scores only after
        its last epoch.

        Raises:
            ConfigError: `count` or `epochs` is below 1.
        """
        if count < 1:
            raise ConfigError(f"runs to average must be at least 1, not {count}")
        recipe = Protocol.regime("hard", epochs=SET_EPOCHS)
        protocol = replace(recipe, epochs=epochs)
        for number in range(count):
            yield self._run(protocol, seed_of(seed, "coresets", "early run", number), every_epoch=False)

    def matched_run(self, seed: int, ipc: int, window: int) -> Dynamics:
        """Return a run that sees as many images as a training on the coreset; arguments as in `scoring_epochs`."""
        epochs = scoring_epochs(ipc, self.dataset.classes, len(self.dataset.split("train")), window)
        return self._run(Protocol.regime("hard", epochs=epochs), seed_of(seed, "coresets", "matched run"))

    def features(self, theta: Tensor, rows: Tensor) -> Tensor:
        """Return penultimate features of training rows int64 [m] under parameters [P], float32 [m, F] on the CPU."""
        return features(self.network, theta.to(self.device), self.dataset, rows).cpu()

    def gradient_norms(self, theta: Tensor) -> Tensor:
        """Return the norm of each training image's full gradient under parameters [P], float32 [n] on the CPU."""
        rows = self._content_keys.argsort(stable=True)
        norms = torch.empty(len(rows))
        norms[rows] = gradient_norms(self.network, theta.to(self.device), self.dataset, rows)
        return norms

    def keys(self, seed: int, method: str) -> Tensor:
        """Return the keys, int64 [n], that decide a method's ties and random choices."""
        return named_keys(self._content_keys, seed, "coresets", method)

    @cached_property
    def rows_by_class(self) -> list[Tensor]:
        """Each class's training rows, int64 [m], in the order of their content."""
        order = self._content_keys.argsort(stable=True)
        labels = self.dataset.labels("train", order)
        return [order[labels == label] for label in range(self.dataset.classes)]

    @cached_property
    def _content_keys(self) -> Tensor:
        return content_keys(self.dataset, "train")

    def _run(self, protocol: Protocol, seed: int, *, every_epoch: bool = True) -> Dynamics:
        return recorded(
            self.folder,
            self.network,
            self.dataset,
            protocol=protocol,
            augmentation=self.augmentation,
            seed=seed,
            device=self.device,
            every_epoch=every_epoch,
        )


class Coreset(typing.Protocol):
    """The implementation of a coreset method: it chooses training images, the same number of every class."""

    def __call__(self, evidence: Evidence, ipc: int, seed: int) -> Tensor:
        """Return the chosen training rows, int64 [ipc·C] on the CPU, in default order.

        The choice does not depend on the order of the training images (`evidence.keys` decides ties).

        Args:
            evidence: Inputs of the method: images, scoring runs, and a validation.
            ipc: Images per class, the same for every class.
            seed: Seed of the scoring runs, ties and random choices.

        Raises:
            ConfigError: A scoring run diverged.
        """
