"""Every form of an export, read back by the library that its users use: the same pixels, labels, names and facts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor
from torchvision.datasets import ImageFolder

from tests.support.hub import load_offline
from tests.support.names import HOSTILE
from trainables.data.export import ExportedSet, intensities_of, pixels_of, write_form
from trainables.data.forms import FORMS, check_form
from trainables.data.labels import default_order_labels
from trainables.data.names import folder_names, text_names
from trainables.data.synthetic import SyntheticSet, read_challenge, read_synthetic, write_synthetic
from trainables.errors import ConfigError

IPC, SIDE = 2, 5
ABOUT = {"dataset": "made", "alpha": 0.25}


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., SyntheticSet]:
    """Make a set, some of whose intensities lie outside of [0, 1], and read it from its file, as an export does."""

    def made(channels: int = 3, *, soft: bool = False, names: tuple[str, ...] = ("owl", "ant", "bee")) -> SyntheticSet:
        draws, count = torch.Generator().manual_seed(channels), IPC * len(names)
        labels = torch.randn(count, len(names), generator=draws) if soft else default_order_labels(IPC, len(names))
        synthetic = SyntheticSet(
            images=2 * torch.randn(count, channels, SIDE, SIDE, generator=draws), labels=labels, alpha=0.25,
            dataset="made", class_names=names, mean=(0.5, 0.4, 0.3)[:channels], std=(0.2, 0.25, 0.3)[:channels],
            ipc=IPC, method="by hand", config={}, provenance={},
        )  # fmt: skip
        write_synthetic(tmp_path / "set.safetensors", synthetic)
        return read_synthetic(tmp_path / "set.safetensors")

    return made


def written(folder: Path, form: str, synthetic: SyntheticSet, *, as_floats: bool = False) -> Path:
    folder.mkdir()
    write_form(folder, form, ExportedSet(synthetic=synthetic, as_floats=as_floats, about=ABOUT))
    return folder


def as_arrays(pixels: Tensor) -> np.ndarray:
    """Return images [S, ch, H, W] as people have them: [S, H, W], or [S, H, W, 3]."""
    arrays: np.ndarray = pixels.permute(0, 2, 3, 1).squeeze(-1).numpy()
    return arrays


def test_pixels_are_the_nearest_of_256_and_read_as_intensities(make: Callable[..., SyntheticSet]) -> None:
    synthetic = make()
    assert synthetic.displayable is not None
    assert pixels_of(synthetic).dtype == torch.uint8
    assert (intensities_of(pixels_of(synthetic)) - synthetic.displayable).abs().max() <= 0.5 / 255 + 1e-6
    assert synthetic.displayable.unique().numel() > 100  # not a set that 8 bits hold anyway


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_is_that_of_torchvision(tmp_path: Path, make: Callable[..., SyntheticSet], channels: int) -> None:
    synthetic = make(channels)
    folder = written(tmp_path / "out", "folder", synthetic)
    images = ImageFolder(str(folder))
    assert images.classes == ["ant", "bee", "owl"] and len(images) == 6
    expected = as_arrays(pixels_of(synthetic))
    for number, (image, label) in enumerate(images):
        ours = synthetic.class_names.index(images.classes[label])
        pixels = np.asarray(image)
        assert np.array_equal(pixels if channels == 3 else pixels[..., 0], expected[ours * IPC + number % IPC])
    about = json.loads((folder / "about.json").read_text())
    assert about["alpha"] == 0.25
    assert about["classes"] == [
        {"label": label, "name": name, "folder": name} for label, name in enumerate(synthetic.class_names)
    ]


def test_hostile_names_are_folders_of_torchvision_and_of_the_hub(
    tmp_path: Path, make: Callable[..., SyntheticSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    synthetic = make(names=HOSTILE)
    folder = written(tmp_path / "out", "folder", synthetic)
    classes = json.loads((folder / "about.json").read_text())["classes"]
    assert [entry["name"] for entry in classes] == text_names(HOSTILE)
    assert [entry["folder"] for entry in classes] == folder_names(HOSTILE)
    label_of = {entry["folder"]: entry["label"] for entry in classes}
    of_torchvision = ImageFolder(str(folder))
    of_the_hub = load_offline(monkeypatch, tmp_path / "cache", "imagefolder", data_dir=str(folder))
    hub_names = of_the_hub.features["label"].names
    assert sorted(of_torchvision.classes) == sorted(hub_names) == sorted(label_of)
    expected = as_arrays(pixels_of(synthetic))
    seen: dict[int, int] = {}
    for row in of_the_hub:
        label = label_of[hub_names[row["label"]]]
        place = IPC * label + seen.setdefault(label, 0)
        seen[label] += 1
        assert np.array_equal(np.asarray(row["image"]), expected[place])
    assert seen == dict.fromkeys(range(len(HOSTILE)), IPC)


@pytest.mark.parametrize("form", ["parquet", "hub"])
@pytest.mark.parametrize("channels", [1, 3])
def test_parquet_is_that_of_the_hub(
    tmp_path: Path, make: Callable[..., SyntheticSet], monkeypatch: pytest.MonkeyPatch, form: str, channels: int
) -> None:
    synthetic = make(channels, soft=True, names=HOSTILE)
    folder = written(tmp_path / "out", form, synthetic)
    data = folder / "data" if form == "hub" else folder
    rows = load_offline(monkeypatch, tmp_path / "cache", "parquet", data_dir=str(data))
    assert rows.features["label"].names == text_names(HOSTILE)
    assert rows["label"][:] == default_order_labels(IPC, len(HOSTILE)).tolist()
    assert np.array_equal(np.array(rows["soft_label"][:], dtype=np.float32), synthetic.labels.numpy())
    pixels = np.stack([np.asarray(row["image"]) for row in rows])
    assert np.array_equal(pixels, as_arrays(pixels_of(synthetic)))
    (file,) = data.iterdir()
    assert json.loads(pq.read_schema(file).metadata[b"mdatm"]) == ABOUT


def test_a_hubs_folder_is_loaded_by_its_name(
    tmp_path: Path, make: Callable[..., SyntheticSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path / "out", "hub", make())
    rows = load_offline(monkeypatch, tmp_path / "cache", folder)
    assert rows.num_rows == 6 and rows.features["label"].names == ["owl", "ant", "bee"]


@pytest.mark.parametrize("as_floats", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_npz_is_numpys(tmp_path: Path, make: Callable[..., SyntheticSet], channels: int, as_floats: bool) -> None:
    synthetic = make(channels, soft=True, names=("$a$", "猫", "c" * 200))
    folder = written(tmp_path / "out", "npz", synthetic, as_floats=as_floats)
    with np.load(folder / "train.npz", allow_pickle=False) as arrays:
        expected = synthetic.images if as_floats else pixels_of(synthetic)
        assert np.array_equal(arrays["train_images"], as_arrays(expected))
        assert arrays["train_images"].dtype == (np.float32 if as_floats else np.uint8)
        assert arrays["train_labels"].tolist() == [0, 0, 1, 1, 2, 2]
        assert np.array_equal(arrays["train_soft_labels"], synthetic.labels.numpy())
        assert arrays["alpha"] == np.float32(0.25) and json.loads(str(arrays["about"])) == ABOUT
        assert arrays["class_names"].tolist() == ["$a$", "猫", "c" * 200]
        assert np.array_equal(arrays["mean"], np.array(synthetic.mean, dtype=np.float32))
        assert np.array_equal(arrays["std"], np.array(synthetic.std, dtype=np.float32))


def test_floats_in_parquet_are_the_images_bit_for_bit(
    tmp_path: Path, make: Callable[..., SyntheticSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    synthetic = make()
    folder = written(tmp_path / "out", "parquet", synthetic, as_floats=True)
    rows = load_offline(monkeypatch, tmp_path / "cache", "parquet", data_dir=str(folder)).with_format("torch")
    images: Any = rows["image"][:]
    assert torch.equal(images, synthetic.images)


def test_pt_is_the_challenges_with_the_soft_labels_beside_it(tmp_path: Path, make: Callable[..., SyntheticSet]) -> None:
    synthetic = make(soft=True)
    folder = written(tmp_path / "out", "pt", synthetic, as_floats=True)
    images, labels = read_challenge(folder / "train.pt", classes=3, channels=3, image_size=SIDE)
    assert torch.equal(images, synthetic.images) and torch.equal(labels, default_order_labels(IPC, 3))
    assert torch.equal(torch.load(folder / "soft_labels.pt", weights_only=True), synthetic.labels)
    assert json.loads((folder / "about.json").read_text()) == ABOUT


def test_a_folder_has_its_soft_labels_in_a_table(tmp_path: Path, make: Callable[..., SyntheticSet]) -> None:
    synthetic = make(soft=True)
    lines = (written(tmp_path / "out", "folder", synthetic) / "labels.csv").read_text().splitlines()
    assert lines[0] == "file,label,soft_label_0,soft_label_1,soft_label_2"
    assert [line.split(",")[:2] for line in lines[1:3]] == [["owl/00000.png", "0"], ["owl/00001.png", "0"]]
    soft = np.array([[float(value) for value in line.split(",")[2:]] for line in lines[1:]], dtype=np.float32)
    assert np.array_equal(soft, synthetic.labels.numpy())


def test_forms_that_cannot_be_are_refused_by_name() -> None:
    for form in FORMS:
        check_form(form, as_floats=form != "folder")
    with pytest.raises(ConfigError, match="one of folder, parquet, hub, npz, pt, not 'zip'"):
        check_form("zip", as_floats=False)
    with pytest.raises(ConfigError, match="a folder of PNG files has none"):
        check_form("folder", as_floats=True)
