"""What a synthetic set is worth on the test split, under the challenge's protocol.

python -m orchestrator.evaluate --synthetic runs/sweeps/NAME/synthetic.safetensors --dataset digits
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from orchestrator.cli import data_option, one_line_errors, quiet_option, workdir_option
from orchestrator.console import make_console
from orchestrator.errors import UserError
from orchestrator.settings import Workdir

__all__ = ["main"]


@click.command(help="Train fresh networks on a synthetic set and test them on real images.")
@click.option("--synthetic", required=True, type=click.Path(path_type=Path), metavar="FILE", help=".safetensors or .pt")
@click.option("--dataset", required=True, metavar="NAME")
@click.option("--protocol", type=click.Choice(["challenge"]), default="challenge", show_default=True)
@click.option("--networks", type=click.IntRange(min=1), default=3, show_default=True, help="Fresh networks.")
@click.option("--depth", type=click.IntRange(min=1), help="Depth of the ConvNet; default: the set's, else 3.")
@click.option("--width", type=click.IntRange(min=1), help="Width of the ConvNet; default: the set's, else 128.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), metavar="FILE", help="Write the figures there.")
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
    seed: int,
    json_path: Path | None,
    data: Path | None,
    workdir: Path,
    quiet: bool,
) -> None:
    """Evaluate a set that a sweep or anyone else made."""
    if not synthetic.is_file():
        raise UserError(f"--synthetic {synthetic} is not a file")
    place = Workdir(workdir)
    place.check_writable()

    from orchestrator.inputs import prepare_dataset
    from orchestrator.live import progress_bar
    from orchestrator.statistics import summarize
    from trainables.augmentation import Augmentation
    from trainables.catalog import facts
    from trainables.config import Protocol
    from trainables.datasets import load
    from trainables.evaluation import evaluate
    from trainables.networks import ConvNet
    from trainables.seeding import seed_of
    from trainables.synthetic import read_challenge, read_synthetic

    known = facts(dataset)
    config: dict[str, Any] = {}
    if synthetic.suffix == ".pt":
        images, labels = read_challenge(
            synthetic, classes=known.classes, channels=known.channels, image_size=known.image_size
        )
    else:
        stored = read_synthetic(synthetic)
        if stored.dataset != dataset:
            raise UserError(f"{synthetic} was made from {stored.dataset}, not from {dataset}")
        images, labels, config = stored.images, stored.labels, dict(stored.config)
    console = make_console(quiet=quiet)
    share = config.get("validation_share", 0.1)
    real = load(prepare_dataset(dataset, place.datasets, data, share, console), splits=("test",))
    network = ConvNet(
        channels=known.channels,
        image_size=known.image_size,
        classes=known.classes,
        depth=depth or config.get("net_depth", 3),
        width=width or config.get("net_width", 128),
    )
    augmentation = Augmentation(families=real.augmentation, align_corners=False)
    measured = []
    with progress_bar(console, "Evaluating, networks", networks) as show:
        for number in range(networks):
            metrics = evaluate(
                network, real, "test", images.__getitem__, labels, protocol=Protocol.challenge(),
                augmentation=augmentation, seed=seed_of(seed, "finals", number),
            )  # fmt: skip
            measured.append(asdict(metrics))
            show(number + 1)
    summaries = {metric: summarize([values[metric] for values in measured]) for metric in measured[0]}
    for metric, summary in summaries.items():
        console.print(f"{metric:>13}: {summary['mean']:.4f} ± {summary['std']:.4f} (n = {summary['n']})")
    if json_path:
        json_path.write_text(
            json.dumps({"version": 1, "protocol": protocol, "dataset": dataset, **summaries}, indent=1)
        )


if __name__ == "__main__":
    main()
