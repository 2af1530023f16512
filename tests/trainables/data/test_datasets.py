"""Prepared datasets: the splits, the tensors, the first classes, the cache file."""

import ast
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.support.paths import ROOT
from tests.support.pictures import cifar10_parquet, picture, prepare, write_parquet
from trainables.data import catalog, datasets, preparation
from trainables.data.datasets import ImageDataset
from trainables.errors import DatasetError


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    path = datasets.prepare("digits", cache=tmp_path_factory.mktemp("digits"), validation_share=0.1)
    return datasets.load(path, datasets.SPLITS)


class TestSplits:
    def test_digits_have_the_sizes_of_the_catalog(self, digits: ImageDataset) -> None:
        facts = catalog.facts("digits")
        assert len(digits.split("train")) + len(digits.split("validation")) == facts.train_images
        assert len(digits.split("test")) == facts.test_images
        assert digits.split("train").images.shape[1:] == (1, 8, 8)
        assert (digits.classes, digits.channels, digits.image_size, digits.levels) == (10, 1, 8, 16)
        assert digits.class_names == tuple("0123456789")
        assert digits.augmentation == ()
        assert digits.split("train").images.max() == 16

    def test_the_three_splits_are_a_partition_of_the_published_images(self, digits: ImageDataset) -> None:
        from sklearn.datasets import load_digits

        rows = [image.tobytes() for split in datasets.SPLITS for image in digits.split(split).images]
        published = [image.tobytes() for image in load_digits().images.astype(np.uint8)]
        assert sorted(rows) == sorted(published)

    def test_validation_takes_its_share_of_every_class_to_rounding(self, digits: ImageDataset) -> None:
        train, validation = (np.bincount(digits.split(split).labels) for split in ("train", "validation"))
        assert validation.tolist() == [round(0.1 * count) for count in train + validation]

    def test_every_class_gives_and_keeps_one_whatever_the_share(self) -> None:
        labels = np.array([0, 0, 1, 1, 1, 2, 2] * 3)
        for share in (0.001, 0.999):
            held_out = preparation.validation_mask(labels, share)
            assert set(labels[held_out]) == set(labels[~held_out]) == {0, 1, 2}

    def test_a_class_with_one_training_image_is_refused(self) -> None:
        with pytest.raises(DatasetError, match="class 1 has 1"):
            preparation.validation_mask(np.array([0, 0, 1]), 0.5)

    def test_rows_keep_their_order(self, tmp_path: Path) -> None:
        train, test = cifar10_parquet(tmp_path / "data")
        dataset = prepare("cifar10", tmp_path, tmp_path / "data")
        held_out = preparation.validation_mask(np.tile(np.arange(10), 4), 0.25)
        assert np.array_equal(dataset.split("train").images, train[~held_out])
        assert np.array_equal(dataset.split("validation").images, train[held_out])
        assert np.array_equal(dataset.split("test").images, test)
        assert dataset.split("train").labels.tolist() == np.tile(np.arange(10), 4)[~held_out].tolist()

    def test_the_digest_is_the_same_everywhere_and_always(self, digits: ImageDataset) -> None:
        # Experts are addressed by it: if this fails, every stored expert is orphaned, so raise FORMAT_VERSION too.
        assert digits.digest == "668e81b8a50afabbd9e624ba6bf5f6d95743e19601a3dd86d1600b7cd195b9d0"

    def test_the_test_split_is_given_only_where_it_is_named(self, digits: ImageDataset) -> None:
        dataset = datasets.load(digits.path)
        assert tuple(dataset.splits) == ("train", "validation")
        with pytest.raises(DatasetError, match="'test' is not loaded, only train, validation"):
            dataset.normalized("test")
        with pytest.raises(DatasetError, match="splits are train, validation, test; not tset"):
            datasets.load(digits.path, ("tset",))

    @pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
    def test_a_share_out_of_range_is_refused(self, tmp_path: Path, share: Any) -> None:
        with pytest.raises(DatasetError, match="above 0 and below 1"):
            prepare("digits", tmp_path, share=share)


