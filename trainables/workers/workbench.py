"""Data that all trials of a process share, loaded once; it makes the distillation of a trial."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from trainables.config.arithmetic import Arithmetic
from trainables.config.distillation import AUTO, DistillationConfig
from trainables.config.protocol import Protocol
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import load
from trainables.data.labels import default_order_labels
from trainables.distillation.initialization import initial_images
from trainables.distillation.inner_step import InnerStep
from trainables.distillation.kept_graphs import kept_graphs_budget, steps_to_keep
from trainables.distillation.matching import Matcher
from trainables.distillation.methods import Distillation, Method
from trainables.distillation.micro_batches import micro_batch_for, spare_bytes
from trainables.distillation.soft_labels import soft_labels
from trainables.distillation.starting_alpha import AlphaCurve, find_alpha
from trainables.distillation.trajectory import Distiller
from trainables.errors import ConfigError
from trainables.evaluation.validation import validation_accuracy
from trainables.experts.store import TrajectoryStore
from trainables.implementation import Implementation
from trainables.networks.network import Network
from trainables.seeding import repeat_seed, seed_of
from trainables.storage.shared_file import SharedFile, local_path
from trainables.workers.pictures import draw_pictures
from trainables.workers.rung import RungPictures

__all__ = ["TrialWork", "Workbench"]


@dataclass(frozen=True, kw_only=True)
class TrialWork:
    """Settings that all trials of a sweep share; plain values that can be sent to any node."""

    dataset: Path | SharedFile
    """Prepared dataset file."""
    store: TrajectoryStore
    """The experts; distillations have the same network and augmentation."""
    methods: Sequence[Implementation]
    """The methods that trials may name: each is `Distiller` or a `Method`."""
    checkpoints: str
    """Folder or URI of the trials' checkpoints, which every node can read."""
    settings: Mapping[str, Any]
    """The settings that all trials share, by name."""
    experts: int
    """Experts to match, from number 0 on."""
    epochs: int
    """Horizon: number of epochs of every expert."""
    protocol: Protocol
    """Settings of the networks' training in a validation."""
    validation_networks: int
    """Number of networks over which a validation averages."""
    validation_every_iterations: int
    seed: int
    """Seed of the distillation: the same for all trials, so that they differ only by their settings. The repeats of a
    study after the first have their own seeds, derived from it."""
    device: str
    """cpu or cuda."""
    compiled: bool
    """Whether the inner steps are compiled, if the trial's kind of gradient can be compiled."""
    memory_budget_bytes: float | None
    """Memory budget of the graphs of a trial's inner steps; None: the trial's share of the device's memory."""
    device_share: float
    """Share of the device that a trial may use, in (0, 1]."""

    @property
    def settings_digest(self) -> str:
        """SHA-256 of the shared settings; a trial does not resume from a checkpoint with another digest."""
        return hashlib.sha256(json.dumps(dict(self.settings), sort_keys=True).encode()).hexdigest()

    @property
    def arithmetic(self) -> Arithmetic:
        """The arithmetic of distillations and validations."""
        return self.store.identity.arithmetic

    @property
    def network(self) -> Network:
        """The network of experts, distillation and validation."""
        return self.store.network

    @property
    def augmentation(self) -> Augmentation:
        """DSA of experts and distillation."""
        return self.store.identity.augmentation


class _Start(NamedTuple):
    """The initial values of a distillation."""

    config: DistillationConfig
    seed: int
    images: torch.Tensor
    """Float [ipc·C, ch, H, W] on the CPU."""


