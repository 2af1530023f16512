"""The images that a synthetic set starts from: real ones, or noise. METHOD §2, DATM's initialisation."""

import torch
from torch import Tensor

from trainables.datasets import ImageDataset
from trainables.errors import ConfigError
from trainables.networks import ConvNet
from trainables.seeding import generator
from trainables.trajectories import Trajectories

__all__ = ["check_ipc", "initial_images", "real_images"]


def initial_images(
    mode: str,
    dataset: ImageDataset,
    ipc: int,
    seed: int,
    *,
    network: ConvNet,
    trajectories: Trajectories,
    epoch: int,
    device: torch.device,
) -> Tensor:
    """Return the images a distillation starts from, normalised float32 [ipc·C, ch, H, W] on the CPU, in default order.

    Args:
        mode: `correct`: real images that experts classify correctly after `epoch` epochs; `real`: any real images;
            `noise`: no images, but standard normal pixels, as MTT's pix_init=noise.
        dataset: Where they come from: its training split.
        ipc: Images per class.
        seed: Names the choice.
        network: The experts' network.
        trajectories: The experts.
        epoch: The snapshot that decides: the horizon, where DATM takes the last of 100 epochs.
        device: Where the experts classify.
    """
    match mode:
        case "correct":
            return _correct_images(dataset, ipc, seed, network, trajectories, epoch, device)
        case "real":
            return real_images(dataset, ipc, seed)
        case "noise":
            shape = (ipc * dataset.classes, dataset.channels, dataset.image_size, dataset.image_size)
            return torch.randn(shape, generator=generator(seed, "initialization", "noise"))
        case _:
            raise ConfigError(f"initialization is one of correct, real, noise, not {mode}")


def check_ipc(dataset: ImageDataset, ipc: int) -> None:
    """Check that every class has so many training images.

    Raises:
        ConfigError: A class has fewer, or `ipc` is below 1.
    """
    if ipc < 1:
        raise ConfigError(f"ipc must be at least 1, not {ipc}")
    counts = dataset.labels("train").bincount(minlength=dataset.classes).tolist()
    for name, count in zip(dataset.class_names, counts, strict=True):
        if count < ipc:
            raise ConfigError(f"class {name!r} has {count} training images, fewer than ipc = {ipc}; lower ipc")


def real_images(dataset: ImageDataset, ipc: int, seed: int) -> Tensor:
    """Return `ipc` real training images a class in default order, normalised float32 [ipc·C, ch, H, W]."""
    chosen = [order[:ipc] for order in _class_orders(dataset, ipc, seed)]
    return dataset.normalized("train", torch.cat(chosen))


def _correct_images(
    dataset: ImageDataset,
    ipc: int,
    seed: int,
    network: ConvNet,
    trajectories: Trajectories,
    epoch: int,
    device: torch.device,
) -> Tensor:
    """Return real training images that trained experts classify correctly, normalised float32 [ipc·C, ch, H, W].

    Per class, in random order, the first `ipc` that expert 0 gets right after `epoch` epochs; where there are fewer,
    the next experts fill up; where none gets enough right, the first of the rest do.
    """
    chosen = []
    experts = [trajectories.snapshot(expert, epoch).to(device) for expert in range(len(trajectories))]
    for label, order in enumerate(_class_orders(dataset, ipc, seed)):
        picked: list[int] = []
        for theta in experts:
            # In pieces: with a good expert the first few images are enough.
            for piece in order.split(max(16, 2 * ipc)):
                with torch.no_grad():
                    logits = network.logits(theta, dataset.normalized("train", piece).to(device))
                correct = piece[(logits.argmax(dim=1) == label).cpu()].tolist()
                picked += [image for image in correct if image not in picked]
                if len(picked) >= ipc:
                    break
            if len(picked) >= ipc:
                break
        picked += [image for image in order.tolist() if image not in picked][: max(0, ipc - len(picked))]
        chosen += picked[:ipc]
    return dataset.normalized("train", torch.tensor(chosen))


def _class_orders(dataset: ImageDataset, ipc: int, seed: int) -> list[Tensor]:
    """Return for each class the indices of its training images, of which it has `ipc`, in random order."""
    check_ipc(dataset, ipc)
    labels = dataset.labels("train")
    draws = generator(seed, "initialization")
    orders = []
    for label in range(dataset.classes):
        members = (labels == label).nonzero().flatten()
        orders.append(members[torch.randperm(len(members), generator=draws)])
    return orders
