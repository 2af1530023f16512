"""The images that a synthetic set starts from: real ones, or noise.

Source: docs/method.md, "Initial images and soft labels".
"""

import torch
from torch import Tensor

from trainables.data.datasets import ImageDataset
from trainables.data.real_images import class_orders, real_images
from trainables.errors import ConfigError
from trainables.experts.store import Trajectories
from trainables.networks.network import Network
from trainables.seeding import generator

__all__ = ["initial_images"]


def initial_images(
    mode: str,
    dataset: ImageDataset,
    ipc: int,
    seed: int,
    *,
    network: Network,
    trajectories: Trajectories,
    epoch: int,
    device: torch.device,
) -> Tensor:
    """Return the images a distillation starts from, normalised float32 [ipc·C, ch, H, W] on the CPU, in default order.

    Real images are normalised on `device`.

    Args:
        mode: `correct`: real images that experts classify correctly after `epoch` epochs; `real`: any real images;
            `noise`: no images, but standard normal pixels, as MTT's pix_init=noise.
        dataset: Real images are chosen from its training split.
        ipc: Images per class.
        seed: Seed of the choice.
        network: The experts' network.
        trajectories: The experts.
        epoch: Epoch of the snapshot that classifies: the horizon, where DATM takes the last of 100 epochs.
        device: Device of the normalisation and of the experts' predictions.

    Raises:
        ConfigError: There is no such mode, or a class has too few images.
    """
    match mode:
        case "correct":
            return _correct_images(dataset, ipc, seed, network, trajectories, epoch, device)
        case "real":
            return real_images(dataset, ipc, seed, device).cpu()
        case "noise":
            shape = (ipc * dataset.classes, dataset.channels, dataset.image_size, dataset.image_size)
            return torch.randn(shape, generator=generator(seed, "initialization", "noise"))
        case _:
            raise ConfigError(f"initialization is one of correct, real, noise, not {mode}")


def _correct_images(
    dataset: ImageDataset,
    ipc: int,
    seed: int,
    network: Network,
    trajectories: Trajectories,
    epoch: int,
    device: torch.device,
) -> Tensor:
    """Return real training images that trained experts classify correctly, normalised float32 [ipc·C, ch, H, W].

    The images of a class are visited in random order. The first `ipc` that expert 0 classifies correctly after `epoch`
    epochs are chosen. If there are fewer, the next experts fill up. If no expert classifies enough images correctly,
    the first of the remaining images fill up.
    """
    chosen = []
    experts = [trajectories.snapshot(expert, epoch).to(device) for expert in range(len(trajectories))]
    for label, order in enumerate(class_orders(dataset, ipc, seed)):
        picked: list[int] = []
        for theta in experts:
            # In pieces, because the first few images are enough for a good expert.
            for piece in order.split(max(16, 2 * ipc)):
                with torch.no_grad():
                    logits = network.logits(theta, dataset.normalized("train", piece, device))
                correct = piece[(logits.argmax(dim=1) == label).cpu()].tolist()
                picked += [image for image in correct if image not in picked]
                if len(picked) >= ipc:
                    break
            if len(picked) >= ipc:
                break
        picked += [image for image in order.tolist() if image not in picked][: max(0, ipc - len(picked))]
        chosen += picked[:ipc]
    return dataset.normalized("train", torch.tensor(chosen), device).cpu()
