"""Every layout in which datasets are published, on small generated files, and the messages for wrong files."""

import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision

from tests.support.paths import ROOT
from tests.support.pictures import (
    WNIDS,
    cifar10_parquet,
    encode,
    image_folder,
    picture,
    prepare,
    tiny_folder,
    write_parquet,
)
from trainables.config.reading import Reading
from trainables.data import augmentation, catalog, datasets, preparation
from trainables.data import published as sources
from trainables.errors import DatasetError


class TestParquet:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"image": "img", "label": "labels", "struct": False},
            {"image": "img", "label": "fine_label"},
        ],
        ids=["hub", "binary", "cifar100"],
    )
    def test_column_conventions(self, tmp_path: Path, options: dict[str, Any]) -> None:
        _, test = cifar10_parquet(tmp_path / "data", **options)
        dataset = prepare("cifar10", tmp_path, tmp_path / "data")
        assert np.array_equal(dataset.split("test").images, test)
        assert dataset.class_names[3] == "class 3"

    def test_class_names_from_either_metadata(self, tmp_path: Path) -> None:
        names = [f"thing {label}" for label in range(10)]
        hub = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        for folder, metadata in (("a", {"class_names": ",".join(names)}), ("b", {"huggingface": json.dumps(hub)})):
            cifar10_parquet(tmp_path / folder, metadata=metadata)
            assert prepare("cifar10", tmp_path, tmp_path / folder).class_names == tuple(names)

    def test_files_that_number_the_classes_differently_are_matched_by_name(self, tmp_path: Path) -> None:
        names = [f"thing {label}" for label in range(10)]
        cifar10_parquet(tmp_path / "data", metadata={"class_names": ",".join(names)})
        pictures = [picture(label, 32) for label in range(10)]
        test = tmp_path / "data" / "test-00000-of-00001.parquet"
        write_parquet(test, pictures, range(10), metadata={"class_names": ",".join(reversed(names))})
        dataset = prepare("cifar10", tmp_path, tmp_path / "data")
        assert dataset.class_names == tuple(names)
        assert dataset.split("test").labels.tolist() == list(reversed(range(10)))
        write_parquet(test, pictures, range(10), metadata={"class_names": ",".join(["other", *names[1:]])})
        with pytest.raises(DatasetError, match="names other classes than the first file: is it of another dataset"):
            prepare("cifar10", tmp_path, tmp_path / "data")

    @pytest.mark.parametrize("layout", ["plain_text/{split}-00000-of-00001.parquet", "plain_text/{split}/0000.parquet"])
    def test_the_hubs_layouts(self, tmp_path: Path, layout: str) -> None:
        _, test = cifar10_parquet(tmp_path / "made")
        for split in ("train", "test"):
            file = tmp_path / "data" / layout.format(split=split)
            file.parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "made" / f"{split}-00000-of-00001.parquet").rename(file)
        assert np.array_equal(prepare("cifar10", tmp_path, tmp_path / "data").split("test").images, test)

    def test_a_part_is_counted_as_what_it_is(self, tmp_path: Path) -> None:
        cifar10_parquet(tmp_path / "data")
        facts = sources.find("cifar10", tmp_path / "data").facts
        assert (facts.train_images, facts.test_images) == (40, 10)
        assert facts.mean == catalog.facts("cifar10").mean

    def test_another_test_split_cannot_be_chosen(self, tmp_path: Path) -> None:
        cifar10_parquet(tmp_path / "data")
        assert sources.find("cifar10", tmp_path / "data", Reading(test_split="test")).findings.test_from == "test"
        with pytest.raises(
            DatasetError, match="test_split=validation cannot be chosen for cifar10, whose test split is"
        ):
            sources.find("cifar10", tmp_path / "data", Reading(test_split="validation"))

    def test_the_validation_files_serve_as_test_split_where_there_is_no_test(self, tmp_path: Path) -> None:
        train, test = cifar10_parquet(tmp_path / "data")
        test_file = tmp_path / "data" / "test-00000-of-00001.parquet"
        test_file.rename(tmp_path / "data" / "valid-00000-of-00001.parquet")
        dataset = prepare("cifar10", tmp_path, tmp_path / "data")
        assert np.array_equal(dataset.split("test").images, test)
        assert len(dataset.split("train")) + len(dataset.split("validation")) == len(train)

    def test_several_files_are_read_in_order_and_must_be_complete(self, tmp_path: Path) -> None:
        labels = [label % 10 for label in range(2 * 2500)]
        pictures = [encode(picture(label, 32, label)) for label in range(10)]
        for shard in (1, 0):
            part = labels[shard * 2500 : shard * 2500 + 2500]
            file = tmp_path / "data" / f"train-0000{shard}-of-00002.parquet"
            write_parquet(file, [pictures[label] for label in part], part)
        write_parquet(tmp_path / "data" / "test.parquet", pictures, range(10))
        dataset = prepare("cifar10", tmp_path, tmp_path / "data", splits=("train",))
        expected = np.stack([picture(label, 32, label).transpose(2, 0, 1) for label in range(10)])
        split = dataset.split("train")
        assert np.array_equal(split.images, expected[split.labels])
        file.rename(file.with_suffix(".bak"))
        with pytest.raises(DatasetError, match="must hold all the 2 files"):
            prepare("cifar10", tmp_path, tmp_path / "data")

    def test_any_parquet_of_square_images(self, tmp_path: Path) -> None:
        labels = [label for _ in range(5) for label in range(3)]
        pictures = [picture(20 * label, 12, seed, 1 if seed < 3 else 3) for seed, label in enumerate(labels)]
        for split in ("train", "test"):
            write_parquet(tmp_path / "data" / f"{split}.parquet", pictures, labels)
        dataset = prepare("parquet", tmp_path, tmp_path / "data")
        assert (dataset.classes, dataset.channels, dataset.image_size) == (3, 3, 12)
        assert dataset.augmentation == catalog.ALL_FAMILIES
        pixels = dataset.split("train").images / 255
        np.testing.assert_allclose(dataset.mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-12)
        np.testing.assert_allclose(dataset.std, pixels.std(axis=(0, 2, 3)), rtol=1e-9)
        assert np.array_equal(dataset.split("test").images[0], np.stack([pictures[0]] * 3))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"image": "photo"}, "has no column image or img, only photo, label"),
            ({"label": "class"}, "has no column label or labels or fine_label"),
            ({"metadata": {"class_names": "a,b"}}, "names 2 classes, not 10"),
            ({"metadata": {"class_names": ",".join(reversed(WNIDS[:10]))}}, "out of order"),
        ],
    )
    def test_wrong_columns_and_names(self, tmp_path: Path, options: dict[str, Any], message: str) -> None:
        cifar10_parquet(tmp_path / "data", **options)
        with pytest.raises(DatasetError, match=message):
            prepare("cifar10", tmp_path, tmp_path / "data")

    @pytest.mark.parametrize(
        ("item", "label", "message"),
        [
            (picture(0, 28), 0, r"32 × 32 pixels, but .*test.*parquet row 3 has 28 × 28 .*--set image_size=32"),
            (encode(np.zeros((32, 32), np.float32), "TIFF"), 0, r"row 3 cannot be decoded as an image \(mode F"),
            (b"no image", 0, "row 3 cannot be decoded as an image"),
            (
                encode(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))[:300],
                0,
                "row 3 cannot be decoded",
            ),
            (None, 0, "row 3 cannot be decoded as an image"),
            (picture(0, 32), 10, "labels must be 0 to 9, but .*test.*parquet has 10"),
            (picture(0, 32), -1, "labels must be 0 to 9, but .*test.*parquet has -1"),
            (picture(0, 32), None, "must hold one integer per row"),
            (picture(0, 32), 0, "every class must occur, but .*test.*parquet has none of class 3"),
        ],
        ids=["size", "floats", "no image", "truncated", "null", "above", "below", "no label", "class missing"],
    )
    def test_a_wrong_row(self, tmp_path: Path, item: Any, label: Any, message: str) -> None:
        cifar10_parquet(tmp_path / "data")
        pictures, labels = [picture(label, 32) for label in range(10)], list(range(10))
        pictures[3], labels[3] = item, label
        if "class 3" not in message:
            pictures, labels = [*pictures, picture(3, 32)], [*labels, 3]
        write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", pictures, labels)
        with pytest.raises(DatasetError, match=message) as caught:
            prepare("cifar10", tmp_path, tmp_path / "data")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "cache").exists()

    def test_a_damaged_file_is_named(self, tmp_path: Path) -> None:
        cifar10_parquet(tmp_path / "data")
        file = tmp_path / "data" / "train-00000-of-00001.parquet"
        file.write_bytes(file.read_bytes()[:-20])
        with pytest.raises(DatasetError, match=r"train-00000-of-00001\.parquet is damaged or not a Parquet file"):
            prepare("cifar10", tmp_path, tmp_path / "data")

    def test_images_that_do_not_vary_cannot_be_normalised(self, tmp_path: Path) -> None:
        for split in ("train", "test"):
            write_parquet(tmp_path / "data" / f"{split}.parquet", [np.zeros((8, 8, 3), np.uint8)] * 4, [0, 1, 0, 1])
        with pytest.raises(DatasetError, match="images must vary, but channel 0"):
            prepare("parquet", tmp_path, tmp_path / "data")


