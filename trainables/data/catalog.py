"""What is known of a dataset without its files: sizes, normalisation, augmentation, and the files that it needs.

This module imports no heavy package, so a plan can be printed without torch or numpy.
"""

import difflib
from dataclasses import dataclass, replace

from trainables.errors import DatasetError

__all__ = [
    "ALL_FAMILIES",
    "FOLDER",
    "OWN",
    "OWN_FACTS",
    "PARQUET",
    "DatasetFacts",
    "check_classes",
    "facts",
    "instructions",
    "names",
    "own_facts",
]

OWN, PARQUET, FOLDER = "own", "parquet", "folder"
OWN_FACTS = (PARQUET, FOLDER, OWN)
"""The names for any dataset whose facts are in its files: in one form, or in any that is recognised."""

ALL_FAMILIES = COLOR, CROP, CUTOUT, FLIP, SCALE, ROTATE = ("color", "crop", "cutout", "flip", "scale", "rotate")
"""The six families of differentiable siamese augmentation, in the order of the reference code."""
_UNMIRRORED = tuple(family for family in ALL_FAMILIES if family != FLIP)  # a mirrored 2 is not a 2


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """A dataset as published; images are square."""

    name: str
    """Its name in settings and files."""
    classes: int
    """Number of classes; labels are 0 to classes - 1."""
    channels: int
    """1 for grey, 3 for RGB."""
    image_size: int
    """Height and width in pixels."""
    train_images: int
    """Images of the published training set, before a validation split is taken from it."""
    test_images: int
    """Images of the published test set."""
    mean: tuple[float, ...] | None
    """Mean per channel for the normalisation, in [0, 1]; None: computed from the train split."""
    std: tuple[float, ...] | None
    """Standard deviation per channel, likewise."""
    augmentation: tuple[str, ...]
    """The augmentation families that do not change an image's class."""
    instructions: str
    """What the data folder must hold."""

    def resized(self, image_size: int) -> "DatasetFacts":
        """Return the facts of the dataset with images resized to `image_size` pixels; 0: as they are."""
        return replace(self, image_size=image_size or self.image_size)

    def first(self, classes: int) -> "DatasetFacts":
        """Return the facts of the first `classes` classes (0: all); the published sets are balanced.

        Raises:
            DatasetError: `classes` is 1, negative, or more than the dataset has.
        """
        check_classes(classes, self.classes, self.name)
        kept = classes or self.classes
        return replace(
            self,
            classes=kept,
            train_images=round(self.train_images * kept / self.classes),
            test_images=round(self.test_images * kept / self.classes),
        )


_PARQUET = (
    "Parquet files train*.parquet and test*.parquet (or val*.parquet) with encoded images in a column 'image' or 'img' "
    "and integers in a column 'label'"
)
_FOLDERS = (
    "train/CLASS and test/CLASS (or val/CLASS), or CLASS alone, a folder for each class, with image files (JPEG, PNG …)"
)
_OWN_INSTRUCTIONS = {
    PARQUET: f"{_PARQUET}; a test split is taken from train where there is none",
    FOLDER: _FOLDERS,
    OWN: f"{_FOLDERS}; or Parquet files with columns image and label, a dataset saved by save_to_disk, an .npz in "
    "MedMNIST's form, or WebDataset's tar files; each train, and perhaps val and test",
}

