"""Folders of one's own images: classes and rows of torchvision's ImageFolder; what is left out, named or refused."""

import os
from pathlib import Path

import numpy as np
import pytest
import torchvision

from tests.support.pictures import encode, image_folder, picture, prepare
from trainables.config.reading import Reading
from trainables.data.published import find
from trainables.data.source import FoundSplit, Source
from trainables.errors import DatasetError


def classes_in(folder: Path, *names: str, images: int = 3) -> None:
    """Put images into a folder for each class."""
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(images):
            (folder / name / f"{number}.png").write_bytes(encode(picture(20 * label, 12, number)))


def loose(folder: Path, images: int = 2) -> None:
    """Put images side by side into a folder."""
    folder.mkdir(parents=True)
    for number in range(images):
        (folder / f"{number}.png").write_bytes(encode(picture(0, 12, number)))


def paths(split: FoundSplit) -> list[str]:
    return [str(each.content) for each in split.pictures()]


def names(source: Source) -> tuple[str, ...]:
    return source.open().class_names


class TestHidden:
    def test_what_systems_leave_behind_is_left_out_and_counted(self, tmp_path: Path) -> None:
        image_folder(tmp_path / "data")
        expected = torchvision.datasets.ImageFolder(str(tmp_path / "data" / "train"))
        ant = tmp_path / "data" / "train" / "ant"
        for name in ("._0.png", ".hidden.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
            (ant / name).write_bytes(b"no image")
        for folder in (
            ant / ".ipynb_checkpoints",
            tmp_path / "data" / "train" / ".git",
            tmp_path / "data" / "__MACOSX",
        ):
            classes_in(folder, "ant", "cow")
        (ant / "notes.txt").write_text("no image")
        source = find("own", tmp_path / "data")
        assert names(source) == tuple(expected.classes)
        assert paths(source.open().train) == [path for path, _ in expected.samples]
        assert source.open().train.labels.tolist() == expected.targets
        assert source.findings.skipped == {"hidden": 8, "not an image": 1}

    def test_images_in_no_class_are_counted(self, tmp_path: Path) -> None:
        image_folder(tmp_path / "data")
        (tmp_path / "data" / "train" / "loose.png").write_bytes(b"in no class")
        (tmp_path / "data" / "cover.png").write_bytes(b"in no split")
        assert find("own", tmp_path / "data").findings.skipped == {"in no class": 2}


class TestLinks:
    def test_a_link_to_a_folder_is_followed_as_image_folder_does(self, tmp_path: Path) -> None:
        classes_in(tmp_path / "data" / "train", "cat", "dog")
        classes_in(tmp_path / "elsewhere", "cat", "more", "bird")
        (tmp_path / "data" / "train" / "cat" / "linked").symlink_to(tmp_path / "elsewhere" / "more")
        (tmp_path / "data" / "train" / "bird").symlink_to(tmp_path / "elsewhere" / "bird")
        (tmp_path / "data" / "test").symlink_to(tmp_path / "data" / "train")
        expected = torchvision.datasets.ImageFolder(str(tmp_path / "data" / "train"))
        found = find("own", tmp_path / "data").open()
        assert found.class_names == tuple(expected.classes) == ("bird", "cat", "dog")
        assert paths(found.train) == [path for path, _ in expected.samples]
        assert len(found.train.labels) == len(found.test.labels) == 12

    def test_loops_end(self, tmp_path: Path) -> None:
        classes_in(tmp_path / "data" / "train", "cat", "dog")
        classes_in(tmp_path / "data" / "test", "cat", "dog")
        train = tmp_path / "data" / "train"
        (train / "cat" / "again").symlink_to(train)
        (train / "dog" / "cat").symlink_to(train / "cat")  # whose link leads to a folder above it
        (train / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
        source = find("own", tmp_path / "data")
        assert source.open().train.labels.tolist() == [0] * 3 + [1] * 6
        assert source.findings.skipped == {
            "a link to a folder that contains it": 2, "a broken link or no regular file": 1,
        }  # fmt: skip


class TestNames:
    def test_a_name_that_is_not_utf_8_works(self, tmp_path: Path) -> None:
        image_folder(tmp_path / "data")
        before = find("own", tmp_path / "data").fingerprint
        for split in ("train", "test"):
            place = os.fsencode(tmp_path / "data" / split)
            os.rename(place + b"/cow", place + b"/caf\xe9")  # noqa: PTH104  # bytes
            os.rename(place + b"/caf\xe9/0.png", place + b"/caf\xe9/\xff.png")  # noqa: PTH104
        expected = torchvision.datasets.ImageFolder(str(tmp_path / "data" / "test"))
        dataset = prepare("own", tmp_path, tmp_path / "data")
        assert dataset.class_names == ("Bee", "ant", "caf\\xe9")
        images = np.stack([np.asarray(image) for image, _ in expected]).transpose(0, 3, 1, 2)
        assert np.array_equal(dataset.split("test").images, images)
        assert find("own", tmp_path / "data").fingerprint != before

    def test_names_in_any_script(self, tmp_path: Path) -> None:
        classes = ["$0_to_$10", "a|b<c>", "chat noir", "\u0642\u0637", "\u732b", "\U0001f408", "line\nbreak", "x" * 200]
        classes_in(tmp_path / "data", *classes)
        found = find("own", tmp_path / "data").open()
        assert found.class_names == tuple(sorted(classes))
        assert not any("\n" in each.where for each in found.train.pictures())


class TestWrappers:
    @pytest.mark.parametrize(
        ("train", "test", "said"),
        [
            ("train/images", "test/images", ["train holds only", "test holds only"]),
            ("DATASET/train", "DATASET/test", ["data holds only"]),
            ("a/b/train/images", "a/b/test", ["data holds only", "train holds only"]),
        ],
    )
    def test_a_single_folder_around_is_looked_through_and_named(
        self, tmp_path: Path, train: str, test: str, said: list[str]
    ) -> None:
        classes_in(tmp_path / "data" / train, "cat", "dog")
        classes_in(tmp_path / "data" / test, "cat", "dog", images=2)
        source = find("own", tmp_path / "data")
        assert names(source) == ("cat", "dog")
        assert (source.facts.train_images, source.facts.test_images) == (6, 4)
        assert [note for note in source.findings.notes if " holds only " in note] == list(source.findings.notes)
        assert [text in note for text, note in zip(said, source.findings.notes, strict=True)] == [True] * len(said)
        plain = find("own", (tmp_path / "data" / train).parent if train.startswith("DATASET") else tmp_path / "data")
        assert paths(plain.open().train) == paths(source.open().train)

    @pytest.mark.parametrize("train", ["train", "train/images", "images/train"])
    def test_one_class_is_refused_with_what_was_found(self, tmp_path: Path, train: str) -> None:
        classes_in(tmp_path / "data" / train, "cat")
        classes_in(tmp_path / "data" / train.replace("train", "test"), "cat")
        with pytest.raises(DatasetError, match=rf"two classes, but .*/data/{train} has only class 'cat'"):
            find("own", tmp_path / "data")

    def test_one_folder_of_images_is_refused(self, tmp_path: Path) -> None:
        loose(tmp_path / "data")
        with pytest.raises(DatasetError, match=r"2 images in no class folder: put them into .*/data/CLASS"):
            find("own", tmp_path / "data")

    def test_several_datasets_are_refused(self, tmp_path: Path) -> None:
        for name in ("one", "two"):
            classes_in(tmp_path / "data" / name / "train", "cat", "dog")
        with pytest.raises(
            DatasetError, match=r"one has a train split itself: give --data one dataset, such as .*data/one"
        ):
            find("own", tmp_path / "data")

    def test_splits_inside_of_classes_are_refused(self, tmp_path: Path) -> None:
        for name in ("cat", "dog"):
            classes_in(tmp_path / "data" / name, "train", "test")
        with pytest.raises(DatasetError, match=r"cat has folders of splits, but a class is inside a split: move its"):
            find("own", tmp_path / "data")


class TestSplits:
    @pytest.mark.parametrize("train", ["train", "Training"])
    @pytest.mark.parametrize(("test", "split"), [("test", "test"), ("testing", "test"), ("val", "validation"),
                                                 ("valid", "validation"), ("VALIDATION", "validation")])  # fmt: skip
    def test_what_they_may_be_called(self, tmp_path: Path, train: str, test: str, split: str) -> None:
        classes_in(tmp_path / "data" / train, "cat", "dog")
        classes_in(tmp_path / "data" / test, "cat", "dog", images=1)
        source = find("own", tmp_path / "data")
        assert source.findings.test_from == split
        assert (source.facts.train_images, source.facts.test_images) == (6, 2)
        assert len(source.findings.notes) == (split == "validation")

    def test_a_class_may_be_called_train(self, tmp_path: Path) -> None:
        classes_in(tmp_path / "data", "car", "plane", "train", images=5)
        assert names(find("own", tmp_path / "data")) == ("car", "plane", "train")

    def test_two_folders_for_one_split_are_refused(self, tmp_path: Path) -> None:
        for split in ("train", "val", "valid"):
            classes_in(tmp_path / "data" / split, "cat", "dog")
        with pytest.raises(DatasetError, match="two validation splits, val and valid: move one away"):
            find("own", tmp_path / "data")

    def test_no_train_split_is_refused(self, tmp_path: Path) -> None:
        for split in ("test", "val"):
            classes_in(tmp_path / "data" / split, "cat", "dog")
        with pytest.raises(DatasetError, match="has no train split, only validation and test"):
            find("own", tmp_path / "data")

    @pytest.mark.parametrize("unlabelled", ["test", "test/images"])
    def test_a_test_split_without_classes_gives_way_to_the_validation_split(
        self, tmp_path: Path, unlabelled: str
    ) -> None:
        for split in ("train", "val"):
            classes_in(tmp_path / "data" / split, "cat", "dog")
        loose(tmp_path / "data" / unlabelled)
        source = find("own", tmp_path / "data")
        assert source.findings.test_from == "validation"
        assert any("test has no labels" in note or "images has no labels" in note for note in source.findings.notes)
        with pytest.raises(DatasetError, match=r"test_split=test, but .* has no labels: choose another split"):
            find("own", tmp_path / "data", Reading(test_split="test"))

    def test_the_split_is_chosen(self, tmp_path: Path) -> None:
        for split, images in (("train", 4), ("val", 2), ("test", 3)):
            classes_in(tmp_path / "data" / split, "cat", "dog", images=images)
        by_itself, chosen = (
            find("own", tmp_path / "data", Reading(test_split=split)) for split in ("auto", "validation")
        )
        assert (by_itself.facts.test_images, chosen.facts.test_images) == (6, 4)
        assert by_itself.fingerprint != chosen.fingerprint
        assert "validation split of the files is not used" in by_itself.findings.notes[0]
        assert "test split of the files is not used" in chosen.findings.notes[1]

    def test_a_split_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        image_folder(tmp_path / "data")
        with pytest.raises(
            DatasetError, match=r"test_split=validation, but .* has no validation split, only train and test: leave"
        ):
            find("own", tmp_path / "data", Reading(test_split="validation"))


class TestClasses:
    def test_a_class_without_test_images_is_noted(self, tmp_path: Path) -> None:
        classes_in(tmp_path / "data" / "train", "cat", "cow", "dog")
        classes_in(tmp_path / "data" / "test", "cat", "dog")
        source = find("own", tmp_path / "data")
        assert source.open().test.labels.tolist() == [0, 0, 0, 2, 2, 2]
        assert "class 'cow' has no test images" in source.findings.notes[0]

    def test_a_class_without_training_images_is_refused(self, tmp_path: Path) -> None:
        image_folder(tmp_path / "data")
        (tmp_path / "data" / "train" / "dog").mkdir()
        with pytest.raises(
            DatasetError, match=r"every class needs training images, but .*train has none of class 'dog'"
        ):
            find("own", tmp_path / "data")

    def test_a_class_of_the_test_split_alone_is_refused(self, tmp_path: Path) -> None:
        image_folder(tmp_path / "data")
        (tmp_path / "data" / "test" / "cow").rename(tmp_path / "data" / "test" / "cat")
        with pytest.raises(DatasetError, match=r"test has class 'cat', of which .*train has no image"):
            find("own", tmp_path / "data")

    def test_a_class_with_one_image_is_refused(self, tmp_path: Path) -> None:
        image_folder(tmp_path / "data")
        for number in (1, 2, 3):
            (tmp_path / "data" / "train" / "cow" / f"{number}.png").unlink()
        with pytest.raises(
            DatasetError, match=r"2 training images, one to validate on, but class 'cow' of .* has fewer: add"
        ):
            find("own", tmp_path / "data")
