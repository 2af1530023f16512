"""The two sides of the distillation correlation score: a set's losses, as it is, and what it is worth. METHOD §6, DCS.

Nothing is learned. A loss is averaged over draws that bear names of their own, so that sets of one size are measured on
the same experts, networks, real images and augmentations, and differ by themselves alone.

Shape legend: S = ipc·C images of a set, C classes, ch channels, H = W side.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.augmentation import Augmentation
from trainables.config import DistillationConfig, Protocol
from trainables.datasets import ImageDataset, load
from trainables.diagnostics import matching_losses
from trainables.distillation import Distiller
from trainables.evaluation import predict_logits, train_networks
from trainables.initialization import real_images
from trainables.inner_step import InnerStep, use_precision
from trainables.labels import default_order_labels
from trainables.matching import Matcher
from trainables.memory import micro_batch_for, spare_bytes
from trainables.metrics import measure
from trainables.networks import ConvNet
from trainables.seeding import seed_of
from trainables.shared_file import SharedFile, local_path
from trainables.storage import SharedFolder
from trainables.trajectories import TrajectoryStore
from trainables.workbench import OF_REAL_IMAGES

__all__ = ["LOSSES", "MeasureWork", "RealSubset", "SetMeasures", "distillation_loss", "loss_config", "measure_set"]

LOSSES = ("trajectory", *OF_REAL_IMAGES)
"""Methods whose loss can be measured, by their names in `DistillationConfig`."""
START_EPOCHS = 3
"""Start epochs of a trajectory loss at most, evenly spread over the range: each costs N gradients an expert."""
RANDOM_NETWORKS = 8
"""Networks, each with real images and augmentations of its own, that the losses of DM and DC are averaged over."""


@dataclass(frozen=True)
class RealSubset:
    """A set of random real training images, as many of every class, made where it is measured."""

    ipc: int
    """Images per class."""
    seed: int
    """Names the choice."""


class SetMeasures(NamedTuple):
    """What a set was measured to be, in plain values."""

    losses: dict[str, float]
    """By name; not finite where something diverged."""
    test_losses: list[float]
    """Mean cross-entropy on real images of each network that was trained on the set; likewise."""
    accuracies: list[float]
    """Share of the real images that each of them gets right."""


@dataclass(frozen=True, kw_only=True)
class MeasureWork:
    """What all sets of a collection are measured with; plain values that travel to any node."""

    dataset: Path | SharedFile
    """Prepared dataset file."""
    store: Path | SharedFolder
    """Root folder of the expert stores; read for the trajectory loss alone, as `identity`, `experts` and `epochs`."""
    identity: dict[str, Any]
    """What addresses the store."""
    experts: int
    """Experts to match, from number 0 on."""
    epochs: int
    """Horizon: epochs that every expert has."""
    network: ConvNet
    augmentation: Augmentation
    """DSA of the losses; that of the trainings has the same families, and corners not aligned. METHOD §3."""
    settings: Mapping[str, Any]
    """The trial whose N, M, α, range, batches and precision the losses have."""
    losses: tuple[str, ...]
    """Which of `LOSSES`."""
    split: str
    """Whose images test what was trained on a set: test or validation."""
    protocol: Protocol
    """How a network is trained on a set, with hard labels."""
    networks: int
    """Networks trained on each set; the k-th of all sets start alike."""
    seed: int
    """Names the draws of the losses, and the networks."""
    device: str
    """cpu or cuda."""
    device_share: float
    """Share of the device that a set's measurement has."""


def measure_set(work: MeasureWork, source: np.ndarray | RealSubset) -> SetMeasures:
    """Return a set's losses, and what networks that are trained on it reach.

    Args:
        work: What all sets are measured with.
        source: The set in default order, normalised float32 [S, ch, H, W], or which real images it consists of.

    Raises:
        ConfigError: The settings cannot work at the set's size, or a class has too few images.
        ExpertFileError: An expert is missing, short or corrupt.

    Cost: for the trajectory loss `START_EPOCHS` · experts · N gradients of a batch; for each of the others
    `RANDOM_NETWORKS` iterations of its method; and `networks` trainings. Memory: the set, and for the graph of a
    micro-batch; real images are read a batch at a time.
    """
    if work.device == "cpu":
        torch.set_num_threads(1)  # a worker has one core
    device = torch.device(work.device)
    use_precision(work.settings["precision"], device)
    dataset = load(local_path(work.dataset), splits=("train", work.split))
    if isinstance(source, RealSubset):
        images = real_images(dataset, source.ipc, source.seed).to(device)
    else:
        images = torch.tensor(source, device=device)  # a copy: the array may be one that nobody may write to
    losses = {loss: distillation_loss(work, loss, dataset, images) for loss in work.losses}
    return SetMeasures(losses, *_trained_and_tested(work, dataset, images))


