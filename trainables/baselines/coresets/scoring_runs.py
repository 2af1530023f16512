"""Scoring runs: a network is trained on the real training split and scores every image after its epochs.

Source: docs/method.md, "Coresets".

A run is recorded once, in its own file: see `tensor_cache`.
Rows are taken in the order of their `image_keys`, so that a run does not depend on the order of the images.
"""

import math
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.baselines.coresets.scores import FIGURES, Dynamics, image_scores
from trainables.config.protocol import Protocol
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset
from trainables.data.image_keys import content_keys
from trainables.data.transfer import moved
from trainables.errors import ConfigError
from trainables.evaluation.training import PREDICTION_BATCH, training_steps
from trainables.networks.network import Network, network_identity
from trainables.storage.tensor_cache import load_or_make

__all__ = ["record", "recorded", "scoring_epochs"]

CPU = torch.device("cpu")
SET_EPOCHS = 300
"""Epochs that the hard-label recipe trains on a small set; docs/method.md, "Compute budget"."""


def scoring_epochs(ipc: int, classes: int, training_images: int, window: int) -> int:
    """Return K, the epochs of a run on all training images that sees as many images as a training on a coreset.

    K = round(300·ipc·C / n), docs/method.md, "Compute budget", but at least `window` + 2: CAD-Prune takes the mean of
    `window` standard deviations, each over K − `window` epochs, which must be at least two.

    Args:
        ipc: Images per class of the coreset.
        classes: C.
        training_images: n.
        window: CAD-Prune's W.
    """
    return max(round(SET_EPOCHS * ipc * classes / training_images), window + 2)


def recorded(
    folder: Path,
    network: Network,
    dataset: ImageDataset,
    *,
    protocol: Protocol,
    augmentation: Augmentation,
    seed: int,
    device: torch.device,
    every_epoch: bool = True,
) -> Dynamics:
    """Return a scoring run from `folder`; record it there first if it does not exist. Arguments as in `record`.

    Raises:
        DatasetError: The file is damaged, or is that of another run.
        ConfigError: The training diverged.
    """
    identity = {
        "dataset": dataset.digest,
        "split": dataset.split("train").digest,
        "network": network_identity(network),
        "protocol": asdict(protocol),
        "augmentation": asdict(augmentation),
        "seed": seed,
        "every_epoch": every_epoch,
    }

    def make() -> dict[str, Tensor]:
        run = record(
            network,
            dataset,
            protocol=protocol,
            augmentation=augmentation,
            seed=seed,
            device=device,
            every_epoch=every_epoch,
        )
        return {name: getattr(run, name) for name in (*FIGURES, "theta")}

    return Dynamics(**load_or_make(folder, "scoring-run", identity, make))


def record(
    network: Network,
    dataset: ImageDataset,
    *,
    protocol: Protocol,
    augmentation: Augmentation,
    seed: int,
    device: torch.device,
    every_epoch: bool = True,
) -> Dynamics:
    """Train a fresh network on the training split with hard labels, and score all its images after its epochs.

    Images are scored as they are stored, without augmentation [R].

    Args:
        network: The network to train.
        dataset: The dataset of the training split; its other splits are not read.
        protocol: Epochs, optimiser and batches, with hard labels.
        augmentation: DSA families of the training.
        seed: Seed of initial parameters, batches and augmentation.
        device: Device of training and scoring.
        every_epoch: Whether every epoch is scored; if not, only the last is, and E of the result is 1.

    Cost: the training, and one forward pass of all n images for each scored epoch. The images are normalised one batch
    at a time; the record takes 25·E·n bytes.

    Raises:
        ConfigError: The training diverged.
    """
    order = content_keys(dataset, "train").argsort(stable=True)
    labels = dataset.labels("train", order).to(device)
    first = 0 if every_epoch else protocol.epochs - 1
    shape = (protocol.epochs - first, len(order))
    table = {name: torch.empty(shape, dtype=torch.bool if name == "correct" else torch.float32) for name in FIGURES}
    theta = torch.empty(network.parameters)
    steps_an_epoch = math.ceil(len(order) / protocol.batch_size)
    steps = training_steps(
        network,
        lambda index: dataset.normalized("train", order[index], device),
        labels,
        protocol=protocol,
        augmentation=augmentation,
        seeds=[seed],
    )
    for number, step in enumerate(steps, start=1):
        theta = step.theta[0]
        if number % steps_an_epoch or step.epoch < first:
            continue
        for rows, classes in zip(order.split(PREDICTION_BATCH), labels.split(PREDICTION_BATCH), strict=True):
            for name, values in moved(_scores(network, theta, dataset, rows, classes), CPU).items():
                table[name][step.epoch - first, rows] = values
        if not table["grand"][step.epoch - first].isfinite().all():
            raise ConfigError(
                f"a scoring run must stay finite, but its network diverged in epoch {step.epoch} at a learning rate of "
                f"{step.learning_rate}: lower it"
            )
    return Dynamics(**table, theta=theta.cpu().clone())


@torch.no_grad()
def _scores(network: Network, theta: Tensor, dataset: ImageDataset, rows: Tensor, labels: Tensor) -> dict[str, Tensor]:
    hidden = network.features(theta, dataset.normalized("train", rows, theta.device))
    last = network.unflatten(theta)
    return image_scores(F.linear(hidden, last["linear.weight"], last["linear.bias"]), hidden, labels)
