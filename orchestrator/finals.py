"""The finals: the one place where the test split is read, once.

Synthetic sets, random real images and the full training set each train several fresh networks under the final protocol;
network k starts from the same initial parameters for every set. Labels are hard and in default order for every set,
also for one that was distilled with soft labels: the challenge's evaluator knows no others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import torch
from rich.console import Console
from torch import Tensor

from orchestrator.cluster import Resources
from orchestrator.inputs import Inputs
from orchestrator.live import progress_bar
from orchestrator.mirror import Mirror
from orchestrator.progress import Progress
from orchestrator.statistics import summarize
from trainables.augmentation import Augmentation
from trainables.config import Protocol
from trainables.datasets import load
from trainables.evaluation import Metrics, evaluate
from trainables.initialization import real_images
from trainables.labels import default_order_labels
from trainables.networks import ConvNet
from trainables.seeding import seed_of
from trainables.shared_file import SharedFile, local_path

__all__ = ["name_finals", "run_finals", "train_and_test"]

FULL_DATA, RANDOM_REAL = "full_data", "random_real"


def train_and_test(
    file: Path | SharedFile,
    images: Any,
    network: ConvNet,
    protocol: Protocol,
    augmentation: Augmentation,
    seed: int,
    device: str,
) -> Metrics:
    """Train one network on images (float32 array, default order; None: the training split) and test it."""
    if device == "cpu":
        torch.set_num_threads(1)
    dataset = load(local_path(file), splits=("train", "test"))
    if images is None:
        labels = dataset.labels("train").to(device)
        return evaluate(
            network, dataset, "test", lambda index: dataset.normalized("train", index).to(device), labels,
            protocol=protocol, augmentation=augmentation, seed=seed,
        )  # fmt: skip
    pixels = torch.tensor(images, device=device)
    labels = default_order_labels(len(pixels) // dataset.classes, dataset.classes).to(device)
    return evaluate(
        network, dataset, "test", pixels.__getitem__, labels, protocol=protocol, augmentation=augmentation, seed=seed
    )


def run_finals(
    inputs: Inputs,
    resources: Resources,
    sets: Mapping[int, Tensor],
    progress: Progress,
    mirror: Mirror,
    console: Console,
) -> dict[int | str, list[Metrics]]:
    """Train and test on each set, once, and return what its networks reached: by trial number or baseline's name.

    What was measured before, by a driver that then was stopped, is not measured again.

    Args:
        inputs: The sweep's inputs.
        resources: What one training takes.
        sets: Synthetic sets by trial number, normalised float32 [ipc·C, ch, H, W] in default order.
        progress: Keeps what is measured.
        mirror: Keeps that at the workdir's URI.
        console: Where it is shown.
    """
    settings = inputs.settings
    fixed, networks = settings.fixed, settings.fixed["final_networks"]
    run = ray.remote(train_and_test).options(**resources.actor_options)
    augmentation = Augmentation(families=inputs.augmentation.families, align_corners=False)
    jobs: dict[Any, tuple[str, int]] = {}
    shared: dict[int | str, Any] = {name: ray.put(images.numpy()) for name, images in sets.items()}
    # The longest first, so that they do not end alone.
    names: list[int | str] = [FULL_DATA, RANDOM_REAL, *sets]
    for name in names:
        for number in range(networks):
            if (str(name), number) in progress.finals:
                continue
            images: Any = None
            if name == RANDOM_REAL:
                draw = seed_of(settings.seed, "random real", number)
                images = ray.put(real_images(inputs.dataset, fixed["ipc"], draw).numpy())
            elif name in shared:
                images = shared[name]
            protocol = settings.full_data_protocol if name == FULL_DATA else settings.final_protocol
            seed = seed_of(settings.seed, "finals", number)
            reference = run.remote(inputs.file, images, inputs.network, protocol, augmentation, seed, resources.device)
            jobs[reference] = (str(name), number)
    with progress_bar(console, "Finals, networks", max(1, len(jobs))) as show:
        waiting = list(jobs)
        while waiting:
            ready, waiting = ray.wait(waiting)
            for reference in ready:
                progress.finals[jobs[reference]] = ray.get(reference)
            progress.spend("finals")
            mirror.push(everything=False)
            show(len(jobs) - len(waiting))
    return {name: [progress.finals[str(name), number] for number in range(networks)] for name in names}


def name_finals(
    measured: Mapping[int | str, Sequence[Metrics]], best: int, reference: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return `finals` of result.json: means over networks, of the best and the reference trial and the baselines."""
    places: dict[str, int | str] = {
        "winner": best,
        "paper_setting": reference,
        RANDOM_REAL: RANDOM_REAL,
        FULL_DATA: FULL_DATA,
    }
    return {
        name: {
            metric: summarize([asdict(each)[metric] for each in measured[place]])
            for metric in ("accuracy", "macro_f1", "macro_recall")
        }
        for name, place in places.items()
        if place in measured
    }
