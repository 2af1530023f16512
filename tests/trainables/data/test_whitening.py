"""ZCA whitening against closed forms, an independent implementation, and its file."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.paths import ROOT
from tests.support.pictures import prepare
from trainables.data import datasets, whitening
from trainables.data.datasets import ImageDataset
from trainables.errors import DatasetError
from trainables.machine import Limit, Machine


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    path = datasets.prepare("digits", cache=tmp_path_factory.mktemp("digits"), validation_share=0.25)
    return datasets.load(datasets.whiten(path), datasets.SPLITS)


def reference(images: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """ZCA from the singular values of the centred images themselves, float64: mean [d] and matrix [d, d]."""
    flat = images.reshape(len(images), -1).astype(np.float64) / levels
    mean = flat.mean(axis=0)
    _, singular, rows = np.linalg.svd(flat - mean, full_matrices=False)
    # Directions in which the images do not vary at all are scaled by eps alone.
    gains = 1 / np.sqrt(singular**2 / (len(flat) - 1) + whitening.EPS) - whitening.EPS**-0.5
    return mean, np.eye(flat.shape[1]) * whitening.EPS**-0.5 + (rows.T * gains) @ rows


class TestAgainstTheory:
    def test_the_covariance_is_as_computed_in_whole_numbers(self) -> None:
        # Extreme pixels, more rows than a block: only sums that round nothing come out right.
        images = np.random.default_rng(0).choice(np.array([0, 1, 254, 255], np.uint8), (2500, 3, 2, 2))
        flat = images.reshape(2500, -1).astype(np.int64)
        total, products = flat.sum(axis=0), flat.T @ flat
        expected = (2500 * products - np.outer(total, total)) / (2500 * 2499 * 255**2)
        mean, covariance = whitening.covariance(images, 255)
        np.testing.assert_allclose(mean, total / 2500 / 255, rtol=1e-15)
        np.testing.assert_allclose(covariance, expected, rtol=0, atol=1e-15)

    def test_the_sums_are_exact_in_whatever_blocks(self, digits: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
        images = np.random.default_rng(1).choice(np.array([0, 255], np.uint8), (3000, 1, 4, 4))
        images[:, 0, 0, 0] = 0  # every product of this pixel is the largest there is
        whole = whitening.covariance(images, 255)
        monkeypatch.setattr(whitening, "_EXACT_ROWS", 7)
        parts = whitening.covariance(images, 255)
        assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))

    def test_whitened_images_have_the_spectrum_of_the_formula(self, digits: ImageDataset) -> None:
        pixels = digits.split("train").images.reshape(-1, 64) / 16
        values, vectors = np.linalg.eigh(np.cov(pixels.T))
        flat = digits.normalized("train").double().flatten(1).numpy()
        np.testing.assert_allclose(flat.mean(axis=0), 0, atol=1e-6)
        covariance = np.cov(flat.T)
        np.testing.assert_allclose(covariance, (vectors * (values / (values + 0.1))) @ vectors.T, atol=1e-6)
        assert values.min() < 1e-12  # some pixels are never set: nothing is divided by their deviation
        assert np.linalg.eigvalsh(covariance).max() < 1

    @pytest.mark.parametrize("count", [1078, 20])
    def test_an_independent_implementation_agrees(self, digits: ImageDataset, count: int) -> None:
        images = digits.split("train").images[:count]
        mean, matrix = reference(images, 16)
        fitted = whitening.fit(images, 16)
        np.testing.assert_allclose(fitted.mean, mean, atol=1e-7)
        np.testing.assert_allclose(fitted.forward, matrix, atol=1e-6)
        np.testing.assert_allclose(fitted.inverse, np.linalg.inv(matrix), atol=1e-6)

    def test_colour_images_are_whitened_over_channels_and_places_alike(self) -> None:
        images = np.random.default_rng(2).integers(0, 256, (50, 3, 4, 4), dtype=np.uint8)
        mean, matrix = reference(images, 255)
        pixels = torch.from_numpy(images[:7]) / 255
        expected = ((pixels.flatten(1).double().numpy() - mean) @ matrix).reshape(7, 3, 4, 4)
        np.testing.assert_allclose(whitening.fit(images, 255).apply(pixels), expected, atol=1e-5)

    def test_one_image_has_no_covariance(self) -> None:
        with pytest.raises(DatasetError, match="needs 2 training images or more, not 1"):
            whitening.fit(np.zeros((1, 1, 2, 2), np.uint8), 255)


class TestDataset:
    def test_normalising_whitens_and_displaying_undoes_it(self, digits: ImageDataset) -> None:
        for split in datasets.SPLITS:
            pixels = digits.pixels(split)
            images = digits.normalized(split)
            assert images.dtype == torch.float32
            assert images.shape == pixels.shape
            assert torch.equal(images, digits.normalize(pixels))
            assert digits.whitening is not None
            assert torch.equal(images, digits.whitening.apply(pixels.float() / 16))
            np.testing.assert_allclose(digits.displayable(images), pixels / 16, atol=1e-5)
        assert digits.displayable(torch.full((1, 1, 8, 8), 99.0)).max() == 1

    def test_rows_are_whitened_alike_alone_and_together(self, digits: ImageDataset) -> None:
        together = digits.normalized("validation", range(9))
        alone = torch.cat([digits.normalized("validation", [row]) for row in range(9)])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)

    def test_pixels_splits_and_constants_stay_and_the_digest_does_not(self, digits: ImageDataset) -> None:
        plain = datasets.load(digits.path.with_name(digits.path.name.replace(".zca.safetensors", ".arrow")))
        assert plain.whitening is None
        assert digits.digest != plain.digest
        assert (digits.mean, digits.std, digits.class_names) == (plain.mean, plain.std, plain.class_names)
        assert torch.equal(digits.pixels("train"), plain.pixels("train"))

    def test_only_the_train_split_of_the_kept_classes_is_fitted(self, tmp_path: Path) -> None:
        path = datasets.prepare("digits", cache=tmp_path, validation_share=0.25, classes=3)
        dataset = datasets.load(datasets.whiten(path), datasets.SPLITS)
        mean, matrix = reference(dataset.split("train").images, 16)
        assert dataset.whitening is not None
        np.testing.assert_allclose(dataset.whitening.mean, mean, atol=1e-7)
        np.testing.assert_allclose(dataset.whitening.forward, matrix, atol=1e-6)
        assert dataset.classes == 3

    def test_another_process_finds_the_same_bits(self, digits: ImageDataset) -> None:
        code = (
            "import hashlib, sys; from pathlib import Path; from trainables.data import datasets, whitening; "
            "fitted = whitening.fit(datasets.load(Path(sys.argv[1])).split('train').images, 16); "
            "print(hashlib.sha256(fitted.forward.numpy().tobytes() + fitted.inverse.numpy().tobytes()).hexdigest())"
        )
        path = digits.path.with_name(digits.path.name.replace(".zca.safetensors", ".arrow"))
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True,
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert digits.whitening is not None
        here = digits.whitening.forward.numpy().tobytes() + digits.whitening.inverse.numpy().tobytes()
        assert done.stdout.strip() == hashlib.sha256(here).hexdigest()


class TestMemory:
    def test_what_does_not_fit_is_refused_with_figure_and_remedy(self) -> None:
        whitening.check_memory(1024, Limit(6 * 8 * 1024**2, "a test"))
        with pytest.raises(
            DatasetError,
            match=r"of 150,528 values needs 1,012\.9 GiB of memory, and only 24\.0 GiB may be taken \(a test\), enough "
            r"for 23,170 values: set zca=false or a smaller image_size",
        ):
            whitening.check_memory(224 * 224 * 3, Limit(24 * 2**30, "a test"))

    def test_nothing_is_fitted_then(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plain = prepare("digits", tmp_path).path
        monkeypatch.setattr(datasets, "Machine", lambda: Machine(free_bytes=6 * 8 * 64**2 - 1))
        with pytest.raises(DatasetError, match="whitening images of 64 values needs"):
            datasets.whiten(plain)
        assert list(plain.parent.iterdir()) == [plain]
        monkeypatch.undo()
        whitened = datasets.whiten(plain)
        monkeypatch.setattr(datasets, "Machine", lambda: Machine(free_bytes=0))
        assert datasets.whiten(plain) == whitened  # it is there: no memory is needed


class TestFile:
    def test_it_is_fitted_once_and_readable_by_all(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plain = prepare("digits", tmp_path).path
        first = datasets.whiten(plain)
        monkeypatch.setattr(whitening, "fit", None)
        assert datasets.whiten(plain) == first
        assert sorted(path.name for path in plain.parent.iterdir()) == sorted([plain.name, first.name])
        assert first.stat().st_mode == plain.stat().st_mode

    @pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc")
    def test_the_matrices_are_maps_of_the_file(self, digits: ImageDataset) -> None:
        maps = Path("/proc/self/maps").read_text()
        spans = [line.split()[0].split("-") for line in maps.splitlines() if line.endswith(str(digits.path))]
        assert digits.whitening is not None
        for matrix in (digits.whitening.forward, digits.whitening.inverse):
            assert any(int(first, 16) <= matrix.data_ptr() < int(last, 16) for first, last in spans)

    @pytest.mark.parametrize("keep", [0, 5, 1000, -1])
    def test_a_torn_file_is_refused(self, tmp_path: Path, keep: int) -> None:
        path = datasets.whiten(prepare("digits", tmp_path).path)
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(DatasetError, match=r"\.zca\.safetensors is truncated or not a whitening: delete it"):
            datasets.load(path)

    def test_a_missing_one_and_another_datasets_are_refused(self, tmp_path: Path) -> None:
        one = datasets.whiten(prepare("digits", tmp_path).path)
        other = datasets.whiten(prepare("digits", tmp_path, share=0.5).path)
        other.write_bytes(one.read_bytes())
        with pytest.raises(DatasetError, match=r"has dataset_digest \w+, not \w+: delete it"):
            datasets.load(other)
        one.unlink()
        with pytest.raises(DatasetError, match=r"\.zca\.safetensors is missing"):
            datasets.load(one)
        other.with_name(other.name.replace(".zca.safetensors", ".arrow")).unlink()
        with pytest.raises(DatasetError, match=r"\.arrow is missing"):
            datasets.load(other)

    @pytest.mark.parametrize("name", ["FORMAT_VERSION", "EPS"])
    def test_another_version_or_eps_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        path = datasets.whiten(prepare("digits", tmp_path).path)
        monkeypatch.setattr(whitening, name, 7)
        with pytest.raises(DatasetError, match=rf"has {name.lower()} .*, not 7: delete it"):
            datasets.load(path)
