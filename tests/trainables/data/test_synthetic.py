"""The two files of a synthetic set: a set is read back as written; other files are refused with a reason."""

import dataclasses
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainables.data.labels import default_order_labels
from trainables.data.synthetic import SyntheticSet, read_challenge, read_synthetic, write_challenge, write_synthetic
from trainables.errors import SyntheticSetError
from trainables.seeding import generator


def any_bytes(test: Callable[..., None]) -> Callable[..., None]:
    return settings(max_examples=50, deadline=None)(given(content=st.binary(max_size=200))(example(content=b"")(test)))


OTHERS = ("labels", "alpha", "displayable")
BARE = "must hold one bare float tensor .* of normalised images, not "
DIGITS = {"classes": 10, "channels": 1, "image_size": 8}


def random_images(count: int = 20, channels: int = 1, side: int = 8) -> Tensor:
    return torch.randn(count, channels, side, side, generator=generator("synthetic"))


def file_of(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file, to be changed and saved again."""
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata()), {name: file.get_tensor(name) for name in ("images", *OTHERS)}


def write_version_1(path: Path, written: SyntheticSet) -> None:
    """The same file as the first format had it: no displayable images."""
    write_synthetic(path, written)
    text, tensors = file_of(path)
    del tensors["displayable"], text["displayable"]
    save_file(tensors, path, metadata={**text, "format_version": "1"})


def synthetic_set(**changed: Any) -> SyntheticSet:
    fields = {
        "images": random_images(),
        "labels": default_order_labels(2, 10),
        "alpha": 0.0125,
        "dataset": "digits",
        "class_names": ("nought", "Ёж", 'a "quoted" name', *"3456789"),
        "mean": (0.1 + 0.2,),
        "std": (1 / 3,),
        "ipc": 2,
        "method": "mdatm",
        "config": {"N": 40, "lr_pixel": 1e3, "range_end": "exclusive", "nested": {"a": [1, None, True]}},
        "provenance": {"sweep": "s", "trial": "t", "seed": 0, "iteration": 150},
    }
    return SyntheticSet(**{**fields, **changed})


class TestSyntheticFile:
    def test_everything_comes_back(self, tmp_path: Path) -> None:
        written, path = synthetic_set(), tmp_path / "synthetic.safetensors"
        write_synthetic(path, written)
        fields = dataclasses.asdict(read_synthetic(path))
        for name, value in dataclasses.asdict(written).items():
            equal = torch.equal(fields[name], value) if isinstance(value, torch.Tensor) else fields[name] == value
            assert equal or name in ("alpha", "displayable")
        assert fields["images"].dtype == torch.float32
        assert fields["labels"].dtype == torch.int64
        assert fields["alpha"] == pytest.approx(0.0125, rel=1e-7)

    def test_soft_labels_come_back(self, tmp_path: Path) -> None:
        labels = torch.softmax(random_images(20)[:, 0, 0, :].repeat(1, 2)[:, :10], dim=1)
        write_synthetic(tmp_path / "set", synthetic_set(labels=labels))
        assert torch.equal(read_synthetic(tmp_path / "set").labels, labels)

    @pytest.mark.parametrize("write", [write_synthetic, write_version_1])
    def test_displayable_images_are_the_unnormalised_ones_clipped(
        self, tmp_path: Path, write: Callable[..., None]
    ) -> None:
        written = synthetic_set(images=random_images(20, 3), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
        write(tmp_path / "set", written)
        displayable = read_synthetic(tmp_path / "set").displayable
        assert displayable is not None
        assert displayable.dtype == torch.float32
        for channel in range(3):
            pixels = (written.images[:, channel].double() * written.std[channel] + written.mean[channel]).clip(0, 1)
            assert (displayable[:, channel] - pixels).abs().max() < 1e-6
        assert displayable.eq(0).any() and displayable.eq(1).any()  # some values were clipped

    def test_displayable_images_that_are_given_are_kept(self, tmp_path: Path) -> None:
        displayable = torch.rand(20, 1, 8, 8, generator=generator("displayable"))
        write_synthetic(tmp_path / "set", synthetic_set(displayable=displayable))
        read = read_synthetic(tmp_path / "set").displayable
        assert read is not None and torch.equal(read, displayable)

    @pytest.mark.parametrize(
        ("displayable", "message"),
        [
            (
                torch.zeros(20, 1, 8, 7),
                r"like its images, float32 of \[20, 1, 8, 8\], not torch.float32 of \[20, 1, 8, 7\]",
            ),
            (torch.zeros(20, 1, 8, 8, dtype=torch.uint8), "not torch.uint8"),
            (torch.full((20, 1, 8, 8), 1.01), r"displayable images in \[0, 1\]; clip them"),
            (torch.full((20, 1, 8, 8), -0.01), "clip them"),
            (torch.full((20, 1, 8, 8), float("nan")), "clip them"),
        ],
    )
    def test_displayable_images_that_cannot_be_shown_are_refused(
        self, tmp_path: Path, displayable: Any, message: str
    ) -> None:
        with pytest.raises(SyntheticSetError, match=message):
            write_synthetic(tmp_path / "set", synthetic_set(displayable=displayable))
        write_synthetic(tmp_path / "set", synthetic_set())
        text, tensors = file_of(tmp_path / "set")
        save_file({**tensors, "displayable": displayable}, tmp_path / "set", metadata=text)
        with pytest.raises(SyntheticSetError, match=message):
            read_synthetic(tmp_path / "set")

    def test_a_whitened_set_says_so_and_brings_its_own_displayable_images(self, tmp_path: Path) -> None:
        whitened = synthetic_set(config={"zca": True})
        with pytest.raises(SyntheticSetError, match="is whitened, so mean and std cannot show it: give displayable"):
            write_synthetic(tmp_path / "set", whitened)
        shown = torch.rand(20, 1, 8, 8, generator=generator("shown"))
        write_synthetic(tmp_path / "set", dataclasses.replace(whitened, displayable=shown))
        assert file_of(tmp_path / "set")[0]["images"] == "ZCA-whitened"
        read = read_synthetic(tmp_path / "set").displayable
        assert read is not None and torch.equal(read, shown)

    def test_a_normalisation_of_other_channels_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SyntheticSetError, match="a mean and a std for each of 1 channels, not 3 and 1"):
            write_synthetic(tmp_path / "set", synthetic_set(mean=(0.5, 0.5, 0.5)))

    def test_the_file_has_all_metadata_that_other_programs_need(self, tmp_path: Path) -> None:
        write_synthetic(tmp_path / "set", synthetic_set())
        with safe_open(tmp_path / "set", framework="pt") as file:
            text = file.metadata()
            assert sorted(file.keys()) == ["alpha", "displayable", "images", "labels"]
            assert file.get_tensor("alpha").dtype == torch.float32
        assert set(text) == {
            *("format_version", "dataset", "class_names", "mean", "std", "ipc", "method", "config", "provenance"),
            *("label_order", "images", "displayable"),
        }
        assert (text["format_version"], text["dataset"], text["ipc"]) == ("2", "digits", "2")
        assert text["label_order"] == "default: the label of image i is i // ipc"
        assert text["images"] == "normalised: (pixel in [0, 1] - mean) / std"
        assert json.loads(text["config"])["N"] == 40

    def test_images_that_are_a_view_are_written_as_they_look(self, tmp_path: Path) -> None:
        images = random_images().transpose(2, 3)
        write_synthetic(tmp_path / "set", synthetic_set(images=images))
        assert torch.equal(read_synthetic(tmp_path / "set").images, images)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_pixels_that_are_no_finite_numbers_are_refused(self, tmp_path: Path, value: Any) -> None:
        images = random_images()
        images[3, 0, 1, :2] = value
        message = r"set.* holds 2 pixels that are not finite numbers"
        with pytest.raises(SyntheticSetError, match=message):
            write_synthetic(tmp_path / "set", synthetic_set(images=images))
        write_synthetic(tmp_path / "set", synthetic_set())
        text, tensors = file_of(tmp_path / "set")
        save_file({**tensors, "images": images}, tmp_path / "set", metadata=text)
        with pytest.raises(SyntheticSetError, match=message):
            read_synthetic(tmp_path / "set")

    @pytest.mark.parametrize(
        ("metadata", "version"), [({"format_version": "3"}, "3"), ({"x": "y"}, "None"), (None, "None")]
    )
    def test_another_format_version_is_refused(self, tmp_path: Path, metadata: Any, version: str) -> None:
        save_file({"images": random_images()}, tmp_path / "set", metadata=metadata)
        with pytest.raises(SyntheticSetError, match=rf"set has format version {version}, this program reads 1 and 2$"):
            read_synthetic(tmp_path / "set")

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SyntheticSetError, match="nowhere cannot be read as safetensors"):
            read_synthetic(tmp_path / "nowhere")

    def test_a_truncated_file_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "set"
        write_synthetic(path, synthetic_set())
        whole = path.read_bytes()
        for size in range(0, len(whole), 101):
            path.write_bytes(whole[:size])
            with pytest.raises(SyntheticSetError, match="set cannot be read as safetensors"):
                read_synthetic(path)

    @any_bytes
    def test_any_bytes_are_refused(self, tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
        path = tmp_path_factory.getbasetemp() / "garbage"
        path.write_bytes(content)
        with pytest.raises(SyntheticSetError, match="garbage cannot be read as safetensors"):
            read_synthetic(path)

    @pytest.mark.parametrize("missing", ["images", *OTHERS, "dataset", "mean", "ipc", "config"])
    def test_a_set_that_lacks_something_is_refused(self, tmp_path: Path, missing: str) -> None:
        write_synthetic(tmp_path / "whole", synthetic_set())
        text, tensors = file_of(tmp_path / "whole")
        del (tensors if missing in tensors else text)[missing]
        save_file(tensors, tmp_path / "set", metadata=text)
        with pytest.raises(SyntheticSetError, match=rf"set .*{missing}"):
            read_synthetic(tmp_path / "set")

    @pytest.mark.parametrize(
        "changed",
        [
            {"ipc": 3},
            {"images": random_images(19)},
            {"labels": torch.zeros(20, 9)},
            {"images": random_images().double()},
        ],
        ids=["ipc", "length", "labels", "dtype"],
    )
    def test_a_set_that_contradicts_itself_is_refused(self, tmp_path: Path, changed: dict[str, Any]) -> None:
        with pytest.raises(SyntheticSetError, match="the set to be written must hold"):
            write_synthetic(tmp_path / "set", synthetic_set(**changed))
        assert not (tmp_path / "set").exists()
        write_synthetic(tmp_path / "set", synthetic_set())
        text, tensors = file_of(tmp_path / "set")
        text |= {key: str(value) for key, value in changed.items() if key == "ipc"}
        tensors |= {key: value for key, value in changed.items() if key != "ipc"}
        save_file(tensors, tmp_path / "set", metadata=text)
        with pytest.raises(SyntheticSetError, match="set must hold"):
            read_synthetic(tmp_path / "set")

    def test_a_set_that_cannot_be_written_leaves_the_old_one(self, tmp_path: Path) -> None:
        path = tmp_path / "set"
        write_synthetic(path, synthetic_set())
        before = path.read_bytes()
        with pytest.raises(SyntheticSetError, match="default order"):
            write_synthetic(path, synthetic_set(labels=torch.arange(20)))
        assert path.read_bytes() == before
        assert [entry.name for entry in tmp_path.iterdir()] == ["set"]


class TestChallengeFile:
    def test_comes_back_with_labels_in_default_order(self, tmp_path: Path) -> None:
        images = random_images(30)
        write_challenge(tmp_path / "set.pt", images)
        read, labels = read_challenge(tmp_path / "set.pt", **DIGITS)
        assert torch.equal(read, images)
        assert labels.tolist() == [index // 3 for index in range(30)]

    def test_is_one_bare_float_tensor_without_gradient(self, tmp_path: Path) -> None:
        write_challenge(tmp_path / "set.pt", random_images().double().requires_grad_().transpose(2, 3))
        read = torch.load(tmp_path / "set.pt", weights_only=True)
        assert type(read) is torch.Tensor
        assert (read.dtype, read.requires_grad, read.is_contiguous()) == (torch.float32, False, True)

    def test_a_slice_is_written_without_the_rest(self, tmp_path: Path) -> None:
        write_challenge(tmp_path / "part.pt", random_images(2000)[:20])
        write_challenge(tmp_path / "whole.pt", random_images(2000))
        assert (tmp_path / "part.pt").stat().st_size < 20_000 < (tmp_path / "whole.pt").stat().st_size

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_other_floats_are_read_as_float32(self, tmp_path: Path, dtype: torch.dtype) -> None:
        images = random_images().to(dtype)
        torch.save(images, tmp_path / "set.pt")
        read, _ = read_challenge(tmp_path / "set.pt", **DIGITS)
        assert read.dtype == torch.float32 and torch.equal(read, images.float())

    def test_a_parameter_is_read_without_its_gradient(self, tmp_path: Path) -> None:
        torch.save(torch.nn.Parameter(random_images()), tmp_path / "set.pt")
        assert not read_challenge(tmp_path / "set.pt", **DIGITS)[0].requires_grad

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (random_images(25), r"shape \[ipc·10, 1, 8, 8\], not \[25, 1, 8, 8\]"),
            (random_images(0), r"not \[0, 1, 8, 8\]"),
            (random_images(20, 3), r"not \[20, 3, 8, 8\]"),
            (random_images(20, 1, 9), r"not \[20, 1, 9, 9\]"),
            (random_images(20)[..., 0], r"not \[20, 1, 8\]"),
            (torch.tensor(1.0), r"not \[\]"),
            (
                random_images().to(torch.uint8),
                BARE + r"torch.uint8; normalise the pixels: \(pixel / 255 − mean\) / std$",
            ),
            (random_images().long(), BARE + "torch.int64$"),
            (random_images().to(torch.complex64), BARE + "torch.complex64"),
            (
                {"images_val": random_images(), "labels_val": 0},
                BARE + "dict with 'images_val', 'labels_val'; save the images'",
            ),
            (dict.fromkeys(range(5), 0), BARE + "dict with 5 keys; save"),
            ({}, BARE + "dict with no keys"),
            ((random_images(), torch.arange(20)), BARE + "tuple; save .* the label of image i is i // ipc$"),
            ([random_images()], BARE + "list; save"),
            (random_images().to_sparse(), BARE + "torch.sparse_coo; save images.to_dense"),
            (random_images(20, 3).permute(0, 2, 3, 1), r"not \[20, 8, 8, 3\]$"),
            (random_images().permute(0, 2, 3, 1), r"put the channels first: images.permute\(0, 3, 1, 2\)$"),
            (random_images().double() * 1e300, "not finite numbers"),
            (random_images() / 0, "not finite numbers"),
            (random_images().sub(float("nan")), "holds 1280 pixels that are not finite"),
        ],
        ids=lambda value: value[:40] if isinstance(value, str) else "",
    )
    def test_what_is_no_such_tensor_is_refused(self, tmp_path: Path, content: bytes, message: str) -> None:
        torch.save(content, tmp_path / "set.pt")
        with pytest.raises(SyntheticSetError, match=rf"set\.pt .*{message}"):
            read_challenge(tmp_path / "set.pt", **DIGITS)

    @pytest.mark.parametrize(
        "save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))]
    )
    def test_a_pickle_with_code_is_refused_and_not_run(self, tmp_path: Path, save: Callable[..., object]) -> None:
        save(Trap(tmp_path / "sprung"), tmp_path / "set.pt")
        with pytest.raises(SyntheticSetError, match=r"set\.pt cannot be read as a tensor") as caught:
            read_challenge(tmp_path / "set.pt", **DIGITS)
        assert not (tmp_path / "sprung").exists()
        assert "\n" not in str(caught.value)
        pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
        assert (tmp_path / "sprung").exists()  # the trap itself works

    def test_a_missing_file_and_another_archive_are_refused(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
            archive.writestr("a", "b")
        for name in ("nowhere", "other.zip"):
            with pytest.raises(SyntheticSetError, match=f"{name} cannot be read as a tensor"):
                read_challenge(tmp_path / name, **DIGITS)

    @any_bytes
    def test_any_bytes_are_refused(self, tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
        path = tmp_path_factory.getbasetemp() / "garbage"
        path.write_bytes(content)
        with pytest.raises(SyntheticSetError, match="garbage cannot be read as a tensor"):
            read_challenge(path, **DIGITS)


class Trap:
    """Unpickling one makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return (open, (str(self.path), "w"))