class TestCifarArchives:
    """torchvision compares the files with the published checksums, so made files bring their own."""

    def write(self, folder: Path, name: str, entry: object) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(pickle.dumps(entry))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    @pytest.mark.parametrize("inside", [False, True])
    @pytest.mark.parametrize(
        ("name", "reader", "labels", "classes"),
        [
            ("cifar10", torchvision.datasets.CIFAR10, "labels", 10),
            ("cifar100", torchvision.datasets.CIFAR100, "fine_labels", 100),
        ],
    )
    def test_the_unpacked_archive(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
        reader: Any,
        labels: str,
        classes: int,
        inside: bool,
    ) -> None:
        folder = tmp_path / reader.base_folder
        data = np.random.default_rng(0).integers(0, 256, (2 * classes, 3 * 32 * 32), dtype=np.uint8)
        target = [row % classes for row in range(2 * classes)]
        files: dict[str, list[list[str]]] = {"train_list": [], "test_list": []}
        for split, listed in files.items():
            for file, _ in getattr(reader, split):
                listed.append([file, self.write(folder, file, {"data": data, labels: target})])
        key, file = reader.meta["key"], reader.meta["filename"]
        class_names = [f"thing {label}" for label in range(classes)]
        meta = {**reader.meta, "md5": self.write(folder, file, {key: class_names})}
        for attribute, value in {**files, "meta": meta}.items():
            monkeypatch.setattr(reader, attribute, value)

        dataset = prepare(name, tmp_path, folder if inside else tmp_path)
        assert np.array_equal(dataset.split("test").images, data.reshape(-1, 3, 32, 32))
        assert dataset.split("test").labels.tolist() == target
        assert dataset.class_names == tuple(class_names)
        assert len(dataset.split("train")) + len(dataset.split("validation")) == len(data) * len(files["train_list"])

    def test_files_that_are_not_the_published_ones_are_refused(self, tmp_path: Path) -> None:
        self.write(tmp_path / "cifar-10-batches-py", "data_batch_1", {"data": [], "labels": []})
        with pytest.raises(DatasetError, match="cifar-10-batches-py are missing or damaged"):
            prepare("cifar10", tmp_path, tmp_path)


