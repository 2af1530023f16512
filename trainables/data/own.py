"""Recognises the form of a dataset of one's own: saved datasets, Parquet, arrays, tar files, folders of images."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from trainables.config.reading import Reading
from trainables.data.archives import find_archives
from trainables.data.array_files import find_array_file
from trainables.data.catalog import FOLDER, OWN, PARQUET
from trainables.data.image_folders import find_image_folders, is_image
from trainables.data.parquet import find_parquet_layout
from trainables.data.saved_datasets import find_saved_dataset
from trainables.data.source import Source
from trainables.data.splits import Layout, assemble
from trainables.data.tree import Folder, walk

__all__ = ["find_own"]

_Find = Callable[[Folder, Mapping[str, int]], Layout | None]

_FORMS: dict[str, tuple[_Find, ...]] = {
    OWN: (find_saved_dataset, find_parquet_layout, find_array_file, find_archives, find_image_folders),
    PARQUET: (find_parquet_layout,),
    FOLDER: (find_image_folders,),
}
"""The forms that a name stands for, in the order in which they are looked for: packed ones first, because a folder of
packed files often holds some pictures of its description."""
_PACKED = (".parquet", ".arrow", ".npz", ".tar")


def find_own(name: str, data: Path, reading: Reading) -> Source | None:
    """Find a dataset of one's own in a folder; None: nothing in it is of the forms that the name stands for.

    Raises:
        DatasetError: What is there is no dataset of one of these forms, or its labels are wrong.
    """
    tree, skipped = walk(data, lambda file: is_image(file) or file.lower().endswith(_PACKED))
    for find in _FORMS[name]:
        if (layout := find(tree, Counter(skipped))) is not None:
            return assemble(name, layout, reading)
    return None