class TestFirstClasses:
    def test_every_split_is_the_whole_ones_rows_of_those_classes(self, tmp_path: Path) -> None:
        whole, first = prepare("digits", tmp_path), prepare("digits", tmp_path, classes=3)
        assert (first.classes, first.class_names) == (3, ("0", "1", "2"))
        for split in datasets.SPLITS:
            rows = np.flatnonzero(whole.split(split).labels < 3)
            assert np.array_equal(first.split(split).images, whole.split(split).images[rows])
            assert np.array_equal(first.split(split).labels, whole.split(split).labels[rows])
            assert len(first.split(split)) == len(rows) > 0
            assert first.split(split).digest != whole.split(split).digest

    def test_they_are_normalised_like_the_whole_and_addressed_apart(self, tmp_path: Path) -> None:
        some = [prepare("digits", tmp_path, classes=classes) for classes in (0, 2, 3)]
        assert len({dataset.digest for dataset in some}) == len({dataset.path for dataset in some}) == 3
        assert len({(dataset.mean, dataset.std, dataset.levels) for dataset in some}) == 1

    def test_all_classes_are_the_whole_dataset(self, tmp_path: Path) -> None:
        assert prepare("digits", tmp_path, classes=10).path == prepare("digits", tmp_path).path

    def test_they_are_written_once_and_nothing_is_decoded_for_them_again(self, tmp_path: Path) -> None:
        cifar10_parquet(tmp_path / "data")
        calls = []
        made = [
            prepare("cifar10", tmp_path, tmp_path / "data", classes=classes, progress=lambda *call: calls.append(call))
            for classes in (4, 4, 5, 0)
        ]
        assert [call for call in calls if call[0] == call[1]] == [(50, 50)]
        assert len(list((tmp_path / "cache").iterdir())) == 3
        assert made[0].path == made[1].path
        test = made[2].split("test")
        assert (len(test), test.labels.max()) == (5, 4)

    @pytest.mark.parametrize("classes", [-1, 1, 11])
    def test_other_numbers_are_refused_before_anything_is_decoded(self, tmp_path: Path, classes: int) -> None:
        with pytest.raises(
            DatasetError, match=rf"classes must be 0 \(all\) or 2 to 10 for digits, not {classes}: change"
        ):
            prepare("digits", tmp_path, classes=classes)
        assert not (tmp_path / "cache").exists()

    def test_the_catalog_scales_its_counts(self) -> None:
        facts = catalog.facts("tiny_imagenet")
        assert facts.first(0) == facts.first(200) == facts
        twenty = facts.first(20)
        assert (twenty.classes, twenty.train_images, twenty.test_images) == (20, 10_000, 1_000)
        assert (twenty.mean, twenty.image_size) == (facts.mean, facts.image_size)
        with pytest.raises(DatasetError, match="2 to 200 for tiny_imagenet, not 201"):
            facts.first(201)


