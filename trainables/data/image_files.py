"""Reads one image as a viewer shows it: upright, in sRGB, opaque, 8 bits, in the size that is wanted."""

import io
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trainables.config.reading import AS_IT_IS, Reading
from trainables.data.source import Picture
from trainables.errors import DatasetError

__all__ = [
    "MOST_PIXELS",
    "ONE_BYTE",
    "Header",
    "OtherSize",
    "UnreadableImage",
    "Wanted",
    "header_of",
    "read_pixels",
    "size_of",
]

ONE_BYTE = 255
MOST_PIXELS = 64 * 2**20
"""Pixels of the largest image that is read. With it decoding stays below a GiB of memory."""

_COPY_BYTES = 4 * 3  # bytes of a pixel in Pillow's memory, and images of this size that a conversion holds at once
_ORIENTATION = 0x0112  # EXIF's tag


class UnreadableImage(Exception):
    """An image is damaged, or of a kind that is not read; the text is the reason."""


class OtherSize(Exception):
    """An image does not have the size that all have."""

    def __init__(self, where: str, width: int, height: int) -> None:
        """Name the image and its size in pixels."""
        super().__init__(where, width, height)
        self.where, self.width, self.height = where, width, height


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The pixels that are made of every image."""

    channels: int
    """1 for grey, 3 for RGB."""
    size: int
    """Height and width, in pixels."""
    reading: Reading = AS_IT_IS
    """How images are read; with an `image_size` they are resized to `size`."""
    found_levels: int = ONE_BYTE
    """The pixel value that represents 1.0 in arrays."""

    @property
    def levels(self) -> int:
        """The pixel value that represents 1.0 in what is made: resized images have all 8 bits."""
        return ONE_BYTE if self.reading.image_size else self.found_levels

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image's pixels: channels, height, width."""
        return self.channels, self.size, self.size


class Header(NamedTuple):
    """What an image's header says."""

    size: tuple[int, int]
    """Width and height as it is shown, in pixels."""
    mode: str
    """Pillow's mode, such as RGB."""


def read_pixels(picture: Picture, wanted: Wanted) -> np.ndarray:
    """Return an image's pixels, uint8 [ch, size, size].

    Raises:
        UnreadableImage: It is damaged, or of a kind that is not read.
        OtherSize: It has another size, and images are not resized.
        DatasetError: Its file cannot be read, or its array is no image.
    """
    where, content = picture
    if isinstance(content, np.ndarray):
        _check_array(where, content)
        if not wanted.reading.image_size and content.shape == wanted.shape:
            return content
        return _fitted(where, _image_of(content, wanted), wanted)
    with _opened(where, content) as image, _memory.taken(image.width * image.height * _COPY_BYTES):
        image.load()
        return _fitted(where, _as_shown(image, wanted.reading.background), wanted)


def size_of(picture: Picture) -> tuple[int, int]:
    """Return an image's width and height as it is shown, in pixels; raises what `header_of` raises."""
    return header_of(picture).size


def header_of(picture: Picture) -> Header:
    """Return what an image's header says.

    Raises:
        UnreadableImage: It is damaged.
        DatasetError: Its file cannot be read.
    """
    where, content = picture
    if isinstance(content, np.ndarray):
        _check_array(where, content)
        return Header((content.shape[2], content.shape[1]), "L" if len(content) == 1 else "RGB")
    with _opened(where, content) as image:
        # Not of a PNG, which would be decoded to look for EXIF behind its pixels.
        turned = image.width != image.height and image.format != "PNG" and _orientation(image) in (5, 6, 7, 8)
        return Header((image.height, image.width) if turned else (image.width, image.height), image.mode)


