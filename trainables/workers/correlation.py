"""The two sides of the distillation correlation score: a set's losses, and the accuracy of networks trained on it.

Source: docs/method.md, "DCS".

The set is not updated. A loss is averaged over draws whose seeds do not depend on the set. All sets of one size are
therefore measured on the same experts, networks, real images and augmentations.

Shape legend: S = ipc·C images of a set, C classes, ch channels, H = W side.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.config.arithmetic import Arithmetic
from trainables.config.distillation import DistillationConfig
from trainables.config.protocol import Protocol
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset, load
from trainables.data.labels import default_order_labels
from trainables.data.real_images import real_images
from trainables.distillation.diagnostics import matching_losses
from trainables.distillation.distribution import DistributionMatching
from trainables.distillation.gradient import GradientMatching
from trainables.distillation.inner_step import InnerStep
from trainables.distillation.matching import Matcher
from trainables.distillation.micro_batches import micro_batch_for, spare_bytes
from trainables.distillation.trajectory import Distiller
from trainables.errors import ConfigError
from trainables.evaluation.metrics import measure
from trainables.evaluation.training import groups_of, networks_at_once, predict_logits, train_networks
from trainables.experts.store import TrajectoryStore
from trainables.networks.network import Network
from trainables.seeding import seed_of
from trainables.storage.shared_file import SharedFile, local_path
from trainables.workers.process import prepare_process

__all__ = ["LOSSES", "MeasureWork", "RealSubset", "SetMeasures", "distillation_loss", "loss_config", "measure_set"]

_OF_REAL_IMAGES: dict[str, type[DistributionMatching] | type[GradientMatching]] = {
    "distribution": DistributionMatching,
    "gradient": GradientMatching,
}
LOSSES = ("trajectory", *_OF_REAL_IMAGES)
"""Methods whose loss can be measured, by their names in `DistillationConfig`."""
START_EPOCHS = 3
"""Maximum number of start epochs of a trajectory loss, evenly spaced in the range; each costs N gradients an expert."""
RANDOM_NETWORKS = 8
"""Number of networks over which losses of DM and DC are averaged; each has its own real images and augmentations."""


@dataclass(frozen=True)
class RealSubset:
    """A set of random real training images, the same number of every class; the worker that measures it makes it."""

    ipc: int
    """Images per class."""
    seed: int
    """Seed of the choice."""


class SetMeasures(NamedTuple):
    """The measurements of a set, in plain values."""

    losses: dict[str, float]
    """Losses by name; not finite if something diverged."""
    test_losses: list[float]
    """Mean cross-entropy on real images, by network trained on the set; not finite if the training diverged."""
    accuracies: list[float]
    """Accuracy on real images, in [0, 1], by network trained on the set."""


@dataclass(frozen=True, kw_only=True)
class MeasureWork:
    """Settings that the measurements of all sets of a collection share; plain values that can be sent to any node."""

    dataset: Path | SharedFile
    """Prepared dataset file."""
    store: TrajectoryStore
    """The experts; only the trajectory loss reads them. All losses have their network and augmentation.

    The trainings have the same augmentation families, without aligned corners: docs/method.md, "Challenge protocol".
    """
    experts: int
    """Experts to match, from number 0 on."""
    epochs: int
    """Horizon: number of epochs of every expert."""
    settings: Mapping[str, Any]
    """Settings of the trial from which the losses take N, M, α, range, batches and precision."""
    losses: tuple[str, ...]
    """The names of `LOSSES` to measure."""
    split: str
    """Split whose images test the trained networks: test or validation."""
    protocol: Protocol
    """Settings of a training on a set, with hard labels."""
    networks: int
    """Number of networks trained on each set; the k-th network has the same initial parameters for all sets."""
    seed: int
    """Seed of the draws of the losses, and of the networks."""
    device: str
    """cpu or cuda."""
    kept: Path
    """Folder on the node for how many networks it trains at once."""
    device_share: float
    """Share of the device that the measurement of one set may use, in (0, 1]."""

    @property
    def arithmetic(self) -> Arithmetic:
        """The arithmetic of losses and trainings."""
        return self.store.identity.arithmetic

    @property
    def network(self) -> Network:
        """The network of experts, losses and trainings."""
        return self.store.network

    @property
    def augmentation(self) -> Augmentation:
        """DSA of the losses."""
        return self.store.identity.augmentation


def measure_set(work: MeasureWork, source: np.ndarray | RealSubset) -> SetMeasures:
    """Return a set's losses, and the test losses and accuracies of networks trained on it.

    Args:
        work: Settings of the measurement.
        source: The set in default order, normalised float32 [S, ch, H, W], or a description of its real images.

    Raises:
        ConfigError: The settings cannot work at the set's size, or a class has too few images.
        ExpertFileError: An expert is missing, short or corrupt.

    Cost: `START_EPOCHS` · experts · N gradients of a batch for the trajectory loss, `RANDOM_NETWORKS` iterations of its
    method for each other loss, and `networks` trainings. Memory for the set and the graph of a micro-batch; real images
    are read one batch at a time.
    """
    prepare_process(work.device, work.arithmetic)
    device = torch.device(work.device)
    dataset = load(local_path(work.dataset), splits=("train", work.split))
    if isinstance(source, RealSubset):
        images = real_images(dataset, source.ipc, source.seed, device)
    else:
        images = torch.tensor(source, device=device)  # a copy: the array may be read-only
    losses = {loss: distillation_loss(work, loss, dataset, images) for loss in work.losses}
    return SetMeasures(losses, *_trained_and_tested(work, dataset, images))


def loss_config(settings: Mapping[str, Any], loss: str, ipc: int) -> DistillationConfig:
    """Return the settings of a loss: those of a trial, with this size and method, and with hard labels.

    The gradient loss uses freshly initialised networks; they are not trained on the set.

    Raises:
        ConfigError: There is no such loss, or the settings cannot work with it.
    """
    if loss not in LOSSES:
        raise ConfigError(f"a loss is one of {', '.join(LOSSES)}, not {loss}")
    own = {
        "method": loss, "ipc": ipc, "label_mode": "hard", "lr_label": 0.0, "gradient": "exact", "compile": "auto",
        "outer_loop": 1 if loss == "gradient" else 0, "inner_loop": 0,
    }  # fmt: skip
    return DistillationConfig.from_settings({**settings, **own})


def distillation_loss(work: MeasureWork, loss: str, dataset: ImageDataset, images: Tensor) -> float:
    """Return the loss of a method's first iteration if it started from this set, averaged over draws.

    Args:
        work: Settings of the measurement.
        loss: `trajectory`: ‖θ_N − θ*_{t+M}‖² / ‖θ*_t − θ*_{t+M}‖², mean over all experts and at most `START_EPOCHS`
            start epochs of the trial's whole range; chunks and augmentations depend only on the set's size.
            `distribution` and `gradient`: those of DM and DC, mean over `RANDOM_NETWORKS` random networks, whose draws
            are the same for every set. Source: docs/method.md, "Distillation", "DM" and "DC".
        dataset: Its training images are matched.
        images: The set in default order, normalised float [S, ch, H, W]; labels are hard, α is the trial's.

    Returns:
        The mean loss; not finite if one of its terms is not finite.

    Raises:
        ConfigError: See `loss_config`.
        ExpertFileError: An expert is missing, short or corrupt.
    """
    config = loss_config(work.settings, loss, len(images) // dataset.classes)
    seed = seed_of(work.seed, "dcs", "losses")
    if loss == "trajectory":
        return _trajectory_loss(work, config, images, seed)
    matching = _OF_REAL_IMAGES[loss](
        config,
        network=work.network,
        augmentation=work.augmentation,
        dataset=dataset,
        images=images,
        seed=seed,
        micro_batch=_micro_batch(work, config.batch_real),
    )
    total = 0.0
    for number in range(RANDOM_NETWORKS):
        matching.iteration = number  # names the generators of the draws, including that of the network
        total += matching.loss_and_gradient()[0]
    return total / RANDOM_NETWORKS


def _trajectory_loss(work: MeasureWork, config: DistillationConfig, images: Tensor, seed: int) -> float:
    trajectories = work.store.open(range(work.experts), work.epochs)
    step = InnerStep(
        work.network,
        precision=config.precision,
        micro_batch=_micro_batch(work, min(config.batch_syn, len(images))),
    )
    distiller = Distiller(
        config,
        matcher=Matcher(step, work.augmentation),
        trajectories=trajectories,
        images=images,
        labels=default_order_labels(config.ipc, work.network.classes),
        seed=seed,
    )
    whole = config.matching_range.starts(config.iterations - 1)
    starts = sorted(set(np.linspace(whole[0], whole[-1], START_EPOCHS).round().astype(int).tolist()))
    return float(matching_losses(distiller, trajectories, starts, seed).mean())


def _micro_batch(work: MeasureWork, chunk: int) -> int:
    """Return the micro-batch size at which a chunk fits into the device's share of memory."""
    device = torch.device(work.device)
    return micro_batch_for(
        work.network,
        chunk,
        device=device,
        budget_bytes=spare_bytes(device, work.device_share),
        precision=work.arithmetic.precision,
    )


def _trained_and_tested(work: MeasureWork, dataset: ImageDataset, images: Tensor) -> tuple[list[float], list[float]]:
    """Return mean cross-entropy and accuracy on the split's real images of each network trained on a set."""
    device = images.device
    labels = default_order_labels(len(images) // dataset.classes, dataset.classes).to(device)
    actual = dataset.labels(work.split)
    seeds = [seed_of(work.seed, "dcs", "network", number) for number in range(work.networks)]
    training: dict[str, Any] = {"protocol": work.protocol, "augmentation": work.augmentation.for_evaluation()}
    at_once = networks_at_once(
        work.network,
        images,
        labels,
        **training,
        networks=work.networks,
        folder=work.kept,
        deterministic=work.arithmetic.deterministic,
    )
    losses, accuracies = [], []
    for group in groups_of(seeds, at_once):
        thetas = train_networks(work.network, images, labels, **training, seeds=group)
        for theta in thetas:
            logits = predict_logits(
                work.network, theta, lambda index: dataset.normalized(work.split, index, device), len(actual)
            )
            losses.append(float(F.cross_entropy(logits.double(), actual)))
            accuracies.append(measure(logits.argmax(dim=1), actual, dataset.classes).accuracy)
    return losses, accuracies
