"""The numerics on one small problem, on any device: what the rehearsals of CUDA compute there and on the CPU.

A function named `of_…` returns tensors of the device that it was given, in a list. Images are 8×8 with 3 channels, of 4
classes; networks have 4 or 8 channels.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.support.pretended_cuda import pretended_cuda, real
from tests.support.settings import distillation_config, expert_recipe
from trainables.config.protocol import Protocol
from trainables.data.augmentation import FAMILIES, Augmentation
from trainables.data.datasets import ImageDataset, Split
from trainables.data.whitening import fit
from trainables.distillation.distribution import DistributionMatching
from trainables.distillation.gradient import GradientMatching
from trainables.distillation.inner_step import InnerStep
from trainables.distillation.learned_images import LearnedImages
from trainables.distillation.matching import Matcher, draw_chunks
from trainables.distillation.trajectory import Distiller
from trainables.evaluation.regimes import Teacher, targets
from trainables.evaluation.training import evaluate_networks, train_networks
from trainables.experts.store import Trajectories
from trainables.experts.training import ExpertTrainer
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
ALL = tuple(FAMILIES)
NETWORK = ConvNet(channels=3, image_size=8, classes=4, depth=2, width=8)
IPC, SIDE, CLASSES = 3, 8, 4
_DRAWS = generator("small numerics")
IMAGES = torch.randn(IPC * CLASSES, 3, SIDE, SIDE, generator=_DRAWS)
LABELS = {"hard": torch.arange(CLASSES).repeat_interleave(IPC), "soft": torch.randn(12, CLASSES, generator=_DRAWS)}
SNAPSHOTS = [[NETWORK.initial(generator("expert", expert, epoch)) for epoch in range(3)] for expert in range(2)]
"""By expert and epoch."""


def _split(images: int, name: str) -> Split:
    pixels = torch.randint(256, (images, 3, SIDE, SIDE), generator=generator("small numerics", name)).numpy()
    return Split(pixels.astype(np.uint8), np.arange(images, dtype=np.int64) % CLASSES, name)


DATASET = ImageDataset(
    name="random", class_names=tuple("abcd"), channels=3, image_size=SIDE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25),
    levels=255, augmentation=ALL, digest="random", validation_share=0.1, path=Path(),
    splits={name: _split(images, name) for name, images in (("train", 40), ("validation", 24))},
)  # fmt: skip
WHITENED = replace(DATASET, whitening=fit(DATASET.split("train").images, DATASET.levels))


def on_both(compute: Callable[[torch.device], Sequence[Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    """Return what a computation gives on the CPU and on pretended CUDA, all on the CPU."""
    expected = [tensor.detach() for tensor in compute(CPU)]
    with pretended_cuda():
        found = [real(tensor.detach()) for tensor in compute(CUDA)]
    return expected, found


def of_gradient(
    device: torch.device, method: str, precision: str, families: tuple[str, ...], labels: str
) -> list[Tensor]:
    """Return the matching loss and its derivatives over 2 inner steps of 6 images, in micro-batches of 4."""
    draws = generator("gradient", method, precision, *families, labels)
    step = InnerStep(NETWORK, precision=precision, micro_batch=None if method == "unrolled" else 4)
    matcher = Matcher(step, Augmentation(families=families), method=method)
    images = IMAGES.to(device)
    gradient = matcher(
        start=SNAPSHOTS[0][0].to(device),
        target=SNAPSHOTS[0][1].to(device),
        images=images,
        labels=LABELS[labels].to(device),
        alpha=0.01,
        chunks=draw_chunks(images, 2, 6, matcher.augmentation, draws),
    )
    scalars = torch.tensor([gradient.loss, gradient.alpha])
    return [scalars, gradient.images, *([] if gradient.labels is None else [gradient.labels])]


def distillation(device: torch.device, method: str, **settings: Any) -> LearnedImages:
    """Return a distillation before its first iteration."""
    shared = {
        "ipc": IPC, "N": 3, "M": 1, "T_minus": 0, "T": 1, "T_plus": 2, "interval": 2, "lr_pixel": 5.0,
        "lr_alpha": 1e-3, "alpha_init": 0.05, "batch_syn": 5, "batch_real": 6, "max_matching_loss": 1e9,
        "iterations": 9, "ema_decay": 0.9, "method": method,
    }  # fmt: skip
    config = distillation_config(**{**shared, **settings})
    augmentation = Augmentation(families=ALL)
    if method == "trajectory":
        step = InnerStep(NETWORK, precision=config.precision, micro_batch=None if config.gradient == "unrolled" else 4)
        return Distiller(
            config,
            matcher=Matcher(step, augmentation, method=config.gradient),
            trajectories=Trajectories([[theta.numpy() for theta in expert] for expert in SNAPSHOTS]),
            images=IMAGES.to(device),
            labels=LABELS[config.label_mode],
            seed=0,
        )
    kind = {"distribution": DistributionMatching, "gradient": GradientMatching}[method]
    return kind(
        config, network=NETWORK, augmentation=augmentation, dataset=DATASET, images=IMAGES.to(device), seed=0,
        micro_batch=4,
    )  # fmt: skip


def of_distillation(device: torch.device, method: str, **settings: Any) -> list[Tensor]:
    """Return the state after two iterations and another one of a twin that takes the state up from the CPU."""
    first, twin = distillation(device, method, **settings), distillation(device, method, **settings)
    for _ in range(2):
        first.step()  # type: ignore[attr-defined]
    state = {name: value.cpu() if isinstance(value, Tensor) else value for name, value in first.state_dict().items()}
    twin.load_state_dict(state)
    for each in (first, twin):
        each.step()  # type: ignore[attr-defined]
    ends = [each.state_dict() for each in (first, twin)]
    for name, value in (item for end in ends for item in end.items() if isinstance(item[1], Tensor)):
        assert value.device.type == device.type, f"{name} lies on {value.device}, and the distillation on {device}"
    tensors = [value for end in ends for value in end.values() if isinstance(value, Tensor)]
    numbers = [[float(value) for value in end.values() if not isinstance(value, Tensor)] for end in ends]
    return [*tensors, torch.tensor(numbers), first.result_images]


def trainer(device: torch.device, optimizer: str, *, resident: bool, dataset: ImageDataset = DATASET) -> ExpertTrainer:
    """Return a trainer of experts in batches of 16, 16 and 8."""
    recipe = expert_recipe(expert_optimizer=optimizer, expert_batch_size=16, expert_momentum=0.5, expert_lr=0.05)
    return ExpertTrainer(
        dataset=dataset, network=NETWORK, recipe=recipe, augmentation=Augmentation(families=ALL), seed=0, device=device,
        resident=resident,
    )  # fmt: skip


def of_experts(device: torch.device, optimizer: str, experts: int, *, resident: bool) -> list[Tensor]:
    """Return parameters, momentum and losses of experts after two epochs side by side."""
    training = trainer(device, optimizer, resident=resident)
    states: list[Any] = [training.start(expert) for expert in range(experts)]
    for _ in range(2):
        states = training.train_epoch_together(range(experts), states)
    return [tensor for state in states for tensor in (state.theta, state.velocity, torch.tensor(state.loss))]


def of_regime(device: torch.device, regime: str, networks: int, *, batch: int = 8, epochs: int = 2) -> list[Tensor]:
    """Return networks trained side by side on a set with the labels of a regime."""
    images, teacher = IMAGES.to(device), Teacher(NETWORK, SNAPSHOTS[0][2].to(device))
    protocol = replace(Protocol.regime(regime, epochs=epochs), batch_size=batch)
    thetas = train_networks(
        NETWORK, images, targets(regime, images, LABELS["hard"].to(device), teacher), protocol=protocol,
        augmentation=Augmentation(families=ALL, align_corners=False), seeds=range(networks),
    )  # fmt: skip
    return [*thetas]


def of_evaluation(device: torch.device, dataset: ImageDataset = DATASET) -> list[Tensor]:
    """Return the confusion matrices of two networks by the challenge's protocol, side by side on CUDA alone."""
    metrics = evaluate_networks(
        NETWORK, dataset, "validation", IMAGES.to(device), LABELS["hard"].to(device), protocol=Protocol.challenge(3),
        augmentation=Augmentation(families=ALL, align_corners=False), seeds=range(2),
    )  # fmt: skip
    return [torch.tensor(each.confusion) for each in metrics]
