"""The evaluate command on anybody's files: what it takes, what it refuses and why, and what it writes down."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from orchestrator.evaluate import main
from trainables.data.datasets import ImageDataset, load, prepare, whiten
from trainables.data.labels import default_order_labels
from trainables.data.real_images import real_images
from trainables.data.synthetic import SyntheticSet, write_challenge, write_synthetic

IPC = 2
SMALL = ("--dataset", "digits", "--networks", "2", "--depth", "1", "--width", "2")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def digits(workdir: Path) -> ImageDataset:
    return load(prepare("digits", cache=workdir / "datasets", validation_share=0.1))


@pytest.fixture(scope="module")
def images(digits: ImageDataset) -> Tensor:
    return real_images(digits, IPC, 0)


def evaluate(workdir: Path, path: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["--synthetic", str(path), "--workdir", str(workdir), *SMALL, *options])


def refused(workdir: Path, path: Path, *words: str, options: tuple[str, ...] = ()) -> None:
    """One line that says all of it, exit code 2, and nothing evaluated."""
    found = evaluate(workdir, path, *options)
    assert found.exit_code == 2, found.output
    lines = [line for line in found.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("Error: ")
    for word in words:
        assert word in lines[0]
    assert "accuracy:" not in found.stdout


def bare(folder: Path, content: Any) -> Path:
    torch.save(content, folder / "set.pt")
    return folder / "set.pt"


def stored(digits: ImageDataset, images: Tensor, **changed: Any) -> SyntheticSet:
    fields: dict[str, Any] = {
        "images": images,
        "labels": default_order_labels(len(images) // digits.classes, digits.classes),
        "alpha": 0.01,
        "dataset": "digits",
        "class_names": digits.class_names,
        "mean": digits.mean,
        "std": digits.std,
        "ipc": len(images) // digits.classes,
        "method": "by hand",
        "config": {"validation_share": digits.validation_share},
        "provenance": {},
    }
    return SyntheticSet(**{**fields, **changed})


class TestAccepted:
    def test_a_bare_tensor_in_default_order(self, workdir: Path, images: Tensor, tmp_path: Path) -> None:
        write_challenge(tmp_path / "set.pt", images)
        found = evaluate(workdir, tmp_path / "set.pt", "--json", str(tmp_path / "figures.json"))
        assert found.exit_code == 0, found.output
        assert "2 images per class of digits, 10 classes" in found.stdout
        assert "ConvNet depth 1, width 2 (the challenge's is depth 3, width 128); on " in found.stdout
        assert "Note:" not in found.stdout
        written = json.loads((tmp_path / "figures.json").read_text())
        assert written["checks"]["order"]["verdict"] == "default" and written["notes"] == []
        assert (written["protocol"], written["dataset"], written["ipc"], written["seed"]) == (
            "challenge",
            "digits",
            2,
            0,
        )
        assert written["network"] == {"channels": 1, "image_size": 8, "classes": 10, "depth": 1, "width": 2}
        assert written["settings"]["epochs"] == 1001
        for metric in ("accuracy", "macro_f1", "macro_recall"):
            summary = written[metric]
            assert summary["n"] == len(summary["values"]) == 2
            assert summary["mean"] == pytest.approx(sum(summary["values"]) / 2)
        assert written["accuracy"]["mean"] > 0.2  # chance is a tenth

    def test_other_floats(self, workdir: Path, images: Tensor, tmp_path: Path) -> None:
        assert evaluate(workdir, bare(tmp_path, images.double()), "--unchecked").exit_code == 0

    def test_the_same_file_gives_the_same_figures_and_another_seed_others(
        self, workdir: Path, images: Tensor, tmp_path: Path
    ) -> None:
        path, figures = bare(tmp_path, images), []
        for number, seed in enumerate((0, 0, 1)):
            record = tmp_path / f"{number}.json"
            assert evaluate(workdir, path, "--unchecked", "--seed", str(seed), "--json", str(record)).exit_code == 0
            figures.append(json.loads(record.read_text())["accuracy"]["values"])
        assert figures[0] == figures[1] != figures[2]

    def test_the_first_classes_alone(self, workdir: Path, images: Tensor, tmp_path: Path) -> None:
        path = bare(tmp_path, images[: 3 * IPC])
        found = evaluate(workdir, path, "--classes", "3", "--unchecked")
        assert found.exit_code == 0 and "2 images per class of digits, 3 classes" in found.stdout

    def test_what_cannot_be_confirmed_is_noted(self, workdir: Path, images: Tensor, tmp_path: Path) -> None:
        shuffled = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(1))]
        found = evaluate(workdir, bare(tmp_path, shuffled))
        assert found.exit_code == 0
        assert "Note: the order of the classes could not be confirmed" in found.stdout

    def test_a_stored_set_with_its_own_classes_and_network(self, workdir: Path, tmp_path: Path) -> None:
        three = load(prepare("digits", cache=workdir / "datasets", validation_share=0.2, classes=3))
        config = {"validation_share": 0.2, "classes": 3, "net_depth": 2, "net_width": 3}
        write_synthetic(tmp_path / "set.safetensors", stored(three, real_images(three, 1, 0), config=config))
        arguments = ["--synthetic", tmp_path / "set.safetensors", "--dataset", "digits", "--workdir", workdir]
        found = CliRunner().invoke(main, [*map(str, arguments), "--networks", "1"])
        assert found.exit_code == 0, found.output
        assert "1 image per class of digits, 3 classes; ConvNet depth 2, width 3" in found.stdout

    def test_a_whitened_set_meets_whitened_test_images(self, workdir: Path, tmp_path: Path) -> None:
        white = load(whiten(prepare("digits", cache=workdir / "datasets", validation_share=0.1)))
        images = real_images(white, IPC, 0)
        accuracies = []
        for zca in (True, False):
            written = stored(
                white, images, config={"validation_share": 0.1, "zca": zca}, displayable=white.displayable(images)
            )
            write_synthetic(tmp_path / "set.safetensors", written)
            figures = tmp_path / "figures.json"
            found = evaluate(workdir, tmp_path / "set.safetensors", "--width", "16", "--json", str(figures))
            assert found.exit_code == 0, found.output
            accuracies.append(json.loads(figures.read_text())["accuracy"]["mean"])
        assert accuracies[0] > accuracies[1] + 0.05

    def test_soft_labels_are_left_aside_and_it_says_so(
        self, workdir: Path, digits: ImageDataset, images: Tensor, tmp_path: Path
    ) -> None:
        figures = []
        for name, labels in (("soft", torch.full((20, 10), 0.1)), ("hard", default_order_labels(IPC, 10))):
            write_synthetic(tmp_path / "set.safetensors", stored(digits, images, labels=labels))
            found = evaluate(workdir, tmp_path / "set.safetensors", "--json", str(tmp_path / "figures.json"))
            assert ("soft labels are not used" in found.stdout) == (name == "soft")
            figures.append(json.loads((tmp_path / "figures.json").read_text())["accuracy"])
        assert figures[0] == figures[1]


class TestRefused:
    def test_interleaved_classes(self, workdir: Path, images: Tensor, tmp_path: Path) -> None:
        path = bare(tmp_path, images.view(10, IPC, 1, 8, 8).transpose(0, 1).reshape(-1, 1, 8, 8))
        refused(workdir, path, "default order", "i // 2", "image i shows class i % 10", "--unchecked")
        assert evaluate(workdir, path, "--unchecked").exit_code == 0

    def test_classes_in_another_order(self, workdir: Path, images: Tensor, tmp_path: Path) -> None:
        path = bare(tmp_path, images.view(10, IPC, 1, 8, 8).flip(0).flatten(0, 1))
        refused(workdir, path, "the classes themselves are in another order", "'0' first")

    def test_images_that_are_not_normalised(
        self, workdir: Path, digits: ImageDataset, images: Tensor, tmp_path: Path
    ) -> None:
        path = bare(tmp_path, digits.displayable(images))
        refused(workdir, path, "unnormalised", "[0, 1]", "subtract mean 0.3", "divide by std 0.3", "--unchecked")
        assert evaluate(workdir, path, "--unchecked").exit_code == 0

    def test_bytes_and_values_that_are_no_numbers(self, workdir: Path, images: Tensor, tmp_path: Path) -> None:
        refused(workdir, bare(tmp_path, (images * 0).byte()), "torch.uint8", "normalise")
        images = images.clone()
        images[3, 0, 1, 2] = float("nan")
        refused(workdir, bare(tmp_path, images), "1 pixels that are not finite", options=("--unchecked",))

    def test_another_shape_or_form(self, workdir: Path, images: Tensor, tmp_path: Path) -> None:
        refused(workdir, bare(tmp_path, images[:-1]), "[ipc·10, 1, 8, 8]", "[19, 1, 8, 8]")
        refused(workdir, bare(tmp_path, images.repeat(1, 3, 1, 1)), "[20, 3, 8, 8]")
        refused(workdir, bare(tmp_path, {"images": images}), "'images'", "save the images' tensor alone")
        refused(workdir, bare(tmp_path, images), "classes", "0 (all) or 2 to 10", options=("--classes", "11"))

    def test_a_stored_set_of_other_classes_or_normalisation(
        self, workdir: Path, digits: ImageDataset, images: Tensor, tmp_path: Path
    ) -> None:
        path = tmp_path / "set.safetensors"
        write_synthetic(path, stored(digits, images, class_names=(*"1023456789",)))
        refused(workdir, path, "other classes", "'1' where it has '0'")
        write_synthetic(path, stored(digits, images, mean=(0.5,)))
        refused(workdir, path, "normalised with mean (0.5,)", "the data that it was made from")
        write_synthetic(path, stored(digits, images, dataset="cifar10"))
        refused(workdir, path, "cifar10", "digits", "--dataset")
        write_synthetic(path, stored(digits, images))
        refused(workdir, path, "--classes is for a .pt", options=("--classes", "10"))