class TestTinyImageNetFolder:
    @pytest.mark.parametrize("inside", [False, True])
    def test_the_published_folder(self, tmp_path: Path, inside: bool) -> None:
        folder = tmp_path / "tiny-imagenet-200"
        tiny_folder(folder)
        dataset = prepare("tiny_imagenet", tmp_path, folder if inside else tmp_path, share=0.34)
        assert dataset.class_names == tuple(WNIDS)
        assert [len(dataset.split(split)) for split in datasets.SPLITS] == [400, 200, 200]
        assert dataset.split("test").labels.tolist() == list(reversed(range(200)))
        assert dataset.split("train").labels.tolist() == sorted([*range(200)] * 2)
        first = np.concatenate([dataset.split(split).images[:2] for split in ("train", "validation")])
        grey = [image for image in first if (image == image[:1]).all()]
        assert len(grey) == 1
        assert grey[0].shape == (3, 64, 64)
        # The brightness of a made picture tells its class, also after JPEG.
        brightness = dataset.split("test").images.mean(axis=(1, 2, 3))
        np.testing.assert_allclose(brightness - dataset.split("test").labels, 19.5, atol=4)

    @pytest.mark.parametrize("place", ["val", "val/images"])
    def test_validation_images_in_folders_of_their_classes(self, tmp_path: Path, place: str) -> None:
        folder = tmp_path / "tiny-imagenet-200"
        tiny_folder(folder)
        published = prepare("tiny_imagenet", tmp_path, tmp_path, share=0.34)
        for line in (folder / "val" / "val_annotations.txt").read_text().splitlines():
            name, wnid = line.split("\t")[:2]
            (folder / place / wnid).mkdir(parents=True)
            (folder / "val" / "images" / name).rename(folder / place / wnid / name)
        source = sources.find("tiny_imagenet", tmp_path)
        assert source.findings.layout == f"as published, the validation images in {place}/CLASS"
        dataset = prepare("tiny_imagenet", tmp_path, tmp_path, share=0.34)
        assert dataset.split("test").labels.tolist() == list(range(200))
        assert np.array_equal(dataset.split("test").images, published.split("test").images[::-1])

    def test_what_is_missing_or_strange_is_named(self, tmp_path: Path) -> None:
        tiny_folder(tmp_path / "data")
        annotations = tmp_path / "data" / "val" / "val_annotations.txt"
        whole = annotations.read_text()
        annotations.write_text(whole.replace(WNIDS[0], "n09999999"))
        with pytest.raises(DatasetError, match=r"names n09999999, which wnids\.txt does not"):
            prepare("tiny_imagenet", tmp_path, tmp_path / "data")
        annotations.write_text(whole.replace("val_7.JPEG", "val_777.JPEG"))
        with pytest.raises(DatasetError, match=r"val_777\.JPEG is missing"):
            prepare("tiny_imagenet", tmp_path, tmp_path / "data")
        annotations.unlink()
        with pytest.raises(DatasetError, match=r"val_annotations\.txt is missing"):
            prepare("tiny_imagenet", tmp_path, tmp_path / "data")
        annotations.write_text(whole)
        corrupt = tmp_path / "data" / "train" / WNIDS[5] / "images" / f"{WNIDS[5]}_1.JPEG"
        corrupt.write_bytes(corrupt.read_bytes()[:200])
        with pytest.raises(DatasetError, match=f"{WNIDS[5]}_1.JPEG cannot be decoded"):
            prepare("tiny_imagenet", tmp_path, tmp_path / "data")
        (tmp_path / "data" / "wnids.txt").write_text("\n".join(WNIDS[1:]))
        with pytest.raises(DatasetError, match="lists 199 classes, not 200"):
            prepare("tiny_imagenet", tmp_path, tmp_path / "data")


