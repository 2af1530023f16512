"""The export of a synthetic set: its 8-bit images are judged beside the originals, then all files appear at once."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from torch import Tensor

from orchestrator.errors import UserError
from orchestrator.reporting.card import Accuracies, Rounding, clipped_text, data_card, rounding_text
from orchestrator.results.result_json import require_finished
from orchestrator.results.statistics import summarize
from orchestrator.stages.evaluation import CHALLENGE_DEPTH, CHALLENGE_WIDTH, check_origin, prepare_for_set
from orchestrator.stages.inputs import prepare_inputs
from orchestrator.stages.local_evaluation import evaluate_here
from orchestrator.state.looking import fetch
from orchestrator.state.settings import SweepSettings
from orchestrator.terminal.progress_bar import progress_bar
from search_spaces import Comparison
from trainables.config.protocol import Protocol
from trainables.config.reading import Reading
from trainables.data.augmentation import Augmentation, parse_families
from trainables.data.datasets import ImageDataset, load
from trainables.data.export import ExportedSet, intensities_of, pixels_of, write_form
from trainables.data.names import text_names
from trainables.data.published import find
from trainables.data.synthetic import SyntheticSet, read_synthetic
from trainables.errors import DatasetError
from trainables.machine import Machine
from trainables.networks.convnet import ConvNet
from trainables.networks.network import Network
from trainables.storage.atomic import is_disk_full, write_folder

__all__ = ["Request", "check_target", "export_file", "export_sweep"]

FORMAT_VERSION = 1
OUTSIDE = 1e-6
"""Rounding of floats: so far outside of [0, 1] an intensity does not count as clipped."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be written, and where."""

    form: str
    """One of `trainables.data.forms.FORMS`."""
    target: Path
    """The folder to create."""
    as_floats: bool
    """Whether images stay the normalised floats."""
    networks: int
    """Networks that are trained on the images before rounding, and again after; 0: none."""


@dataclass(frozen=True, kw_only=True)
class _Judge:
    """Trains and tests networks as the finals did."""

    dataset: ImageDataset
    """Its test split."""
    network: Network
    protocol: Protocol
    augmentation: Augmentation
    seed: int
    """The sweep's."""
    folder: Path
    """Folder for how many networks are trained at once."""

    def accuracies(self, images: Tensor, networks: int, progress: Callable[[int], None]) -> dict[str, Any]:
        """Return the `summarize` of the networks' accuracies on the test split.

        Args:
            images: Normalised float32 [ipc·C, ch, H, W] in default order.
            networks: The first so many networks of the finals.
            progress: Called with the epochs that all networks have done.
        """
        measured = evaluate_here(
            self.network, self.dataset, images, protocol=self.protocol, augmentation=self.augmentation,
            networks=networks, seed=self.seed, folder=self.folder, progress=progress,
        )  # fmt: skip
        return summarize([metrics.accuracy for metrics in measured])


def check_target(target: Path) -> None:
    """Refuse, before any work, a folder that is there already, unless it is empty.

    Raises:
        UserError: Something is there, or it cannot be looked at.
    """
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            what = "is not empty" if target.is_dir() else "is a file"
            raise UserError(f"{target} {what}, and an export replaces nothing; choose another folder with --out")
    except OSError as error:
        raise UserError(f"{target} cannot be read ({error.strerror}); choose another folder with --out") from error


def export_sweep(settings: SweepSettings, request: Request, console: Console) -> None:
    """Write the best set of a finished sweep in another form, and print what rounding does to its accuracy.

    Raises:
        UserError: The sweep is a comparison or has not finished, or the folder cannot be written.
        SyntheticSetError: The set's file is missing or damaged.
    """
    if isinstance(settings.space, Comparison):
        raise UserError(f"{settings.name!r} is a comparison, which has no best set; name a sweep")
    fetch(settings.places)
    result = require_finished(settings)
    synthetic = read_synthetic(settings.places.folder / result["files"]["synthetic"])

    def judge() -> _Judge:
        inputs = prepare_inputs(settings, console)
        return _Judge(
            dataset=_test_split(inputs.path, synthetic),
            network=inputs.network,
            protocol=settings.final_protocol,
            augmentation=inputs.evaluation_augmentation,
            seed=settings.seed,
            folder=settings.workdir.scores,
        )

    finals = {name: metrics["accuracy"] for name, metrics in result["finals"].items()}
    _export(synthetic, request, judge, finals, console)


def export_file(path: Path, request: Request, console: Console, *, data: Path | None, datasets: Path) -> None:
    """Write the set of a .safetensors file in another form, and print what rounding does to its accuracy.

    Args:
        path: The set's file.
        request: What is to be written.
        console: Shows the progress.
        data: Folder of the files of the dataset from which the set was distilled; None: a package has it.
        datasets: Folder of prepared datasets.

    Raises:
        UserError: The folder cannot be written.
        SyntheticSetError: The file is not a synthetic set.
    """
    synthetic = read_synthetic(path)

    def judge() -> _Judge:
        config = synthetic.config
        if config.get("network", "convnet") != "convnet":
            raise DatasetError(f"its network, {config['network']}, is known to its sweep alone; give --sweep")
        dataset = _test_split(
            prepare_for_set(find(synthetic.dataset, data, Reading.from_settings(config)), config, datasets, console),
            synthetic,
        )
        check_origin(path, synthetic, dataset)
        network = ConvNet(
            classes=dataset.classes, channels=dataset.channels, image_size=dataset.image_size,
            depth=config.get("net_depth", CHALLENGE_DEPTH), width=config.get("net_width", CHALLENGE_WIDTH),
        )  # fmt: skip
        families = parse_families(config.get("augmentation", "dataset"), dataset.augmentation)
        return _Judge(
            dataset=dataset,
            network=network,
            protocol=Protocol.challenge(config.get("protocol_epochs", Protocol.epochs)),
            augmentation=Augmentation(families=families).for_evaluation(),
            seed=synthetic.provenance.get("seed", 0),
            folder=datasets,
        )

    _export(synthetic, request, judge, {}, console)