class Workbench:
    """Dataset, experts, initial images and compiled steps, shared by the trials of a process."""

    def __init__(self, work: TrialWork, *, keeps_graphs: bool = True) -> None:
        """Load the dataset and open the experts.

        Args:
            work: Settings that all trials share.
            keeps_graphs: Whether trajectory matching keeps graphs where memory allows; it needs least without.
        """
        self.work = work
        self._keeps_graphs = keeps_graphs
        self._device = torch.device(work.device)
        self._dataset = load(local_path(work.dataset))
        self._trajectories = work.store.open(range(work.experts), work.epochs)
        self._initial_images = lru_cache(maxsize=3)(self._draw_initial_images)  # one per kind of initialisation
        self._inner_step = lru_cache(maxsize=8)(self._make_inner_step)  # later trials reuse compiled steps
        self._evaluation_augmentation = work.augmentation.for_evaluation()

    def distiller(self, own: Mapping[str, Any]) -> Distillation:
        """Return a trial's distillation by its method, before its first iteration.

        Args:
            own: The trial's own settings; with the shared settings, they make a `DistillationConfig`. Those of a
                study's trial include its `repeat`.

        Raises:
            ConfigError: The settings are invalid.
        """
        start = self._start(own)
        known = {implementation.name: implementation for implementation in self.work.methods}
        if start.config.method not in known:
            raise ConfigError(f"method is one of {', '.join(known)}, not {start.config.method}")
        implementation = known[start.config.method].load()
        if implementation is Distiller:
            return self._match_trajectories(start)
        config, seed, images = start
        method: Method = implementation
        return method(
            config,
            network=self.work.network,
            augmentation=self.work.augmentation,
            dataset=self._dataset,
            images=images.to(self._device),
            seed=seed,
            micro_batch=self._micro_batch(config.batch_real, config.precision),
        )

    def starting_alpha(self, own: Mapping[str, Any]) -> AlphaCurve | None:
        """Return the losses over α by which a trial's α is found; None: its alpha_init is a number.

        A distillation that is made with alpha_init=auto finds it itself, by the same arithmetic.

        Raises:
            ConfigError: The settings are invalid.
        """
        config, seed = self._config(own)
        if config.alpha_init != AUTO:
            return None
        images = self._initial_images(config.initialization, config.ipc, seed)
        return find_alpha(
            config,
            matcher=self._matcher_for(config, len(images)),
            trajectories=self._trajectories,
            images=images.to(self._device),
            labels=self._initial_labels(config, images).to(self._device),
            seed=seed,
        )

    def trajectory_matching(self, own: Mapping[str, Any]) -> Distiller:
        """Return trajectory matching with a trial's settings and initial images, even if it has another method."""
        return self._match_trajectories(self._start(own))

    def limit(self, distiller: Distillation, micro_batch: int | None) -> None:
        """Set the micro-batch size of a distillation, None for whole chunks, and let it keep no graphs."""
        if isinstance(distiller, Distiller):
            distiller.matcher = self.matcher(distiller.config, micro_batch)
        else:
            distiller.micro_batch = micro_batch

    def matcher(self, settings: DistillationConfig, micro_batch: int | None, kept_steps: int = 0) -> Matcher:
        """Return the matcher that computes the gradients with this micro-batch size; None: whole chunks.

        `kept_steps` inner steps keep their graphs, see `Matcher`.
        """
        compiled = self.work.compiled and settings.gradient != "unrolled"
        step = self._inner_step(settings.precision, compiled, micro_batch)
        return Matcher(step, self.work.augmentation, method=settings.gradient, kept_steps=kept_steps)

    def validate(self, images: torch.Tensor) -> float:
        """Return the mean accuracy on the validation split of fresh networks trained on a synthetic set.

        Its images have the challenge's labels, even if they were learned with other labels.

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

    def draw(self, images: torch.Tensor) -> RungPictures:
        """Draw a synthetic set.

        Args:
            images: Normalised float [ipc·C, ch, H, W], in default order.
        """
        return draw_pictures(self._dataset.displayable(images.detach().cpu()), self._dataset.class_names)

    def _start(self, own: Mapping[str, Any]) -> _Start:
        """Merge a trial's own settings with the shared settings, check them, draw the initial images, and find α."""
        curve = self.starting_alpha(own)
        config, seed = self._config(own if curve is None else {**own, "alpha_init": curve.best})
        return _Start(config, seed, self._initial_images(config.initialization, config.ipc, seed))

    def _config(self, own: Mapping[str, Any]) -> tuple[DistillationConfig, int]:
        """Return a trial's checked settings and its seed."""
        config = DistillationConfig.from_settings({**self.work.settings, **own})
        return config, repeat_seed(self.work.seed, own.get("repeat", 0))  # a search's trials have no repeat

    def _match_trajectories(self, start: _Start) -> Distiller:
        config, seed, images = start
        return Distiller(
            config,
            matcher=self._matcher_for(config, len(images)),
            trajectories=self._trajectories,
            images=images.to(self._device),
            labels=self._initial_labels(config, images),
            seed=seed,
        )

    def _matcher_for(self, config: DistillationConfig, images: int) -> Matcher:
        """Return the matcher of a set of so many images, with micro-batches and kept graphs that fit into memory."""
        if config.gradient == "unrolled":  # it keeps whole chunks, as the reference codes do
            return self.matcher(config, None)
        chunk = min(config.batch_syn, images)
        micro_batch = self._micro_batch(chunk, config.precision)
        return self.matcher(config, micro_batch, self._kept_steps(config, chunk, micro_batch))

    def _kept_steps(self, config: DistillationConfig, chunk: int, micro_batch: int) -> int:
        """Return how many inner steps of at most `chunk` images keep their graphs."""
        work = self.work
        if work.compiled or not self._keeps_graphs:  # a compiled step has no graph to keep
            return 0
        budget = work.memory_budget_bytes or kept_graphs_budget(self._device, work.device_share)
        return steps_to_keep(
            work.network, config.N, chunk, micro_batch, config.precision, device=self._device, budget_bytes=budget
        )

    def _micro_batch(self, chunk: int, precision: str) -> int:
        """Return the micro-batch size at which a chunk fits into the memory budget."""
        work = self.work
        budget = work.memory_budget_bytes or spare_bytes(self._device, work.device_share)
        return micro_batch_for(work.network, chunk, device=self._device, budget_bytes=budget, precision=precision)

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
