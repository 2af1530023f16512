"""The export command: what it writes evaluates to the figures that it tells, all at once or not at all."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor
from torchvision.datasets import ImageFolder

from orchestrator.export import main
from orchestrator.results.result_json import write_result
from orchestrator.state.settings import SweepSettings
from orchestrator.state.settings_file import write_settings
from orchestrator.state.space import load_space
from orchestrator.state.workdir import Workdir
from tests.support.builders import sweep_settings
from tests.support.results import finished_result
from trainables.config.protocol import Protocol
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset, load, prepare, whiten
from trainables.data.labels import default_order_labels
from trainables.data.real_images import real_images
from trainables.data.synthetic import SyntheticSet, read_synthetic, write_synthetic
from trainables.evaluation.training import evaluate_networks
from trainables.networks.convnet import ConvNet
from trainables.seeding import seed_of

pytestmark = pytest.mark.usefixtures("one_thread")

IPC, EPOCHS, SEED, NETWORKS = 2, 8, 3, 2
SMALL = {"ipc": "2", "net_depth": "1", "net_width": "8", "protocol_epochs": str(EPOCHS)}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir with two finished sweeps, as their files tell: one of normalised and one of whitened images."""
    root = tmp_path_factory.mktemp("runs")
    for name, zca in (("plain", False), ("white", True)):
        write_sweep(settings_of(root, name, zca=zca))
    return root


def settings_of(root: Path, name: str, *, zca: bool) -> SweepSettings:
    space = load_space("digits", {**SMALL, "zca": str(zca).lower()}, None)
    return sweep_settings(space=space, name=name, seed=SEED, workdir=Workdir(root))


def prepared(settings: SweepSettings) -> ImageDataset:
    share = settings.fixed["validation_share"]
    path = prepare("digits", cache=settings.workdir.datasets, validation_share=share)
    return load(whiten(path) if settings.fixed["zca"] else path, splits=("train", "test"))