class TestTensors:
    def test_normalisation_follows_the_formula(self, tmp_path: Path) -> None:
        cifar10_parquet(tmp_path / "data")
        dataset = prepare("cifar10", tmp_path, tmp_path / "data")
        facts = catalog.facts("cifar10")
        assert (dataset.mean, dataset.std) == (facts.mean, facts.std)
        rows = [5, 0, 5]
        pixels = dataset.split("train").images[rows].astype(np.float64) / 255
        assert facts.mean is not None and facts.std is not None
        expected = (pixels - np.reshape(facts.mean, (3, 1, 1))) / np.reshape(facts.std, (3, 1, 1))
        for index in (rows, np.array(rows), torch.tensor(rows)):
            images = dataset.normalized("train", index)
            assert images.dtype == torch.float32
            np.testing.assert_allclose(images, expected, atol=1e-5)
        assert dataset.labels("train", rows).tolist() == dataset.split("train").labels[rows].tolist()
        assert dataset.labels("train").dtype == torch.int64

    def test_bytes_are_sent_to_the_device_and_normalised_there(
        self, digits: ImageDataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given: list[torch.Tensor] = []
        normalize = ImageDataset.normalize

        def recorded(dataset: ImageDataset, pixels: torch.Tensor) -> torch.Tensor:
            given.append(pixels)
            return normalize(dataset, pixels)

        monkeypatch.setattr(ImageDataset, "normalize", recorded)
        images = digits.normalized("train", [3, 1, 2], "meta")
        assert (images.device.type, images.shape) == ("meta", (3, 1, 8, 8))
        (pixels,) = given
        assert (pixels.dtype, pixels.device.type) == (torch.uint8, "meta")

    def test_every_caller_in_the_product_names_the_device(self) -> None:
        """A whitening on a CPU core takes longer than the training step that it feeds."""
        calls = [
            (path.name, node.lineno, len(node.args))
            for path in (ROOT / "trainables").rglob("*.py")
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "normalized"
        ]
        assert len(calls) > 10
        assert [call for call in calls if call[2] != 3] == []

    def test_computed_constants_make_the_train_split_standard(self, digits: ImageDataset) -> None:
        images = digits.normalized("train").double()
        assert images.mean().item() == pytest.approx(0, abs=1e-6)
        assert images.std(correction=0).item() == pytest.approx(1, abs=1e-6)

    def test_displayable_is_the_inverse_and_clips(self, digits: ImageDataset) -> None:
        shown = digits.displayable(digits.normalized("test"))
        np.testing.assert_allclose(shown, digits.split("test").images / 16, atol=1e-6)
        assert digits.displayable(torch.full((1, 1, 8, 8), 99.0)).max() == 1
        assert digits.displayable(torch.full((1, 1, 8, 8), -99.0)).min() == 0

    def test_tensors_are_copies_and_the_map_is_read_only(self, digits: ImageDataset) -> None:
        before = digits.split("train").images.copy()
        pixels = digits.pixels("train")
        digits.normalize(pixels).zero_()
        assert np.array_equal(pixels, before)
        pixels.zero_()
        digits.normalized("train").zero_()
        digits.labels("train").fill_(3)
        assert np.array_equal(digits.split("train").images, before)
        with pytest.raises(ValueError, match="read-only"):
            digits.split("train").images[0] = 0
        with pytest.raises(ValueError, match="read-only"):
            digits.split("train").labels[0] = 0


class TestCache:
    def test_a_second_call_decodes_nothing(self, tmp_path: Path) -> None:
        cifar10_parquet(tmp_path / "data")
        calls = []
        options: dict[str, Any] = {"cache": tmp_path / "cache", "data": tmp_path / "data", "validation_share": 0.25}
        first = datasets.prepare("cifar10", **options, progress=lambda done, total: calls.append((done, total)))
        assert calls[-1] == (50, 50)
        assert calls == sorted(set(calls))
        written = first.stat().st_mtime_ns
        calls.clear()
        assert datasets.prepare("cifar10", **options, progress=lambda *call: calls.append(call)) == first
        assert not calls
        assert first.stat().st_mtime_ns == written

    def test_a_touched_source_is_decoded_again_to_the_same_content(self, tmp_path: Path) -> None:
        cifar10_parquet(tmp_path / "data")
        first = prepare("cifar10", tmp_path, tmp_path / "data")
        (tmp_path / "data" / "train-00000-of-00001.parquet").touch()
        second = prepare("cifar10", tmp_path, tmp_path / "data")
        assert first.path != second.path
        assert first.digest == second.digest

    def test_the_folder_may_move(self, tmp_path: Path) -> None:
        cifar10_parquet(tmp_path / "data")
        first = prepare("cifar10", tmp_path, tmp_path / "data")
        (tmp_path / "data").rename(tmp_path / "elsewhere")
        assert prepare("cifar10", tmp_path, tmp_path / "elsewhere").path == first.path

    def test_content_and_share_change_the_digest(self, tmp_path: Path, digits: ImageDataset) -> None:
        assert prepare("digits", tmp_path, share=0.2).digest != digits.digest
        cifar10_parquet(tmp_path / "data")
        first = prepare("cifar10", tmp_path, tmp_path / "data")
        labels = list(range(10))
        test = tmp_path / "data" / "test-00000-of-00001.parquet"
        write_parquet(test, [picture(label, 32, 77) for label in labels], labels)
        second = prepare("cifar10", tmp_path, tmp_path / "data")
        assert first.digest != second.digest
        assert first.split("train").digest == second.split("train").digest
        assert first.split("test").digest != second.split("test").digest

    @pytest.mark.parametrize("keep", [0, 5, 1000, -1])
    def test_a_torn_file_is_refused(self, tmp_path: Path, digits: ImageDataset, keep: int) -> None:
        torn = tmp_path / "torn.arrow"
        torn.write_bytes(digits.path.read_bytes()[:keep])
        with pytest.raises(DatasetError, match=r"torn\.arrow is truncated or not a prepared dataset: delete it"):
            datasets.load(torn)

    def test_other_files_and_versions_are_refused(self, tmp_path: Path) -> None:
        other = tmp_path / "other.arrow"
        other.write_bytes(b"no Arrow file at all, but long enough to have a footer")
        with pytest.raises(DatasetError, match="truncated or not a prepared dataset"):
            datasets.load(other)
        for metadata, message in (
            ({}, "not a prepared dataset"),
            ({"format_version": "99"}, "format version 99, not 1"),
        ):
            with pa.OSFile(str(other), "wb") as file, pa.ipc.new_file(file, pa.schema([], metadata=metadata)):
                pass
            with pytest.raises(DatasetError, match=f"{message}: delete it"):
                datasets.load(other)
        with pytest.raises(DatasetError, match=r"gone\.arrow is missing"):
            datasets.load(tmp_path / "gone.arrow")

    def test_a_crash_while_writing_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def crash(descriptor: Any) -> None:
            raise OSError("disk full")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", crash)
            with pytest.raises(OSError, match="disk full"):
                prepare("digits", tmp_path)
        assert list(tmp_path.iterdir()) == []
        assert prepare("digits", tmp_path).name == "digits"

    def test_preparing_twice_at_once_makes_one_whole_file(self, tmp_path: Path) -> None:
        cifar10_parquet(tmp_path / "data")
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(lambda _: prepare("cifar10", tmp_path, tmp_path / "data"), range(4)))
        assert len({dataset.digest for dataset in made}) == 1
        assert [path.name for path in (tmp_path / "cache").iterdir()] == [made[0].path.name]

    def test_loading_imports_no_reader_and_no_pandas(self, digits: ImageDataset) -> None:
        code = (
            "import sys; from pathlib import Path; from trainables.data import datasets; "
            "datasets.load(Path(sys.argv[1])).normalized('train', [0]); "
            "print([name for name in ('pandas', 'PIL', 'torchvision', 'sklearn', 'ray') if name in sys.modules])"
        )
        command = [sys.executable, "-c", code, str(digits.path)]
        root = ROOT
        assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout.strip() == "[]"
