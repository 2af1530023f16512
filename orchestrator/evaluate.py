"""What a synthetic set is worth on the test split, under the challenge's protocol.

python -m orchestrator.evaluate --synthetic runs/sweeps/NAME/synthetic.safetensors --dataset digits
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import data_option, json_option, one_line_errors, quiet_option, workdir_option
from orchestrator.console import make_console
from orchestrator.errors import UserError
from orchestrator.settings import Workdir
from trainables.files import write_json

if TYPE_CHECKING:
    import torch

    from trainables.catalog import DatasetFacts
    from trainables.datasets import ImageDataset
    from trainables.networks import ConvNet
    from trainables.synthetic import SyntheticSet

__all__ = ["check_origin", "main"]

CHALLENGE_DEPTH, CHALLENGE_WIDTH = 3, 128


@click.command(help="Train fresh networks on a synthetic set and test them on real images.")
@click.option("--synthetic", required=True, type=click.Path(path_type=Path), metavar="FILE", help=".safetensors or .pt")
@click.option("--dataset", required=True, metavar="NAME")
@click.option("--protocol", type=click.Choice(["challenge"]), default="challenge", show_default=True)
@click.option("--networks", type=click.IntRange(min=1), default=3, show_default=True, help="Fresh networks.")
@click.option("--depth", type=click.IntRange(min=1), help="Depth of the ConvNet; default: the set's, else 3.")
@click.option("--width", type=click.IntRange(min=1), help="Width of the ConvNet; default: the set's, else 128.")
@click.option("--classes", type=click.IntRange(min=2), help="A .pt holds only so many first classes; default: all.")
@click.option("--unchecked", is_flag=True, help="Do not judge normalisation and class order of a .pt from its values.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@json_option("figures")
@data_option
@workdir_option
@quiet_option
@one_line_errors
def main(
    synthetic: Path,
    dataset: str,
    protocol: str,
    networks: int,
    depth: int | None,
    width: int | None,
    classes: int | None,
    unchecked: bool,
    seed: int,
    json_path: Path | None,
    data: Path | None,
    workdir: str,
    quiet: bool,
) -> None:
    """Evaluate a set that a sweep or anyone else made."""
    if not synthetic.is_file():
        raise UserError(f"--synthetic {synthetic} is not a file")
    place = Workdir(Workdir.at(workdir).root)  # of one at a URI this machine's side: nobody else needs the dataset
    place.check_writable()

    import torch

    from orchestrator.inputs import prepare_dataset
    from orchestrator.live import progress_bar
    from orchestrator.statistics import summarize
    from orchestrator.tables import size_text
    from trainables.augmentation import Augmentation
    from trainables.config import Protocol
    from trainables.datasets import load
    from trainables.evaluation import evaluate_networks
    from trainables.labels import default_order_labels
    from trainables.metrics import TESTED
    from trainables.networks import ConvNet
    from trainables.seeding import seed_of
    from trainables.sources import facts_of
    from trainables.synthetic import read_challenge

    console = make_console(quiet=quiet)
    facts = facts_of(dataset, data)
    stored = _read_stored(synthetic, facts, classes) if synthetic.suffix == ".safetensors" else None
    config: dict[str, Any] = dict(stored.config) if stored else {"classes": classes or 0}
    facts = facts.first(config.get("classes", 0))
    sizes = {"classes": facts.classes, "channels": facts.channels, "image_size": facts.image_size}
    network = ConvNet(
        **sizes,
        depth=depth or config.get("net_depth", CHALLENGE_DEPTH),
        width=width or config.get("net_width", CHALLENGE_WIDTH),
    )
    images = stored.images if stored else read_challenge(synthetic, **sizes)[0]
    path = prepare_dataset(
        dataset, place.datasets, data, config.get("validation_share", 0.1), console,
        classes=config.get("classes", 0), zca=config.get("zca", False),
    )  # fmt: skip
    real = load(path, splits=("train", "validation", "test"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    checks: dict[str, Any] = {}
    notes: list[str] = []
    if stored:
        notes = check_origin(synthetic, stored, real)
    elif not unchecked:
        checks, notes = _check_values(images, real, device)
    for note in notes:
        click.echo(f"Note: {note}")
    ipc = len(images) // real.classes
    click.echo(f"{size_text(ipc)} of {dataset}, {real.classes} classes; {_network_text(network)}; on {_name(device)}")
    labels, pixels = default_order_labels(ipc, real.classes).to(device), images.to(device)
    settings = Protocol.challenge()
    with progress_bar(console, "Evaluating, epochs", networks * settings.epochs) as show:
        measured = evaluate_networks(
            network, real, "test", pixels.__getitem__, labels, protocol=settings,
            augmentation=Augmentation(families=real.augmentation, align_corners=False),
            seeds=[seed_of(seed, "finals", number) for number in range(networks)], progress=show,
        )  # fmt: skip
    summaries = {metric: summarize([getattr(metrics, metric) for metrics in measured]) for metric in TESTED}
    for metric, summary in summaries.items():
        click.echo(f"{metric:>13}: {summary['mean']:.4f} ± {summary['std']:.4f} (n = {summary['n']})")
    if json_path:
        record = {
            "version": 1, "protocol": protocol, "dataset": dataset, "ipc": ipc, "seed": seed, "device": str(device),
            "network": asdict(network), "settings": asdict(settings), "augmentation": list(real.augmentation),
            "checks": checks, "notes": notes, **summaries,
        }  # fmt: skip
        write_json(json_path, record)


def _read_stored(path: Path, facts: "DatasetFacts", classes: int | None) -> "SyntheticSet":
    """Read a set that says what it is, and refuse one of another dataset."""
    from trainables.synthetic import read_synthetic

    stored = read_synthetic(path)
    if stored.dataset != facts.name:
        raise UserError(f"{path} was made from {stored.dataset}, not from {facts.name}; change --dataset")
    if classes is not None:
        raise UserError(f"--classes is for a .pt; {path} itself says that it has {len(stored.class_names)} classes")
    return stored


def check_origin(path: Path, stored: "SyntheticSet", real: "ImageDataset") -> list[str]:
    """Refuse a set whose classes or normalisation are not those of the dataset as it is here; returns notes."""
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


def _check_values(
    images: "torch.Tensor", real: "ImageDataset", device: "torch.device"
) -> tuple[dict[str, Any], list[str]]:
    """Judge normalisation and class order of a bare tensor; returns what was found, and notes for the user."""
    from trainables.errors import SyntheticSetError
    from trainables.submission import check_normalisation, check_order

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


def _name(device: "torch.device") -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"


def _network_text(network: "ConvNet") -> str:
    name = f"ConvNet depth {network.depth}, width {network.width}"
    if (network.depth, network.width) == (CHALLENGE_DEPTH, CHALLENGE_WIDTH):
        return f"{name} (the challenge's)"
    return f"{name} (the challenge's is depth {CHALLENGE_DEPTH}, width {CHALLENGE_WIDTH})"


if __name__ == "__main__":
    main()
