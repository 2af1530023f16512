"""What all trials of a process share, opened once, and how a trial's distillation is made of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from trainables.augmentation import Augmentation
from trainables.config import DistillationConfig, Protocol
from trainables.datasets import load
from trainables.distillation import Distiller
from trainables.distribution_matching import DistributionMatching
from trainables.gradient_matching import GradientMatching
from trainables.initialization import initial_images
from trainables.inner_step import InnerStep, use_precision
from trainables.labels import default_order_labels, soft_labels
from trainables.matching import Matcher
from trainables.memory import micro_batch_for, spare_bytes
from trainables.networks import ConvNet
from trainables.seeding import repeat_seed, seed_of
from trainables.shared_file import SharedFile, local_path
from trainables.storage import SharedFolder
from trainables.trajectories import TrajectoryStore
from trainables.validation import validation_accuracy

__all__ = ["OF_REAL_IMAGES", "Distillation", "TrialWork", "Workbench"]

Distillation = Distiller | DistributionMatching | GradientMatching
"""A distillation by any method: it steps, tells its state and takes one up."""

OF_REAL_IMAGES: dict[str, type[DistributionMatching] | type[GradientMatching]] = {
    "distribution": DistributionMatching,
    "gradient": GradientMatching,
}
"""The methods that match real images and no experts, by their names in `DistillationConfig`."""


@dataclass(frozen=True, kw_only=True)
class TrialWork:
    """What all trials of a sweep share; plain values that travel to any node."""

    dataset: Path | SharedFile
    """Prepared dataset file."""
    store: Path | SharedFolder
    """Root folder of the expert stores."""
    identity: dict[str, Any]
    """What addresses the store."""
    network: ConvNet
    augmentation: Augmentation
    checkpoints: str
    """Folder or URI of the trials' checkpoints, which every node reaches."""
    experts: int
    """Experts to match, from number 0 on."""
    epochs: int
    """Horizon: epochs that every expert has."""
    protocol: Protocol
    """How the search's validation trains a network."""
    validation_networks: int
    """Networks a validation averages over."""
    validation_every_iterations: int
    seed: int
    """Seed of the distillation: the same for all trials, so that they differ by their settings alone; a study's repeats
    after the first have one each that follows from it."""
    device: str
    """cpu or cuda."""
    compiled: bool
    """Whether the inner steps are compiled, where the setting's gradient can be."""
    memory_budget_bytes: float | None
    """What the graph of a trial's inner step may take; None: its share of what the device has free."""
    device_share: float
    """Share of the device that a trial has."""


class Workbench:
    """Dataset, expert maps, initial images and compiled steps, for one trial after another."""

    def __init__(self, work: TrialWork) -> None:
        """Open what there is to share."""
        self.work = work
        self._device = torch.device(work.device)
        self._dataset = load(local_path(work.dataset))
        store = TrajectoryStore(work.store, work.identity, work.network)
        self._trajectories = store.open(range(work.experts), work.epochs)
        self._initial_images = lru_cache(maxsize=3)(self._draw_initial_images)  # one a kind of initialisation
        self._inner_step = lru_cache(maxsize=8)(self._make_inner_step)  # what is compiled serves later trials too
        # The evaluator's affine transforms do not align corners, the distillation's do. METHOD §3.
        self._evaluation_augmentation = Augmentation(families=work.augmentation.families, align_corners=False)

    def distiller(self, config: Mapping[str, Any]) -> Distillation:
        """Return a trial's distillation, by the method that it asks for, before its first iteration.

        Args:
            config: The trial's settings: a `DistillationConfig`'s, and of a study's trial its `repeat`.

        Raises:
            ConfigError: The settings cannot work.
        """
        if config["method"] == "trajectory":
            return self.trajectory_matching(config)
        settings, seed, images = self._start(config)
        return OF_REAL_IMAGES[settings.method](
            settings,
            network=self.work.network,
            augmentation=self.work.augmentation,
            dataset=self._dataset,
            images=images.to(self._device),
            seed=seed,
            micro_batch=self._micro_batch(settings.batch_real),
        )

    def trajectory_matching(self, config: Mapping[str, Any]) -> Distiller:
        """Return the trajectory matching of a trial's settings and initial images, whatever method they ask for."""
        settings, seed, images = self._start(config)
        whole = settings.gradient == "unrolled"  # that one is for comparison, as the reference codes do it
        return Distiller(
            settings,
            matcher=self.matcher(settings, None if whole else self._micro_batch(min(settings.batch_syn, len(images)))),
            trajectories=self._trajectories,
            images=images.to(self._device),
            labels=self._initial_labels(settings, images),
            seed=seed,
        )

    def limit(self, distiller: Distillation, micro_batch: int | None) -> None:
        """Let a distillation take so many images at a time; None: whole chunks."""
        if isinstance(distiller, Distiller):
            distiller.matcher = self.matcher(distiller.config, micro_batch)
        else:
            distiller.micro_batch = micro_batch

    def matcher(self, settings: DistillationConfig, micro_batch: int | None) -> Matcher:
        """Return what computes the gradients, with so many images at a time; None: whole chunks."""
        compiled = self.work.compiled and settings.gradient != "unrolled"
        step = self._inner_step(settings.precision, compiled, micro_batch)
        return Matcher(step, self.work.augmentation, method=settings.gradient)

    def validate(self, images: torch.Tensor) -> float:
        """Return the mean accuracy on the validation split of fresh networks trained on a synthetic set.

        On its images with the labels that the challenge gives them, whatever labels they were learned with.

        Args:
            images: Normalised float [ipc·C, ch, H, W], in default order, on the trials' device.
        """
        work = self.work
        return validation_accuracy(
            work.network,
            self._dataset,
            images,
            protocol=work.protocol,
            augmentation=self._evaluation_augmentation,
            seeds=[seed_of(work.seed, "validation", number) for number in range(work.validation_networks)],
        )

    def _start(self, config: Mapping[str, Any]) -> tuple[DistillationConfig, int, torch.Tensor]:
        """Return what a distillation begins with, checked: its settings, its seed and its images on the CPU."""
        settings = DistillationConfig.from_settings(config)
        use_precision(settings.precision, self._device)
        seed = repeat_seed(self.work.seed, config.get("repeat", 0))  # a search's trials have no repeat
        return settings, seed, self._initial_images(settings.initialization, settings.ipc, seed)

    def _micro_batch(self, chunk: int) -> int:
        """Return how many of a chunk's images to take at a time so that they fit."""
        work = self.work
        budget = work.memory_budget_bytes or spare_bytes(self._device, work.device_share)
        return micro_batch_for(work.network, chunk, device=self._device, budget_bytes=budget)

    def _make_inner_step(self, precision: str, compiled: bool, micro_batch: int | None) -> InnerStep:
        return InnerStep(self.work.network, precision=precision, compiled=compiled, micro_batch=micro_batch)

    def _draw_initial_images(self, initialization: str, ipc: int, seed: int) -> torch.Tensor:
        return initial_images(
            initialization,
            self._dataset,
            ipc,
            seed,
            network=self.work.network,
            trajectories=self._trajectories,
            epoch=self.work.epochs,
            device=self._device,
        )

    def _initial_labels(self, settings: DistillationConfig, images: torch.Tensor) -> torch.Tensor:
        if settings.label_mode == "hard":
            return default_order_labels(settings.ipc, self._dataset.classes)
        return soft_labels(
            settings.initialization,
            images,
            network=self.work.network,
            trajectories=self._trajectories,
            epoch=self.work.epochs,
            device=self._device,
        )
