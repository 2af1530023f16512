"""The finals: the one place where the test split is read, once.

Synthetic sets, random real images and the full training set each train several fresh networks under the final protocol;
network k starts from the same initial parameters for every set. Labels are hard and in default order for every set,
also for one that was distilled with soft labels: the challenge's evaluator knows no others.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
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
from trainables.evaluation import TESTED, Metrics
from trainables.files import write_atomically
from trainables.final import train_and_test
from trainables.initialization import real_images
from trainables.seeding import seed_of

__all__ = ["BASELINES", "RANDOM_REAL", "name_finals", "run_finals", "write_finals"]

BASELINES = FULL_DATA, RANDOM_REAL = "full_data", "random_real"


def run_finals(
    inputs: Inputs,
    resources: Resources,
    sets: Mapping[str, Tensor],
    progress: Progress,
    mirror: Mirror,
    console: Console,
    *,
    kept: str,
    keep: Callable[[Tensor], None],
) -> dict[str, list[Metrics]]:
    """Train and test on each set, once, and return what its networks reached: by trial's or baseline's name.

    What was measured before, by a driver that then was stopped, is not measured again.

    Args:
        inputs: The sweep's inputs.
        resources: What one training takes.
        sets: Synthetic sets by trial's name, normalised float32 [ipc·C, ch, H, W] in default order.
        progress: Keeps what is measured.
        mirror: Keeps that at the workdir's URI.
        console: Where it is shown.
        kept: The set whose first network is kept.
        keep: Is given its parameters, float32 [P], before it counts as measured.
    """
    settings = inputs.settings
    fixed, networks = settings.fixed, settings.fixed["final_networks"]
    run = ray.remote(train_and_test).options(**resources.actor_options)
    augmentation = Augmentation(families=inputs.augmentation.families, align_corners=False)
    jobs: dict[Any, tuple[str, int]] = {}
    shared = {name: ray.put(images.numpy()) for name, images in sets.items()}
    names = [FULL_DATA, RANDOM_REAL, *sets]  # the longest first, so that they do not end alone
    for name in names:
        for number in range(networks):
            if (name, number) in progress.finals:
                continue
            images: Any = shared.get(name)
            if name == RANDOM_REAL:
                draw = seed_of(settings.seed, "random real", number)
                images = ray.put(real_images(inputs.dataset, fixed["ipc"], draw).numpy())
            protocol = settings.full_data_protocol if name == FULL_DATA else settings.final_protocol
            seed = seed_of(settings.seed, "finals", number)
            reference = run.remote(inputs.file, images, inputs.network, protocol, augmentation, seed, resources.device)
            jobs[reference] = (name, number)
    with progress_bar(console, "Finals, networks", max(1, len(jobs))) as show:
        waiting = list(jobs)
        while waiting:
            ready, waiting = ray.wait(waiting)
            for reference in ready:
                job = jobs[reference]
                metrics, theta = ray.get(reference)
                if job == (kept, 0):
                    keep(torch.tensor(theta))
                progress.finals[job] = metrics
            progress.spend("finals")
            mirror.push(everything=False)
            show(len(jobs) - len(waiting))
    return {name: [progress.finals[name, number] for number in range(networks)] for name in names}


def name_finals(
    measured: Mapping[str, Sequence[Metrics]], best: str, reference: str
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return `finals` of result.json: means over networks, of the best and the reference trial and the baselines."""
    places = {"winner": best, "paper_setting": reference, RANDOM_REAL: RANDOM_REAL, FULL_DATA: FULL_DATA}
    return {
        name: {metric: summarize([getattr(each, metric) for each in measured[place]]) for metric in TESTED}
        for name, place in places.items()
        if place in measured
    }


def write_finals(path: Path, measured: Mapping[str, Sequence[Metrics]], class_names: Sequence[str]) -> None:
    """Write a row a set and network: what it reached, and its confusion, int64 [C·C], actual class by predicted.

    The classes' names are JSON in the file's metadata.
    """
    rows = [
        {
            "set": name,
            "network": number,
            **{metric: getattr(each, metric) for metric in TESTED},
            "confusion": [count for row in each.confusion for count in row],
        }
        for name, networks in measured.items()
        for number, each in enumerate(networks)
    ]
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"class_names": json.dumps(list(class_names))})
    write_atomically(path, lambda aside: pq.write_table(table, aside))