def _test_split(path: Path, synthetic: SyntheticSet) -> ImageDataset:
    """Return the test split of the prepared dataset from which a set was distilled.

    Raises:
        DatasetError: It is another dataset.
    """
    dataset = load(path, splits=("test",))
    if synthetic.provenance.get("dataset_digest", dataset.digest) != dataset.digest:
        raise DatasetError("its images are not those that the set was distilled from; give those with --data")
    return dataset


def _judge_or_reason(request: Request, find_judge: Callable[[], _Judge]) -> _Judge | str:
    """Return the judge of the rounding, or why there is none."""
    if request.as_floats:
        return "the images are the floats that were judged"
    if not request.networks:
        return "--no-evaluate"
    try:
        return find_judge()
    except (DatasetError, UserError) as error:
        return f"the dataset is not at hand: {error}"
    except OSError as error:
        if is_disk_full(error):
            raise
        return f"the dataset cannot be prepared: {error}"


def _export(
    synthetic: SyntheticSet,
    request: Request,
    find_judge: Callable[[], _Judge],
    finals: Accuracies,
    console: Console,
) -> None:
    """Measure the rounding, write all files and say what was written.

    Args:
        synthetic: The set.
        request: What is to be written.
        find_judge: Returns what measures the rounding; raises DatasetError or UserError if the dataset is not at hand.
        finals: Accuracies of the sweep's finals by set; empty if they are not known.
        console: Shows the progress.
    """
    judge = _judge_or_reason(request, find_judge)
    rounding = judge if isinstance(judge, str) else _rounding(synthetic, judge, request.networks, console)
    whitening = None if isinstance(judge, str) else judge.dataset.whitening
    clipped = _clipped_share(synthetic, None if whitening is None else whitening.undo)
    about = _about(synthetic, request, clipped, finals, rounding)
    exported = ExportedSet(synthetic=synthetic, as_floats=request.as_floats, about=about)

    def write(folder: Path) -> None:
        write_form(folder, request.form, exported)
        if request.form == "hub":
            card = data_card(synthetic, about, finals, rounding)
            (folder / "README.md").write_text(f"{card}\n", encoding="utf-8")

    try:
        write_folder(request.target.resolve(), write)
    except OSError as error:
        if is_disk_full(error):
            raise
        raise UserError(f"{request.target} cannot be written ({error.strerror}); choose another with --out") from error
    click.echo(rounding_text(rounding))
    if not request.as_floats:
        click.echo(clipped_text(clipped, whitened=about["whitened"]))
    click.echo(f"{len(synthetic.images)} images of {len(synthetic.class_names)} classes are in {request.target}")


def _about(
    synthetic: SyntheticSet, request: Request, clipped: float | None, finals: Accuracies, rounding: Rounding | str
) -> dict[str, Any]:
    """Return the facts that every form holds, as JSON."""
    return {
        "format_version": FORMAT_VERSION,
        "dataset": synthetic.dataset,
        "class_names": text_names(synthetic.class_names),
        "images_per_class": synthetic.ipc,
        "images": "normalised float32" if request.as_floats else "8 bits a channel",
        "mean": list(synthetic.mean),
        "std": list(synthetic.std),
        "whitened": bool(synthetic.config.get("zca")),
        "clipped_share": None if request.as_floats else clipped,
        "alpha": synthetic.alpha,
        "method": synthetic.method,
        "settings": dict(synthetic.config),
        "provenance": dict(synthetic.provenance),
        "exported_by": f"mdatm-sweep {version('mdatm-sweep')}",
        "test_accuracy": finals,
        "rounding": rounding._asdict() if isinstance(rounding, Rounding) else None,
    }


def _rounding(synthetic: SyntheticSet, judge: _Judge, networks: int, console: Console) -> Rounding:
    """Return the accuracy of the set as it is, and of its 8-bit pictures, normalised as those who read them do."""
    torch.set_num_threads(min(torch.get_num_threads(), Machine().cores().amount))  # PyTorch ignores quotas
    rounded = judge.dataset.normalize_intensities(intensities_of(pixels_of(synthetic)))
    epochs = networks * judge.protocol.epochs
    with progress_bar(console, "Evaluating before and after rounding, epochs", 2 * epochs) as show:
        before = judge.accuracies(synthetic.images, networks, show)
        return Rounding(before, judge.accuracies(rounded, networks, lambda done: show(epochs + done)))


def _clipped_share(synthetic: SyntheticSet, undo: Callable[[Tensor], Tensor] | None) -> float | None:
    """Return the share of intensities that lie outside of [0, 1]; None: whitened images, and nothing undoes it."""
    if undo is None and synthetic.config.get("zca"):
        return None
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (synthetic.mean, synthetic.std))
    intensities = synthetic.images * std + mean if undo is None else undo(synthetic.images)
    return float(((intensities < -OUTSIDE) | (intensities > 1 + OUTSIDE)).double().mean())