@contextmanager
def _opened(where: str, content: bytes | Path | None) -> Iterator[Any]:
    """Open an image, and turn what Pillow raises on it into an UnreadableImage."""
    from PIL import Image, UnidentifiedImageError

    if not content:
        raise UnreadableImage("there is nothing in it")
    try:
        with Image.open(content if isinstance(content, Path) else io.BytesIO(content)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise UnreadableImage(
                    f"{image.width} × {image.height} pixels, more than {MOST_PIXELS:,} are not read: shrink it"
                )
            yield image
    except (UnreadableImage, OtherSize, DatasetError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImage("its bytes are no known image format") from error
    except Exception as error:  # Pillow raises many types for damaged bytes
        if isinstance(error, OSError) and error.errno is not None:  # of the system, not of the image
            raise DatasetError(f"{where} cannot be read ({error.strerror}): make it readable to this user") from error
        raise UnreadableImage(" ".join(str(error).split())[:200] or type(error).__name__) from error


def _as_shown(image: Any, background: str) -> Any:
    """Return a loaded image upright, in sRGB, opaque and with 8 bits a channel.

    Without a profile, transparency and orientation it is returned as it is: grey, RGB or another mode of 8 bits.
    """
    from PIL import Image, ImageColor

    method = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(_orientation(image))
    # The information is kept by hand: transposing and converting drop parts of it.
    profile, clear = image.info.get("icc_profile"), image.info.get("transparency")
    if method is not None:
        image = image.transpose(method)
        if clear is not None:
            image.info["transparency"] = clear
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _of_deep(image, clear, background)
    if clear is None and image.mode not in ("RGBA", "LA", "PA", "RGBa", "La"):
        return _in_srgb(image, profile)
    if image.mode == "La":
        image = image.convert("LA")
    image = image.convert("RGBA")
    opaque = _in_srgb(image.convert("RGB"), profile)
    opaque.putalpha(image.getchannel("A"))
    canvas = Image.new("RGBA", image.size, (*ImageColor.getrgb(background)[:3], 255))
    canvas.alpha_composite(opaque)
    return canvas.convert("RGB")


def _orientation(image: Any) -> int:
    """Return EXIF's orientation, 1 to 8. A damaged EXIF block says nothing about it, and viewers ignore the block."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except (SyntaxError, ValueError, LookupError, TypeError, OSError, EOFError, struct.error):  # Pillow's
        return 1


def _of_deep(image: Any, clear: int | None, background: str) -> Any:
    """Return a grey image of 16 bits scaled to 8; `clear` is the value that is transparent, if there is one.

    Raises:
        UnreadableImage: It holds whole numbers of 32 bits or floating-point numbers, whose range is unknown.
    """
    from PIL import Image, ImageColor

    # In these two formats 32 bits hold the 16 of the file.
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        kind = "floating-point numbers" if image.mode == "F" else "whole numbers of 32 bits"
        raise UnreadableImage(f"mode {image.mode}: {kind}, whose range is unknown; save it with 8 or 16 bits")
    values = np.asarray(image).astype(np.int64)
    grey = ((values + 128) // 257).astype(np.uint8)  # 65535 → 255
    if clear is None:
        return Image.fromarray(grey)
    canvas = np.broadcast_to(np.array(ImageColor.getrgb(background)[:3], np.uint8), (*grey.shape, 3))
    return Image.fromarray(np.where((values == clear)[..., None], canvas, grey[..., None]))


def _in_srgb(image: Any, profile: bytes | None) -> Any:
    """Return an image converted from the colours of its ICC profile, if it has one that is usable and not sRGB's."""
    from PIL import ImageCms

    if not profile or (known := _transform(profile)) is None:
        return image
    mode, transform = known
    if mode == "RGB" and image.mode in ("P", "L", "1"):
        image = image.convert("RGB")
    return ImageCms.applyTransform(image, transform) if image.mode == mode else image


@lru_cache(maxsize=16)
def _transform(profile: bytes) -> tuple[str, Any] | None:
    """Return the mode of the images that a profile describes, and the transform from it to sRGB.

    None: it is sRGB's; or it is damaged or describes no colours of images, and is ignored, as viewers do.
    """
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(source.profile.xcolor_space)
        if mode is None or "sRGB" in (source.profile.profile_description or ""):
            return None
        return mode, ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None


def _fitted(where: str, image: Any, wanted: Wanted) -> np.ndarray:
    """Return the pixels of an opaque image in the wanted channels and size."""
    image = image.convert("L" if wanted.channels == 1 else "RGB")
    if wanted.reading.image_size:
        image = _resized(image, wanted.size, wanted.reading)
    if image.size != (wanted.size, wanted.size):
        raise OtherSize(where, *image.size)
    return np.asarray(image).reshape(wanted.size, wanted.size, wanted.channels).transpose(2, 0, 1)


def _resized(image: Any, size: int, reading: Reading) -> Any:
    """Return an image as a square of `size` pixels, by Pillow's bicubic filter, which averages where it shrinks."""
    from PIL import Image, ImageColor, ImageOps

    if reading.fit == "squash":
        return image.resize((size, size), Image.Resampling.BICUBIC)
    if reading.fit == "crop":
        return ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    longer = max(image.size)
    width, height = (max(1, round(side / longer * size)) for side in image.size)
    canvas = Image.new("RGB", (size, size), ImageColor.getrgb(reading.background)[:3]).convert(image.mode)
    place = round((size - width) * 0.5), round((size - height) * 0.5)
    canvas.paste(image.resize((width, height), Image.Resampling.BICUBIC), place)
    return canvas


def _check_array(where: str, array: np.ndarray) -> None:
    """Refuse an array that is no image: this is an error of a dataset's implementation."""
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[0] not in (1, 3):
        raise DatasetError(
            f"{where} must be uint8 [1 or 3, height, width], not {array.dtype} {list(array.shape)}: correct its finder"
        )


def _image_of(array: np.ndarray, wanted: Wanted) -> Any:
    """Return pixels uint8 [ch, H, W] as an image, in whose bytes `wanted.levels` represents 1.0."""
    from PIL import Image

    if wanted.levels != wanted.found_levels:
        scaled = (array.astype(np.int64) * wanted.levels + wanted.found_levels // 2) // wanted.found_levels
        array = scaled.clip(0, wanted.levels).astype(np.uint8)
    return Image.fromarray(array[0] if len(array) == 1 else np.ascontiguousarray(array.transpose(1, 2, 0)))


class _Memory:
    """Memory that threads share: a thread waits until its part is free; more than the whole is taken alone."""

    def __init__(self, free_bytes: int) -> None:
        self._free, self._whole, self._changed = free_bytes, free_bytes, threading.Condition()

    @contextmanager
    def taken(self, wanted_bytes: int) -> Iterator[None]:
        """Wait for a part, and give it back in the end."""
        part = min(wanted_bytes, self._whole)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= part)
            self._free -= part
        try:
            yield
        finally:
            with self._changed:
                self._free += part
                self._changed.notify_all()


_memory = _Memory(MOST_PIXELS * _COPY_BYTES)