class TestImageFolder:
    @pytest.mark.parametrize("suffix", [".png", ".JPEG"])
    @pytest.mark.parametrize("test", ["test", "val"])
    def test_classes_and_rows_are_those_of_torchvisions_reader(self, tmp_path: Path, test: str, suffix: str) -> None:
        image_folder(tmp_path / "data", test, suffix)
        nested = tmp_path / "data" / test / "cow" / "0 more"  # whose files come after the others
        nested.mkdir()
        (tmp_path / "data" / test / "cow" / f"0{suffix}").rename(nested / f"0{suffix}")
        (tmp_path / "data" / test / "cow" / "notes.txt").write_text("no image")
        dataset = prepare("folder", tmp_path, tmp_path / "data")
        expected = torchvision.datasets.ImageFolder(str(tmp_path / "data" / test))
        assert dataset.class_names == tuple(expected.classes) == ("Bee", "ant", "cow")
        assert dataset.split("test").labels.tolist() == expected.targets
        pictures = np.stack([np.asarray(image) for image, _ in expected]).transpose(0, 3, 1, 2)
        assert np.array_equal(dataset.split("test").images, pictures)
        assert [len(dataset.split(split)) for split in datasets.SPLITS] == [9, 3, 6]
        assert (dataset.classes, dataset.channels, dataset.image_size) == (3, 3, 12)
        mean, _ = preparation.statistics([dataset.split("train").images], 255)
        assert dataset.mean == mean

    def test_the_first_that_is_not_like_the_others_is_named(self, tmp_path: Path) -> None:
        image_folder(tmp_path / "data")
        for name, size in (("ant/1.png", (12, 10)), ("cow/3.png", (14, 14))):
            (tmp_path / "data" / "train" / name).write_bytes(encode(np.zeros((*size, 3), np.uint8)))
        with pytest.raises(
            DatasetError, match=r"one size, but .*train/ant/1\.png has 10 × 12 pixels, and all have 10 × 12 to 14 × 14"
        ):
            prepare("folder", tmp_path, tmp_path / "data")

    def test_a_file_that_is_no_image_is_named(self, tmp_path: Path) -> None:
        image_folder(tmp_path / "data")
        (tmp_path / "data" / "test" / "cow" / "1.png").write_bytes(b"no image")
        with pytest.raises(DatasetError, match=r"test/cow/1\.png cannot be decoded"):
            prepare("folder", tmp_path, tmp_path / "data")