def loss_config(settings: Mapping[str, Any], loss: str, ipc: int) -> DistillationConfig:
    """Return the settings of a loss: a trial's, with this size and method and hard labels, whatever its own are.

    The networks of the gradient loss are fresh ones: none is trained on.

    Raises:
        ConfigError: There is no such loss, or the settings cannot work with it.
    """
    own = {
        "method": loss, "ipc": ipc, "label_mode": "hard", "lr_label": 0.0, "gradient": "exact", "compile": "off",
        "outer_loop": 1 if loss == "gradient" else 0, "inner_loop": 0,
    }  # fmt: skip
    return DistillationConfig.from_settings({**settings, **own})


def distillation_loss(work: MeasureWork, loss: str, dataset: ImageDataset, images: Tensor) -> float:
    """Return the loss that a method would begin at, were this set its initial one, averaged over named draws.

    Args:
        work: What all sets are measured with.
        loss: `trajectory`: ‖θ_N − θ*_{t+M}‖² / ‖θ*_t − θ*_{t+M}‖², METHOD §2, step 4, mean over all experts and at
            most `START_EPOCHS` start epochs of the trial's whole range; chunks and augmentations depend on the set's
            size alone. `distribution` and `gradient`: of DM and DC, METHOD §6, mean over `RANDOM_NETWORKS` random
            networks, whose draws are the same whatever the set.
        dataset: Whose training images are matched.
        images: The set in default order, normalised float [S, ch, H, W]; labels are hard, α is the trial's.

    Returns:
        The mean; not finite where one of its terms is not.

    Raises:
        ConfigError: See `loss_config`.
        ExpertFileError: An expert is missing, short or corrupt.
    """
    config = loss_config(work.settings, loss, len(images) // dataset.classes)
    seed = seed_of(work.seed, "dcs", "losses")
    if loss == "trajectory":
        return _trajectory_loss(work, config, images, seed)
    matching = OF_REAL_IMAGES[loss](
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
        matching.iteration = number  # names the draws, the network's among them
        total += matching.loss_and_gradient()[0]
    return total / RANDOM_NETWORKS


def _trajectory_loss(work: MeasureWork, config: DistillationConfig, images: Tensor, seed: int) -> float:
    trajectories = TrajectoryStore(work.store, work.identity, work.network).open(range(work.experts), work.epochs)
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
    """Return how many of a chunk's images to take at a time so that they fit."""
    device = torch.device(work.device)
    return micro_batch_for(work.network, chunk, device=device, budget_bytes=spare_bytes(device, work.device_share))


def _trained_and_tested(work: MeasureWork, dataset: ImageDataset, images: Tensor) -> tuple[list[float], list[float]]:
    """Return mean cross-entropy and accuracy on the split's real images of each network trained on a set."""
    device = images.device
    labels = default_order_labels(len(images) // dataset.classes, dataset.classes).to(device)
    actual = dataset.labels(work.split)
    seeds = [seed_of(work.seed, "dcs", "network", number) for number in range(work.networks)]
    groups = [seeds] if device.type == "cuda" else [[seed] for seed in seeds]  # as evaluate_networks has it
    losses, accuracies = [], []
    for group in groups:
        thetas = train_networks(
            work.network, images.__getitem__, labels, protocol=work.protocol,
            augmentation=replace(work.augmentation, align_corners=False), seeds=group,
        )  # fmt: skip
        for theta in thetas:
            logits = predict_logits(
                work.network, theta, lambda index: dataset.normalized(work.split, index).to(device), len(actual)
            )
            losses.append(float(F.cross_entropy(logits.double(), actual)))
            accuracies.append(measure(logits.argmax(dim=1), actual, dataset.classes).accuracy)
    return losses, accuracies
