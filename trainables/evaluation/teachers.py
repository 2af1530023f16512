"""Teachers for the soft label regimes: networks trained on the real training split, or experts' snapshots.

Source: docs/method.md, "Label regimes".

    <folder>/<address>.safetensors     the parameters of a trained teacher: float32 [P], with their SHA-256

The address is a hash of everything that determines the parameters, except for the machine. The versions of torch and
the device change the last bits; the file has them as information only.
"""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from trainables.config.protocol import Protocol
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset
from trainables.errors import ConfigError
from trainables.evaluation.regimes import Teacher
from trainables.evaluation.training import train_network
from trainables.experts.store import Trajectories
from trainables.networks.network import Network, network_identity
from trainables.seeding import seed_of
from trainables.storage.tensor_cache import load_or_make

__all__ = ["teacher_from_experts", "trained_teacher"]


def teacher_from_experts(
    trajectories: Trajectories,
    network: Network,
    epoch: int,
    expert: int = 0,
    *,
    device: torch.device | str = "cpu",
) -> Teacher:
    """Return an expert's snapshot after `epoch` epochs as a teacher on a device; an early epoch makes a weak teacher.

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
            f"a teacher's epoch must be one that the expert has, not {epoch}; train longer experts or lower the epoch"
        ) from error
    if len(theta) != network.parameters:
        raise ConfigError(
            f"a teacher's network has as many parameters as the experts, {len(theta)}, not {network.parameters}; "
            "give the experts' network"
        )
    return Teacher(network, theta.to(device))


def trained_teacher(
    folder: Path,
    network: Network,
    dataset: ImageDataset,
    protocol: Protocol,
    augmentation: Augmentation,
    seed: int,
    device: torch.device,
) -> Tensor:
    """Return the parameters of a teacher trained on a dataset's training split, float32 [P] on a device.

    They are read from the folder if they are stored there. Two processes may train the same teacher at once; the last
    file written replaces the other.

    Args:
        folder: Folder of the stored teachers; created if it does not exist.
        network: Network of the teacher.
        dataset: Its training split must be loaded if the teacher is not stored yet.
        protocol: Settings of the training, with hard labels.
        augmentation: DSA families of the training.
        seed: Seed of initial parameters, batches and augmentation, which differ from those of an evaluation.
        device: Device of the training.

    Raises:
        ConfigError: The protocol does not train with hard labels.
        DatasetError: The stored file is damaged, or is another teacher's; or the training split is not loaded.

    Cost: if it must be trained, protocol.epochs passes through the training split, one batch as float at a time.
    """
    identity = {
        "dataset": dataset.digest,
        "network": network_identity(network),
        "protocol": asdict(protocol),
        "augmentation": asdict(augmentation),
        "seed": seed,
    }

    def make() -> dict[str, Tensor]:
        theta = train_network(
            network,
            lambda index: dataset.normalized("train", index, device),
            dataset.labels("train").to(device),
            protocol=protocol,
            augmentation=augmentation,
            seed=seed_of(seed, "teacher"),
        )
        return {"theta": theta}

    return load_or_make(folder, "teacher", identity, make)["theta"].to(device)
