"""The evaluation of a stored synthetic set: its checks, and the metrics of fresh networks."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console

from orchestrator.errors import UserError
from orchestrator.results.statistics import summarize
from orchestrator.stages.inputs import prepare_dataset
from orchestrator.stages.local_evaluation import evaluate_here, prepare_device
from orchestrator.terminal.progress_bar import progress_bar
from search_spaces.set_size import size_text
from trainables.config.protocol import Protocol
from trainables.config.reading import Reading
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset, load
from trainables.data.duplicates import duplicates_of
from trainables.data.published import find
from trainables.data.source import Source
from trainables.data.synthetic import SyntheticSet, read_challenge, read_synthetic
from trainables.errors import SyntheticSetError
from trainables.evaluation.metrics import TESTED
from trainables.evaluation.submission import check_normalisation, check_order
from trainables.machine import Machine
from trainables.networks.convnet import ConvNet

__all__ = ["CHALLENGE_DEPTH", "CHALLENGE_WIDTH", "check_origin", "evaluate", "prepare_for_set"]

CHALLENGE_DEPTH, CHALLENGE_WIDTH = 3, 128


def evaluate(
    synthetic: Path,
    *,
    dataset: str,
    data: Path | None,
    datasets: Path,
    protocol: str,
    networks: int,
    depth: int | None,
    width: int | None,
    classes: int | None,
    unchecked: bool,
    seed: int,
    console: Console,
) -> dict[str, Any]:
    """Train fresh networks on a stored synthetic set, print their metrics on the test split, and return the figures.

    Args:
        synthetic: The set's file, .safetensors or the challenge's .pt.
        dataset: Name of the dataset from which the set was distilled.
        data: Folder of the dataset's files; None: a package has the dataset.
        datasets: Folder of prepared datasets.
        protocol: How networks are trained; challenge is the only one.
        networks: Number of fresh networks.
        depth: Depth of the ConvNet; None: the set's, or else the challenge's.
        width: Width of the ConvNet; None: the set's, or else the challenge's.
        classes: Number of first classes that a .pt holds; None: all.
        unchecked: Whether to skip the checks of a .pt's normalisation and class order from its values.
        seed: Seed of the networks.
        console: Shows the progress.

    Returns:
        The content of the file that `--json` names: settings, checks, notes, and mean, std and n of the test metrics.

    Raises:
        UserError: The set is of another dataset, or its values are not those that the protocol expects.
        SyntheticSetError: The file cannot be read as a set.
    """
    stored = read_stored(synthetic, dataset, classes) if synthetic.suffix == ".safetensors" else None
    config: dict[str, Any] = dict(stored.config) if stored else {"classes": classes or 0}
    reading = Reading.from_settings(config)
    source = find(dataset, data, reading)
    facts = source.facts.first(config.get("classes", 0))
    sizes = {"classes": facts.classes, "channels": facts.channels, "image_size": facts.image_size}
    network = ConvNet(
        **sizes,
        depth=depth or config.get("net_depth", CHALLENGE_DEPTH),
        width=width or config.get("net_width", CHALLENGE_WIDTH),
    )
    images = stored.images if stored else read_challenge(synthetic, **sizes)[0]
    path = prepare_for_set(source, config, datasets, console)
    real = load(path, splits=("train", "validation", "test"))
    device = prepare_device()
    checks: dict[str, Any] = {}
    leak = duplicates_of(path).warning
    notes: list[str] = [*source.findings.notes, *([leak] if leak else [])]
    if stored:
        notes += check_origin(synthetic, stored, real)
    elif not unchecked:
        checks, of_values = check_values(images, real, device)
        notes += of_values
    for note in notes:
        click.echo(f"Note: {note}")
    ipc = len(images) // real.classes
    click.echo(
        f"{size_text(ipc)} of {dataset}, {real.classes} classes; {network_text(network)}; on {device_name(device)}"
    )
    torch.set_num_threads(min(torch.get_num_threads(), Machine().cores().amount))  # PyTorch ignores quotas
    settings = Protocol.challenge()
    with progress_bar(console, "Evaluating, epochs", networks * settings.epochs) as show:
        measured = evaluate_here(
            network, real, images, protocol=settings, networks=networks, seed=seed, folder=datasets, progress=show,
            augmentation=Augmentation(families=real.augmentation).for_evaluation(),
        )  # fmt: skip
    summaries = {metric: summarize([getattr(metrics, metric) for metrics in measured]) for metric in TESTED}
    for metric, summary in summaries.items():
        click.echo(f"{metric:>13}: {summary['mean']:.4f} ± {summary['std']:.4f} (n = {summary['n']})")
    return {
        "version": 1, "protocol": protocol, "dataset": dataset, "ipc": ipc, "seed": seed, "device": str(device),
        "network": asdict(network), "settings": asdict(settings), "augmentation": list(real.augmentation),
        "checks": checks, "notes": notes, **summaries,
    }  # fmt: skip


def prepare_for_set(source: Source, config: Mapping[str, Any], datasets: Path, console: Console) -> Path:
    """Return the file for `load` of the dataset from which a set with these settings was distilled.

    Args:
        source: The dataset, found.
        config: The settings of the run that made the set; may be empty.
        datasets: Folder of prepared datasets.
        console: Shows the progress.

    Raises:
        DatasetError: The dataset is damaged, or has other classes.
    """
    return prepare_dataset(
        source, datasets, config.get("validation_share", 0.1), console, reading=Reading.from_settings(config),
        classes=config.get("classes", 0), zca=config.get("zca", False),
    )  # fmt: skip


def read_stored(path: Path, dataset: str, classes: int | None) -> SyntheticSet:
    """Read a .safetensors set, and refuse one of another dataset.

    Raises:
        UserError: The set is of another dataset, or `classes` is given, which only a .pt needs.
    """
    stored = read_synthetic(path)
    if stored.dataset != dataset:
        raise UserError(f"{path} was made from {stored.dataset}, not from {dataset}; change --dataset")
    if classes is not None:
        raise UserError(
            f"--classes is for a .pt; {path} stores its number of classes, {len(stored.class_names)}; leave it out"
        )
    return stored


def check_origin(path: Path, stored: SyntheticSet, real: ImageDataset) -> list[str]:
    """Refuse a set whose classes or normalisation differ from those of the prepared dataset; returns notes.

    Raises:
        UserError: Classes or normalisation differ.
    """
    if stored.class_names != real.class_names:
        other = next(
            (pair for pair in zip(stored.class_names, real.class_names, strict=False) if pair[0] != pair[1]),
            (f"{len(stored.class_names)} classes", f"{len(real.class_names)} classes"),
        )
        raise UserError(f"{path} has other classes than the dataset: {other[0]!r} where it has {other[1]!r}")
    for name, ours, theirs in (("mean", stored.mean, real.mean), ("std", stored.std, real.std)):
        if any(abs(one - other) > 1e-3 for one, other in zip(ours, theirs, strict=True)):
            raise UserError(
                f"{path} was normalised with {name} {ours}, the dataset here with {theirs}; "
                "give the data that it was made from"
            )
    soft = stored.labels.is_floating_point()
    return ["the set's soft labels are not used: the challenge's labels are hard, by index"] if soft else []


def check_values(images: torch.Tensor, real: ImageDataset, device: torch.device) -> tuple[dict[str, Any], list[str]]:
    """Check normalisation and class order of a set without metadata; returns the results and notes for the user.

    Args:
        images: Normalised float32 [ipc·C, ch, H, W].
        real: The prepared dataset.
        device: Where the classifier of real images is trained.

    Raises:
        UserError: The values contradict the dataset's normalisation or the default class order.
    """
    try:
        note = check_normalisation(images, real)
        order = check_order(images, real, device)
    except SyntheticSetError as error:
        raise UserError(f"{error} (--unchecked evaluates it as it is)") from error
    notes = [note] if note else []
    if order.verdict == "unknown":
        notes.append(
            f"the order of the classes could not be confirmed: a classifier of real images ({order.reference:.0%} "
            f"accurate) agrees with the default order, image i shows class i // ipc, in {order.default:.1%} of the "
            f"images (chance: {1 / real.classes:.1%})"
        )
    return {"order": asdict(order)}, notes


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"


def network_text(network: ConvNet) -> str:
    name = f"ConvNet depth {network.depth}, width {network.width}"
    if (network.depth, network.width) == (CHALLENGE_DEPTH, CHALLENGE_WIDTH):
        return f"{name} (the challenge's)"
    return f"{name} (the challenge's is depth {CHALLENGE_DEPTH}, width {CHALLENGE_WIDTH})"
