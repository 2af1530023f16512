"""The test split that is carved out of train: its shares, that it is the same again, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.pictures import picture, prepare, write_parquet
from trainables.config.reading import Reading
from trainables.data.preparation import validation_mask
from trainables.data.published import find
from trainables.data.splits import split_in
from trainables.data.strata import stratified_mask
from trainables.errors import ConfigError, DatasetError


@given(
    counts=st.lists(st.integers(3, 40), min_size=2, max_size=6),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32),
)
def test_every_class_gives_its_rounded_share_and_keeps_some(counts: list[int], share: float, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    mask = stratified_mask(labels, share, seed, kept=2)
    given_away = np.bincount(labels[mask], minlength=len(counts)).tolist()
    assert given_away == [min(max(1, round(share * count)), count - 2) for count in counts]


def test_it_is_the_scheme_of_the_validation_split() -> None:
    labels = np.random.default_rng(0).integers(0, 5, 200)
    keys = np.random.PCG64(20240930).random_raw(200)
    expected = {
        row for label in range(5)
        for row in sorted(np.flatnonzero(labels == label), key=lambda row: keys[row])[
            : round(0.3 * int((labels == label).sum()))
        ]
    }  # fmt: skip
    assert set(np.flatnonzero(validation_mask(labels, 0.3)).tolist()) == expected


class TestCarved:
    def write(self, folder: Path, images: int = 10) -> None:
        labels = [label for _ in range(images) for label in (0, 1)]
        pictures = [picture(60 * label, 8, seed) for seed, label in enumerate(labels)]
        write_parquet(folder / "train.parquet", pictures, labels)

    def test_images_and_labels_stay_together_and_none_is_in_both(self, tmp_path: Path) -> None:
        self.write(tmp_path / "data")
        dataset = prepare("own", tmp_path, tmp_path / "data")
        test, rest = dataset.split("test"), [dataset.split(name) for name in ("train", "validation")]
        assert np.bincount(test.labels).tolist() == [2, 2]
        for split in (test, *rest):
            assert ((split.images.mean(axis=(1, 2, 3)) > 50) == split.labels).all()
        contents = [image.tobytes() for split in (test, *rest) for image in split.images]
        assert len(set(contents)) == len(contents) == 20

    def test_the_same_again_and_another_with_another_share(self, tmp_path: Path) -> None:
        self.write(tmp_path / "data")
        first, again, more = (find("own", tmp_path / "data", Reading(test_share=share)) for share in (0.2, 0.2, 0.5))
        rows = [[each.where for each in source.open().test.pictures()] for source in (first, again, more)]
        assert rows[0] == rows[1] and set(rows[0]) < set(rows[2])
        assert first.fingerprint == again.fingerprint != more.fingerprint
        assert (more.facts.train_images, more.facts.test_images) == (10, 10)
        assert first.findings.test_from == "carved from train"
        assert "0.2 of each class's training images became it (test_share)" in first.findings.notes[0]

    def test_a_class_with_too_few_images_is_named(self, tmp_path: Path) -> None:
        self.write(tmp_path / "data", images=2)
        with pytest.raises(
            DatasetError, match=r"3 training images, as the files have no test split: .* classes '0', '1' of"
        ):
            find("own", tmp_path / "data")

    @pytest.mark.parametrize("share", [0, 0.51, -0.1, float("nan")])
    def test_a_share_that_is_none_is_refused(self, share: float) -> None:
        with pytest.raises(ConfigError, match=r"test_share must be larger than 0 and at most 0.5, not"):
            Reading(test_share=share)


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train-00000-of-00004.parquet", "train"), ("data/train-00000-of-00004-0123abc.parquet", "train"),
        ("default/train/0000.parquet", "train"), ("default/partial-train/0000.parquet", "train"),
        ("plain/valid/0001.parquet", "validation"), ("test.parquet", "test"), ("train/test-0.parquet", "test"),
        ("my_training_set.parquet", "train"), ("0000.parquet", None), ("trainables/contest.parquet", None),
    ],
)  # fmt: skip
def test_the_split_that_a_path_names(path: str, split: str | None) -> None:
    assert split_in(Path(path)) == split