_FACTS = {
    dataset.name: dataset
    for dataset in (
        DatasetFacts(
            name="digits",
            classes=10,
            channels=1,
            image_size=8,
            train_images=1437,
            test_images=360,
            mean=None,
            std=None,
            augmentation=(),  # a mirrored 2 is not a 2, and 8 × 8 pixels are too few for cutout
            instructions="nothing: the images come with scikit-learn",
        ),
        DatasetFacts(
            name="cifar10",
            classes=10,
            channels=3,
            image_size=32,
            train_images=50_000,
            test_images=10_000,
            mean=(0.4914, 0.4822, 0.4465),
            # The values of the field's evaluators (DatasetCondensation and its successors): about the mean of the
            # images' own deviations, not the pixels' .2470 .2435 .2616. Accuracies are comparable only with equal
            # constants.
            std=(0.2023, 0.1994, 0.2010),
            augmentation=ALL_FAMILIES,
            instructions=f"the folder cifar-10-batches-py of cifar-10-python.tar.gz, or {_PARQUET}",
        ),
        DatasetFacts(
            name="cifar100",
            classes=100,
            channels=3,
            image_size=32,
            train_images=50_000,
            test_images=10_000,
            mean=(0.5071, 0.4866, 0.4409),
            std=(0.2673, 0.2564, 0.2762),
            augmentation=ALL_FAMILIES,
            instructions=f"the folder cifar-100-python of cifar-100-python.tar.gz, or {_PARQUET} or 'fine_label'",
        ),
        DatasetFacts(
            name="tiny_imagenet",
            classes=200,
            channels=3,
            image_size=64,
            train_images=100_000,
            test_images=10_000,  # the official validation set: the official test set has no public labels
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            augmentation=ALL_FAMILIES,
            instructions=f"the folder tiny-imagenet-200 of tiny-imagenet-200.zip, or {_PARQUET}",
        ),
        DatasetFacts(
            name="mnist",
            classes=10,
            channels=1,
            image_size=28,
            train_images=60_000,
            test_images=10_000,
            mean=(0.1307,),
            std=(0.3081,),
            augmentation=_UNMIRRORED,
            instructions=f"torchvision's folder MNIST/raw with the four files of MNIST, or {_PARQUET}",
        ),
        DatasetFacts(
            name="fashion_mnist",
            classes=10,
            channels=1,
            image_size=28,
            train_images=60_000,
            test_images=10_000,
            mean=(0.2861,),
            std=(0.3530,),
            augmentation=ALL_FAMILIES,
            instructions=f"torchvision's folder FashionMNIST/raw with the four files of Fashion-MNIST, or {_PARQUET}",
        ),
        DatasetFacts(
            name="kmnist",
            classes=10,
            channels=1,
            image_size=28,
            train_images=60_000,
            test_images=10_000,
            mean=(0.1918,),
            std=(0.3483,),
            augmentation=_UNMIRRORED,
            instructions=f"torchvision's folder KMNIST/raw with the four files of KMNIST, or {_PARQUET}",
        ),
        DatasetFacts(
            name="svhn",
            classes=10,
            channels=3,
            image_size=32,
            train_images=73_257,
            test_images=26_032,
            mean=(0.4377, 0.4438, 0.4728),
            std=(0.1980, 0.2010, 0.1970),
            augmentation=_UNMIRRORED,
            instructions=f"the files train_32x32.mat and test_32x32.mat of SVHN's cropped digits, or {_PARQUET}",
        ),
        DatasetFacts(
            name="stl10",
            classes=10,
            channels=3,
            image_size=96,
            train_images=5_000,
            test_images=8_000,
            mean=(0.4467, 0.4398, 0.4066),
            std=(0.2603, 0.2566, 0.2713),
            augmentation=ALL_FAMILIES,
            instructions=f"the folder stl10_binary of stl10_binary.tar.gz, or {_PARQUET}",
        ),
    )
}
# The constants and their sources: docs/method.md, "Normalisation".


def names() -> tuple[str, ...]:
    """Return the names of the datasets with known facts."""
    return tuple(_FACTS)


def facts(name: str) -> DatasetFacts:
    """Return the facts of a dataset.

    Raises:
        DatasetError: The name is not in `names()`.
    """
    if name in OWN_FACTS:
        raise DatasetError(f"the sizes of a {name} dataset are in its own files: name a dataset of {', '.join(_FACTS)}")
    if name not in _FACTS:
        known = (*_FACTS, *OWN_FACTS)
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        raise DatasetError(
            f"no dataset is called {name!r}{f'; did you mean {nearest[0]!r}?' if nearest else ''} "
            f"(known: {', '.join(known)})"
        )
    return _FACTS[name]


def instructions(name: str) -> str:
    """Return what the data folder of a dataset must hold.

    Raises:
        DatasetError: The name is unknown.
    """
    return _OWN_INSTRUCTIONS[name] if name in OWN_FACTS else facts(name).instructions


def own_facts(
    name: str, *, classes: int, channels: int = 3, image_size: int, train_images: int, test_images: int
) -> DatasetFacts:
    """Return the facts of a dataset that were read from its files; for the arguments see `DatasetFacts`."""
    return DatasetFacts(
        name=name,
        classes=classes,
        channels=channels,
        image_size=image_size,
        train_images=train_images,
        test_images=test_images,
        mean=None,
        std=None,
        augmentation=ALL_FAMILIES,
        instructions=_OWN_INSTRUCTIONS[name],
    )


def check_classes(classes: int, present: int, name: str) -> None:
    """Check the number of classes to keep; 0 keeps all.

    Raises:
        DatasetError: `classes` is 1, negative, or more than `present`, the number of classes in the dataset.
    """
    if classes != 0 and not 2 <= classes <= present:
        raise DatasetError(f"classes must be 0 (all) or 2 to {present} for {name}, not {classes}: change the setting")