def write_sweep(settings: SweepSettings) -> None:
    write_settings(settings)
    dataset = prepared(settings)
    noise = torch.randn(10 * IPC, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images = real_images(dataset, IPC, 0) + 0.3 * noise
    synthetic = SyntheticSet(
        images=images, displayable=dataset.displayable(images), labels=default_order_labels(IPC, 10), alpha=0.02,
        dataset="digits", class_names=dataset.class_names, mean=dataset.mean, std=dataset.std, ipc=IPC, method="M-DATM",
        config=settings.space.resolve(settings.space.first()),
        provenance={
            "sweep": settings.name, "trial": "trial-004", "seed": SEED, "iteration": 40, "torch": torch.__version__,
            "dataset_digest": dataset.digest,
        },
    )  # fmt: skip
    write_synthetic(settings.places.folder / "synthetic.safetensors", synthetic)
    write_result(settings, {**finished_result(), "status": "finished", "workers": {"count": 1}})


def export(workdir: Path, *arguments: object, code: int = 0) -> Result:
    done = CliRunner().invoke(main, ["--workdir", str(workdir), "--networks", str(NETWORKS), *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done


def refused(workdir: Path, *arguments: object) -> str:
    done = export(workdir, *arguments, code=2)
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ") and done.stdout == ""
    return line


def accuracies(images: Tensor, dataset: ImageDataset) -> list[float]:
    """Train the finals' networks on images, and return their accuracies on the test split."""
    measured = evaluate_networks(
        ConvNet(channels=1, image_size=8, classes=10, depth=1, width=8), dataset, "test", images.__getitem__,
        default_order_labels(IPC, 10), protocol=Protocol.challenge(EPOCHS),
        augmentation=Augmentation(families=dataset.augmentation).for_evaluation(),
        seeds=[seed_of(SEED, "finals", number) for number in range(NETWORKS)],
    )  # fmt: skip
    return [metrics.accuracy for metrics in measured]


def normalised(pixels: np.ndarray, dataset: ImageDataset) -> Tensor:
    """Return pictures [S, 8, 8] as the data card says that they are normalised."""
    return (torch.from_numpy(pixels).float()[:, None] / 255 - dataset.mean[0]) / dataset.std[0]


def about_of(folder: Path) -> dict[str, Any]:
    with np.load(folder / "train.npz") as arrays:
        about: dict[str, Any] = json.loads(str(arrays["about"]))
    return about


def test_pictures_evaluate_to_the_figures_that_are_told(workdir: Path, tmp_path: Path) -> None:
    dataset = prepared(settings_of(workdir, "plain", zca=False))
    said = export(workdir, "--sweep", "plain", "--to", "npz", "--out", tmp_path / "npz").stdout
    about = about_of(tmp_path / "npz")
    with np.load(tmp_path / "npz" / "train.npz") as arrays:
        pixels = arrays["train_images"]
    after = accuracies(normalised(pixels, dataset), dataset)
    assert about["rounding"]["eight_bits"]["values"] == pytest.approx(after, abs=0.01)
    assert f"{np.mean(about['rounding']['eight_bits']['values']):.3f} ± " in said
    export(workdir, "--sweep", "plain", "--to", "folder", "--out", tmp_path / "folder", "--no-evaluate")
    read = np.stack([np.asarray(image)[..., 0] for image, _ in ImageFolder(str(tmp_path / "folder"))])
    assert np.array_equal(read, pixels)


def test_floats_evaluate_to_the_figures_of_the_set_bit_for_bit(workdir: Path, tmp_path: Path) -> None:
    dataset = prepared(settings_of(workdir, "plain", zca=False))
    export(workdir, "--sweep", "plain", "--to", "npz", "--out", tmp_path / "bits")
    said = export(workdir, "--sweep", "plain", "--to", "npz", "--out", tmp_path / "floats", "--float").stdout
    with np.load(tmp_path / "floats" / "train.npz") as arrays:
        images = torch.from_numpy(arrays["train_images"])[:, None]
    assert about_of(tmp_path / "bits")["rounding"]["as_trained"]["values"] == accuracies(images, dataset)
    assert about_of(tmp_path / "floats")["rounding"] is None and "the floats that were judged" in said
    export(workdir, "--sweep", "plain", "--to", "pt", "--out", tmp_path / "pt")
    assert torch.equal(torch.load(tmp_path / "pt" / "train.pt", weights_only=True), images)


def test_what_was_clipped_is_counted(workdir: Path, tmp_path: Path) -> None:
    said = export(workdir, "--sweep", "plain", "--to", "npz", "--out", tmp_path / "out", "--no-evaluate").stdout
    synthetic = read_synthetic(workdir / "sweeps" / "plain" / "synthetic.safetensors")
    intensities = synthetic.images.double() * synthetic.std[0] + synthetic.mean[0]
    share = float(((intensities < 0) | (intensities > 1)).double().mean())
    assert 0.1 < share < 0.9 and about_of(tmp_path / "out")["clipped_share"] == pytest.approx(share, abs=1e-3)
    assert f"{share:.1%}"[:-2] in said and "not measured: --no-evaluate" in said


def test_whitened_images_are_said_not_to_be_what_is_seen(workdir: Path, tmp_path: Path) -> None:
    white = prepared(settings_of(workdir, "white", zca=True))
    said = export(workdir, "--sweep", "white", "--to", "npz", "--out", tmp_path / "out").stdout
    assert "not what networks were trained on: those images were ZCA-whitened" in said
    with np.load(tmp_path / "out" / "train.npz") as arrays:
        pixels = torch.from_numpy(arrays["train_images"])[:, None].float() / 255
    about = about_of(tmp_path / "out")
    assert about["whitened"] and 0 < about["clipped_share"] < 1
    assert white.whitening is not None
    assert about["rounding"]["eight_bits"]["values"] == accuracies(white.whitening.apply(pixels), white)
    said = export(workdir, "--sweep", "white", "--to", "npz", "--out", tmp_path / "b", "--no-evaluate").stdout
    assert "not known without the dataset" in said and about_of(tmp_path / "b")["clipped_share"] is None


def test_a_hubs_folder_has_a_card_with_all_figures(workdir: Path, tmp_path: Path) -> None:
    said = export(workdir, "--sweep", "plain", "--to", "hub", "--out", tmp_path / "out").stdout
    card = (tmp_path / "out" / "README.md").read_text()
    header = card.split("---\n")[1]
    assert 'pretty_name: "digits, distilled by M-DATM"' in header and "# license: choose one" in header
    assert "path: data/train-*" in header and "n<1K" in header
    for words in (
        "20 synthetic images, 2 for each of 10 classes, 8 × 8 pixels", "trial-004 of the sweep plain, seed 3",
        f"PyTorch {torch.__version__}", "| best trial | 0.900 ± 0.071 | 0.265 … 1.535 | 2 |",
        "| random real images | 0.525 ± 0.035 |", *said.splitlines()[-3:-1], "α = 0.02.",
        "| `protocol_epochs` | `8` |", "whose terms apply",
    ):  # fmt: skip
        assert words in card


def test_a_file_in_place_of_a_sweep(workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workdir / "sweeps" / "plain" / "synthetic.safetensors"
    export(workdir, "--sweep", "plain", "--to", "npz", "--out", tmp_path / "sweep")
    monkeypatch.chdir(tmp_path)
    export(workdir, "--synthetic", path, "--to", "npz")
    of_file, of_sweep = about_of(tmp_path / "synthetic-npz"), about_of(tmp_path / "sweep")
    assert of_file["rounding"] == of_sweep["rounding"] is not None
    assert of_file["test_accuracy"] == {} and of_sweep["test_accuracy"]["winner"]["n"] == 2


class TestRefused:
    def test_unknown_names_with_those_that_there_are(self, workdir: Path, tmp_path: Path) -> None:
        assert "folder, parquet, hub, npz, pt, not 'zip'" in refused(workdir, "--sweep", "plain", "--to", "zip")
        line = refused(workdir, "--sweep", "plane", "--to", "npz", "--out", tmp_path / "out")
        assert "no sweep named 'plane'" in line and "plain, white" in line and not (tmp_path / "out").exists()
        assert "give --sweep NAME, or --synthetic" in refused(workdir, "--to", "npz")
        assert "no.safetensors is not a file" in refused(workdir, "--synthetic", "no.safetensors", "--to", "npz")

    def test_a_folder_that_has_something_in_it(self, workdir: Path, tmp_path: Path) -> None:
        (tmp_path / "mine.txt").write_text("mine")
        line = refused(workdir, "--sweep", "plain", "--to", "npz", "--out", tmp_path)
        assert "is not empty" in line and [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
        assert "is a file" in refused(workdir, "--sweep", "plain", "--to", "npz", "--out", tmp_path / "mine.txt")

    def test_a_place_that_cannot_be_written(self, workdir: Path, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        line = refused(workdir, "--sweep", "plain", "--to", "npz", "--out", tmp_path / "file" / "out", "--no-evaluate")
        assert "choose another" in line

    def test_a_sweep_that_has_not_finished(self, workdir: Path, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, "begun", zca=False)
        write_settings(settings)
        line = refused(tmp_path, "--sweep", "begun", "--to", "npz", "--out", tmp_path / "out")
        assert "only a finished sweep has a result" in line and settings.resume_command in line


def test_an_empty_folder_is_taken_and_nothing_stays_beside_it(workdir: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export(workdir, "--sweep", "plain", "--to", "parquet", "--out", tmp_path / "out", "--no-evaluate")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["train.parquet"]


def test_a_dataset_that_is_not_at_hand_is_said_and_the_set_is_written(workdir: Path, tmp_path: Path) -> None:
    synthetic = read_synthetic(workdir / "sweeps" / "plain" / "synthetic.safetensors")
    write_synthetic(tmp_path / "set.safetensors", replace(synthetic, dataset="cifar10"))
    said = export(workdir, "--synthetic", tmp_path / "set.safetensors", "--to", "npz", "--out", tmp_path / "a").stdout
    assert re.search(r"was not measured: the dataset is not at hand: cifar10 needs its files: pass --data DIR", said)
    write_synthetic(
        tmp_path / "set.safetensors", replace(synthetic, provenance={"dataset_digest": "another"}, config={})
    )
    said = export(workdir, "--synthetic", tmp_path / "set.safetensors", "--to", "npz", "--out", tmp_path / "b").stdout
    assert "not those that the set was distilled from" in said
    assert about_of(tmp_path / "a")["rounding"] is about_of(tmp_path / "b")["rounding"] is None
