"""Teachers for the soft label regimes: networks trained on the real training split, or experts' snapshots. METHOD §6.

    <folder>/<address>.safetensors     the parameters of a trained teacher: float32 [P], with their SHA-256

The address is a hash of everything that shapes the parameters, but for the machine: the versions of torch and the
device, which change the last bits, are in the file as information only.
"""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from trainables.augmentation import Augmentation
from trainables.config import Protocol
from trainables.datasets import ImageDataset
from trainables.errors import ConfigError
from trainables.evaluation import train_network
from trainables.kept import kept
from trainables.networks import ConvNet
from trainables.regimes import Teacher
from trainables.seeding import seed_of
from trainables.trajectories import Trajectories

__all__ = ["teacher_from_experts", "trained_teacher"]


def teacher_from_experts(
    trajectories: Trajectories,
    network: ConvNet,
    epoch: int,
    expert: int = 0,
    *,
    device: torch.device | str = "cpu",
) -> Teacher:
    """Return an expert after so many epochs as a teacher on a device; an early epoch makes a weak one.

    Raises:
        ConfigError: There is no such expert or epoch, or the experts are of another network.
    """
    if not 0 <= expert < len(trajectories):
        raise ConfigError(f"a teacher's expert lies in 0 to {len(trajectories) - 1}, not {expert}; take one of those")
    if epoch < 0:
        raise ConfigError(f"a teacher's epoch must be at least 0, not {epoch}; take one that the expert has")
    try:
        theta = trajectories.snapshot(expert, epoch)
    except IndexError as error:
        raise ConfigError(
            f"a teacher's epoch must be one that the expert has, not {epoch}; train the experts longer or take less"
        ) from error
    if len(theta) != network.parameters:
        raise ConfigError(
            f"a teacher's network has as many parameters as the experts, {len(theta)}, not {network.parameters}; "
            "give the experts' network"
        )
    return Teacher(network, theta.to(device))


def trained_teacher(
    folder: Path,
    network: ConvNet,
    dataset: ImageDataset,
    protocol: Protocol,
    augmentation: Augmentation,
    seed: int,
    device: torch.device,
) -> Tensor:
    """Return the parameters of a teacher trained on a dataset's training split, float32 [P] on a device.

    They are read if they are in the folder. Two processes that want them at once may both train; the last rename stays.

    Args:
        folder: Where teachers are kept; made if need be.
        network: The teacher's.
        dataset: Its training split must be loaded if the teacher is not there yet.
        protocol: How it is trained, with hard labels.
        augmentation: DSA families of the training.
        seed: Names initial parameters, batches and augmentation; they are other ones than those of an evaluation.
        device: Where it is trained.

    Raises:
        ConfigError: The protocol does not train with hard labels.
        DatasetError: The file that is there is damaged, or not this teacher's; or the training split is not loaded.

    Cost: where it is trained, protocol.epochs passes through the training split, of which a batch is float at a time.
    """
    identity = {
        "dataset": dataset.digest,
        "network": asdict(network),
        "protocol": asdict(protocol),
        "augmentation": asdict(augmentation),
        "seed": seed,
    }

    def make() -> dict[str, Tensor]:
        theta = train_network(
            network,
            lambda index: dataset.normalized("train", index).to(device),
            dataset.labels("train").to(device),
            protocol=protocol,
            augmentation=augmentation,
            seed=seed_of(seed, "teacher"),
        )
        return {"theta": theta}

    return kept(folder, "teacher", identity, make)["theta"].to(device)