class TestOwnFacts:
    def test_they_are_those_of_the_prepared_dataset(self, tmp_path: Path) -> None:
        image_folder(tmp_path / "folder")
        cifar10_parquet(tmp_path / "parquet")
        for name, counts in (("folder", (12, 6)), ("parquet", (40, 10))):
            facts = sources.find(name, tmp_path / name).facts
            dataset = prepare(name, tmp_path, tmp_path / name)
            assert (facts.train_images, facts.test_images) == counts
            for field in ("name", "classes", "channels", "image_size", "augmentation"):
                assert getattr(facts, field) == getattr(dataset, field)
            assert facts.first(2).classes == prepare(name, tmp_path, tmp_path / name, classes=2).classes == 2

    @pytest.mark.parametrize("name", catalog.OWN_FACTS)
    def test_the_catalog_itself_does_not_know_them(self, name: str) -> None:
        with pytest.raises(DatasetError, match=f"the sizes of a {name} dataset are in its own files"):
            catalog.facts(name)


class TestWhatIsAskedFor:
    @pytest.mark.parametrize(
        "name", ["cifar10", "cifar100", "tiny_imagenet", "mnist", "svhn", "stl10", *catalog.OWN_FACTS]
    )
    def test_where_to_put_the_files_is_said(self, tmp_path: Path, name: str) -> None:
        layout = "train/CLASS and test/CLASS" if name in ("folder", "own") else r".*train\*\.parquet"
        for data, start in (
            (None, f"{name} needs its files"),
            (tmp_path / "none", r".*none is not a folder"),
            (tmp_path, f".* does not hold {'own images in a form that is known' if name == 'own' else name}"),
        ):
            with pytest.raises(DatasetError, match=rf"^{start}: pass --data DIR, where DIR holds {layout}"):
                prepare(name, tmp_path, data)

    def test_unknown_names_list_the_known_ones(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match=r"'cifar_10'; did you mean 'cifar10'\? \(known: digits, cifar10"):
            prepare("cifar_10", tmp_path, tmp_path)

    def test_the_names_that_prepare_knows(self) -> None:
        published = (
            "digits",
            "cifar10",
            "cifar100",
            "tiny_imagenet",
            "mnist",
            "fashion_mnist",
            "kmnist",
            "svhn",
            "stl10",
        )
        assert datasets.names() == (*published, "parquet", "folder", "own")

    def test_the_families_of_the_catalog_are_those_of_the_augmentation(self) -> None:
        assert tuple(augmentation.FAMILIES) == catalog.ALL_FAMILIES

    def test_the_catalog_loads_nothing_heavy(self) -> None:
        code = (
            "import sys; from trainables.data import catalog; catalog.facts('digits'); "
            "print([name for name in ('torch', 'numpy', 'pyarrow', 'ray') if name in sys.modules])"
        )
        root = ROOT
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
        assert done.stdout.strip() == "[]"
