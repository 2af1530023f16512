"""Scoring runs: a network trained on the real training split, which scores every image after its epochs. METHOD §6.

A run is recorded once, in a file of its own: see `kept`.
Rows come in the order of their `image_keys`, so that the same images in another order have the same run.
"""

import math
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.augmentation import Augmentation
from trainables.config import Protocol
from trainables.datasets import ImageDataset
from trainables.errors import ConfigError
from trainables.evaluation import PREDICTION_BATCH, training_steps
from trainables.image_keys import content_keys
from trainables.kept import kept
from trainables.networks import ConvNet
from trainables.scores import FIGURES, Dynamics, image_scores, training_images

__all__ = ["record", "recorded", "scoring_epochs"]

SET_EPOCHS = 300
"""Epochs that the hard-label recipe trains on a small set; METHOD §6, "Compute budget"."""


def scoring_epochs(ipc: int, classes: int, training_images: int, window: int) -> int:
    """Return K, the epochs of a run on all training images that sees as many images as training on a coreset does.

    K = round(300·ipc·C / n), METHOD §6, "Compute budget"; but at least `window` + 2: CAD-Prune takes the mean of
    `window` standard deviations, each over K − `window` epochs, and one of fewer than two is not defined.

    Args:
        ipc: Images a class of the coreset.
        classes: C.
        training_images: n.
        window: CAD-Prune's W.
    """
    return max(round(SET_EPOCHS * ipc * classes / training_images), window + 2)


def recorded(
    folder: Path,
    network: ConvNet,
    dataset: ImageDataset,
    *,
    protocol: Protocol,
    augmentation: Augmentation,
    seed: int,
    device: torch.device,
    every_epoch: bool = True,
) -> Dynamics:
    """Return a scoring run from `folder`, where it is recorded first if it is not there; arguments as for `record`.

    Raises:
        DatasetError: The file that is there is damaged, or another run's.
        ConfigError: As `record`.
    """
    identity = {
        "dataset": dataset.digest,
        "split": dataset.split("train").digest,
        "network": asdict(network),
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

    return Dynamics(**kept(folder, "scoring-run", identity, make))


def record(
    network: ConvNet,
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
        network: What is trained.
        dataset: Whose training split it is; its other splits are not read.
        protocol: Epochs, optimiser and batches, of hard labels.
        augmentation: DSA families of the training.
        seed: Names initial parameters, batches and augmentation.
        device: Where it is trained and scored.
        every_epoch: Whether each epoch is scored, or the last alone; E of the result is 1 then.

    Cost: the training, and one forward pass of all n images for each epoch scored; the images are normalised a batch
    at a time, and the record takes 25·E·n bytes.

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
        lambda index: training_images(dataset, order[index], device),
        labels,
        protocol=protocol,
        augmentation=augmentation,
        seeds=[seed],
    )
    for number, step in enumerate(steps, start=1):
        theta = step.theta[0]
        if number % steps_an_epoch or step.epoch < first:
            continue
        for index in torch.arange(len(order)).split(PREDICTION_BATCH):
            rows = order[index]
            for name, values in _scores(network, theta, dataset, rows, labels[index]).items():
                table[name][step.epoch - first, rows] = values.cpu()
        if not table["grand"][step.epoch - first].isfinite().all():
            raise ConfigError(
                f"a scoring run must stay finite, but its network diverged in epoch {step.epoch} at a learning rate of "
                f"{step.learning_rate}: lower it"
            )
    return Dynamics(**table, theta=theta.cpu().clone())


@torch.no_grad()
def _scores(network: ConvNet, theta: Tensor, dataset: ImageDataset, rows: Tensor, labels: Tensor) -> dict[str, Tensor]:
    hidden = network.features(theta, training_images(dataset, rows, theta.device))
    last = network.unflatten(theta)
    return image_scores(F.linear(hidden, last["linear.weight"], last["linear.bias"]), hidden, labels)
