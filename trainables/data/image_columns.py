"""Columns of images in Arrow tables: encoded bytes, paths of files, or lists of pixels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trainables.data.source import Picture, shown
from trainables.errors import DatasetError

__all__ = ["IMAGES", "is_grey", "pictures"]

IMAGES = ("image", "img", "images", "imgs", "picture", "pictures", "photo", "pixels", "pixel_values")
"""Names of the columns in datasets of one's own, in any case of letters; the first that is there is taken."""


def is_grey(of: Any) -> bool:
    """Return whether a column of this type holds grey pixels, as lists of lists of numbers."""
    return _depth(of) in (1, 2)


def _depth(of: Any) -> int:
    import pyarrow as pa

    depth = 0
    if isinstance(of, pa.BaseExtensionType):
        of = of.storage_type
    while pa.types.is_list(of) or pa.types.is_large_list(of) or pa.types.is_fixed_size_list(of):
        of, depth = of.value_type, depth + 1
    return depth


def pictures(array: Any, where: str, name: str, beside: Path, first: int) -> Iterator[Picture]:
    """Yield the images of an Arrow array.

    Args:
        array: The array: encoded bytes, structs of bytes and path, paths, or lists of pixels.
        where: The file's name in messages.
        name: The column's.
        beside: The folder in which images are that are only named.
        first: The number of the array's first row.

    Raises:
        DatasetError: The column holds something else, or a named image is not there.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(array, pa.ExtensionArray):  # the hub's Array2D and Array3D, if its library is loaded
        array = array.storage
    paths: Any = None
    if pa.types.is_struct(array.type) and array.type.get_field_index("bytes") >= 0:
        if array.type.get_field_index("path") >= 0:
            paths = pc.struct_field(array, "path")
        array = pc.struct_field(array, "bytes")
    of = array.type
    if _depth(of):
        yield from _pixels(array, where, name, first)
        return
    if pa.types.is_string(of) or pa.types.is_large_string(of) or pa.types.is_string_view(of):
        array, paths = pa.nulls(len(array), pa.binary()), array
    elif pa.types.is_null(of):
        array = array.cast(pa.binary())
    elif not (pa.types.is_binary(of) or pa.types.is_large_binary(of) or pa.types.is_binary_view(of)):
        raise DatasetError(f"column {name} of {where} must hold encoded images as bytes, or pixels, not {of}")
    for row in range(len(array)):
        content = array[row].as_py()
        place = f"{where} row {first + row}"
        path = None if paths is None or content else paths[row].as_py()
        yield Picture(place, _beside(beside, path, place) if path else content)


def _beside(folder: Path, path: str, where: str) -> Path:
    """Return the file of an image that is only named.

    Raises:
        DatasetError: There is none.
    """
    try:
        if (file := folder / path).is_file():
            return file
    except (OSError, ValueError):  # no path at all
        pass
    raise DatasetError(
        f"{where} holds no image but only the path {path!r}, and {shown(folder)} has no such file: put the images "
        "beside the file, or write their bytes into it"
    )


def _pixels(array: Any, where: str, name: str, first: int) -> Iterator[Picture]:
    """Yield the pixels of lists: [H, W], [H, W, 1 or 3], [1 or 3, H, W], or flat and square."""
    import pyarrow as pa

    depth = _depth(array.type)
    for row in range(len(array)):
        place = f"{where} row {first + row}"
        flat, shape = array.slice(row, 1), []
        if flat.null_count:
            yield Picture(place, None)
            continue
        for _ in range(depth):
            inner = flat.flatten()
            if not len(flat) or len(inner) % len(flat) or _uneven(flat, len(inner) // len(flat)):
                raise DatasetError(f"column {name} of {place} must hold rows of equal length: write it as images")
            shape.append(len(inner) // len(flat))
            flat = inner
        if flat.null_count or not pa.types.is_integer(flat.type):
            raise DatasetError(f"column {name} of {place} must hold pixels 0 to 255, whole numbers, not {flat.type}")
        try:
            flat = flat.cast(pa.uint8())
        except pa.ArrowInvalid as error:
            raise DatasetError(f"column {name} of {place} must hold pixels 0 to 255 ({error})") from error
        yield Picture(
            place, _as_image(np.frombuffer(flat.buffers()[1], np.uint8, len(flat), flat.offset), shape, place)
        )


def _uneven(lists: Any, length: int) -> bool:
    import pyarrow.compute as pc

    lengths = pc.list_value_length(lists)
    return bool(lengths.null_count or pc.min(lengths).as_py() != length or pc.max(lengths).as_py() != length)


def _as_image(pixels: np.ndarray, shape: list[int], where: str) -> np.ndarray:
    """Return uint8 [ch, H, W] of pixels in one of the orders that are told apart."""
    side = round(len(pixels) ** 0.5)
    match shape:
        case [_] if side * side == len(pixels):
            return pixels.reshape(1, side, side)
        case [height, width]:
            return pixels.reshape(1, height, width)
        case [height, width, 1 | 3 as channels]:
            return pixels.reshape(height, width, channels).transpose(2, 0, 1)
        case [1 | 3 as channels, height, width]:
            return pixels.reshape(channels, height, width)
    raise DatasetError(
        f"{where} holds {' × '.join(map(str, shape))} pixels: write lists of [height, width], [height, width, 3] or "
        "[3, height, width]"
    )
