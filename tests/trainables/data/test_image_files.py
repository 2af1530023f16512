"""One image becomes what a viewer shows; the expectations are Pillow's own operations and closed forms."""

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from trainables.config.reading import Reading
from trainables.data import image_files
from trainables.data.image_files import OtherSize, UnreadableImage, Wanted, read_pixels, size_of
from trainables.data.source import Picture
from trainables.errors import DatasetError

SIZE = (13, 9)
"""Width and height: two different ones."""


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def colours(size: tuple[int, int] = SIZE, seed: int = 0) -> Image.Image:
    return Image.fromarray(noise(size[1], size[0], 3, seed=seed))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def pixels_of(content: bytes | Path, *, channels: int = 3, size: int | None = None, **reading: Any) -> np.ndarray:
    """Return an image as it is read, [H, W, ch]; without a size it must be square."""
    if size is None and not reading.get("image_size"):
        size = 16
    wanted = Wanted(channels=channels, size=reading.get("image_size") or size or 0, reading=Reading(**reading))
    return read_pixels(Picture("it", content), wanted).transpose(1, 2, 0)


def reason(content: bytes | None) -> str:
    with pytest.raises(UnreadableImage) as caught:
        read_pixels(Picture("it", content), Wanted(channels=3, size=16))
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestSize:
    @pytest.mark.parametrize("size", [SIZE, (9, 13), (40, 40), (3, 3)])
    def test_crop_is_pillows_fit_about_the_centre(self, size: tuple[int, int]) -> None:
        image = colours(size)
        expected = ImageOps.fit(image, (8, 8), Image.Resampling.BICUBIC)
        assert np.array_equal(pixels_of(encoded(image), image_size=8), np.asarray(expected))

    @pytest.mark.parametrize("size", [SIZE, (9, 13), (40, 40)])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_pad_is_pillows_pad_on_the_background(self, size: tuple[int, int], channels: int) -> None:
        mode, colour = ("L", 76) if channels == 1 else ("RGB", (255, 0, 0))  # .299 · 255 = 76.2
        image = colours(size).convert(mode)
        expected = np.asarray(ImageOps.pad(image, (8, 8), Image.Resampling.BICUBIC, color=colour))
        shown = pixels_of(encoded(image), channels=channels, image_size=8, fit="pad", background="#ff0000")
        assert np.array_equal(shown.squeeze(), expected)

    def test_squash_is_pillows_resize(self) -> None:
        image = colours()
        expected = np.asarray(image.resize((8, 8), Image.Resampling.BICUBIC))
        assert np.array_equal(pixels_of(encoded(image), image_size=8, fit="squash"), expected)

    def test_a_line_that_is_padded_keeps_a_pixel(self) -> None:
        shown = pixels_of(encoded(Image.new("RGB", (200, 1), "black")), image_size=8, fit="pad")
        assert (shown == 0).all(axis=(1, 2)).sum() == 1 and (shown == 255).all(axis=(1, 2)).sum() == 7

    def test_shrinking_averages(self) -> None:
        """A chessboard of single pixels becomes its mean: without antialiasing it would be black or white."""
        board = np.indices((64, 64)).sum(axis=0) % 2 * 255
        shown = pixels_of(encoded(Image.fromarray(board.astype(np.uint8))), channels=1, image_size=8)
        assert np.abs(shown.astype(int) - 127.5).max() <= 1

    def test_other_sizes_are_told_where_images_are_not_resized(self) -> None:
        with pytest.raises(OtherSize) as caught:
            pixels_of(encoded(colours()))
        assert (caught.value.where, caught.value.width, caught.value.height) == ("it", *SIZE)

    def test_arrays_are_resized_like_images(self) -> None:
        image = colours()
        array = np.asarray(image).transpose(2, 0, 1)
        wanted = Wanted(channels=3, size=8, reading=Reading(image_size=8))
        assert np.array_equal(
            read_pixels(Picture("it", array), wanted).transpose(1, 2, 0), pixels_of(encoded(image), image_size=8)
        )

    def test_arrays_of_fewer_levels_get_all_8_bits(self) -> None:
        array = np.arange(17, dtype=np.uint8).repeat(4)[:64].reshape(1, 8, 8)  # levels 0 to 15 of 0 to 16
        wanted = Wanted(channels=1, size=8, reading=Reading(image_size=8), found_levels=16)
        assert wanted.levels == 255
        shown = read_pixels(Picture("it", array), wanted)
        assert np.abs(shown - array.astype(float) * 255 / 16).max() <= 0.5
        as_it_is = Wanted(channels=1, size=8, found_levels=16)
        assert as_it_is.levels == 16 and np.array_equal(read_pixels(Picture("it", array), as_it_is), array)

    @pytest.mark.parametrize(
        "array", [np.zeros((3, 8, 8)), np.zeros((8, 8), np.uint8), np.zeros((4, 8, 8), np.uint8)], ids=str
    )
    def test_arrays_that_are_no_images_are_refused(self, array: np.ndarray) -> None:
        with pytest.raises(DatasetError, match=r"it must be uint8 \[1 or 3, height, width\], not"):
            read_pixels(Picture("it", array), Wanted(channels=3, size=8))


class TestOrientation:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_is_applied(self, orientation: int, kind: str) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = encoded(colours(), kind, exif=exif)
        with Image.open(io.BytesIO(content)) as image:
            expected = ImageOps.exif_transpose(image).convert("RGB")
        shown = pixels_of(content, image_size=8, fit="squash")
        assert np.array_equal(shown, np.asarray(expected.resize((8, 8), Image.Resampling.BICUBIC)))

    @pytest.mark.parametrize(("orientation", "size"), [(1, SIZE), (3, SIZE), (6, (9, 13)), (8, (9, 13))])
    def test_the_size_is_that_of_the_upright_image(self, orientation: int, size: tuple[int, int]) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        assert size_of(Picture("it", encoded(colours(), "JPEG", exif=exif))) == size

    def test_a_damaged_exif_block_is_ignored_as_by_viewers(self) -> None:
        content = encoded(colours((16, 16)), "JPEG", exif=b"Exif\0\0no TIFF header at all", quality=95)
        with Image.open(io.BytesIO(content)) as image:
            assert np.array_equal(pixels_of(content), np.asarray(image))


class TestTransparency:
    @pytest.mark.parametrize(("background", "rgb"), [("white", (255, 255, 255)), ("#102030", (16, 32, 48))])
    @pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
    def test_rgba_is_put_on_the_background(self, kind: str, background: str, rgb: tuple[int, int, int]) -> None:
        image = Image.fromarray(noise(16, 16, 4))
        content = encoded(image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
        expected = Image.alpha_composite(Image.new("RGBA", image.size, (*rgb, 255)), image).convert("RGB")
        assert np.array_equal(pixels_of(content, background=background), np.asarray(expected))

    def test_grey_with_alpha(self) -> None:
        image = Image.fromarray(noise(16, 16, 2), "LA")
        expected = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        assert np.array_equal(pixels_of(encoded(image)), np.asarray(expected.convert("RGB")))
        assert np.array_equal(pixels_of(encoded(image), channels=1)[..., 0], np.asarray(expected.convert("L")))

    def test_what_is_fully_transparent_is_the_background_and_never_black(self) -> None:
        assert (pixels_of(encoded(Image.new("RGBA", (16, 16), (0, 0, 0, 0)))) == 255).all()

    @pytest.mark.parametrize("transparency", [3, bytes(range(0, 256, 16))])
    def test_a_palette_with_transparent_entries(self, transparency: int | bytes) -> None:
        image = Image.fromarray(noise(16, 16) % 16, "P")
        image.putpalette(noise(48, seed=1).tobytes())
        content = encoded(image, transparency=transparency)
        with Image.open(io.BytesIO(content)) as stored:
            assert stored.mode == "P"
            shown = stored.convert("RGBA")
        alpha = np.asarray(shown)[..., 3]
        entries = np.asarray(image)
        assert np.array_equal(
            alpha, np.where(entries == 3, 0, 255) if transparency == 3 else np.array(range(0, 256, 16))[entries]
        )
        expected = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB")
        assert np.array_equal(pixels_of(content), np.asarray(expected))

    @pytest.mark.parametrize("orientation", [1, 6])
    def test_a_transparent_colour_of_an_opaque_mode(self, orientation: int) -> None:
        image = colours((16, 16))
        image.putpixel((2, 5), (1, 2, 3))
        image.putpixel((7, 7), (1, 2, 3))
        exif = Image.Exif()
        exif[0x0112] = orientation
        expected = np.array(image)
        expected[[5, 7], [2, 7]] = 255
        turned = expected if orientation == 1 else np.rot90(expected, -1)
        assert np.array_equal(pixels_of(encoded(image, transparency=(1, 2, 3), exif=exif)), turned)

    def test_premultiplied_alpha(self) -> None:
        half = Image.new("RGBa", (16, 16), (50, 0, 100, 128))  # colours of half the strength: 50 is 99.6 at alpha 128
        canvas = image_files._as_shown(half, "white")
        assert canvas.getpixel((0, 0)) == pytest.approx((50 + 127, 127, 100 + 127), abs=1)


class TestModes:
    @pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "RGBX"])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_other_modes_of_8_bits_are_what_pillow_makes_of_them(self, mode: str, channels: int) -> None:
        image = colours((16, 16)).convert(mode)
        kind = "PNG" if mode in ("1", "L", "P", "RGB") else "TIFF" if mode in ("CMYK", "YCbCr") else None
        if kind is None:
            shown = np.asarray(image_files._as_shown(image, "white").convert("L" if channels == 1 else "RGB"))
        else:
            shown = pixels_of(encoded(image, kind), channels=channels).squeeze()
        assert np.array_equal(shown, np.asarray(image.convert("L" if channels == 1 else "RGB")))

    def test_a_cmyk_jpeg(self) -> None:
        content = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
        assert pixels_of(content).reshape(-1, 3).mean(axis=0) == pytest.approx((255, 0, 0), abs=3)

    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
    def test_16_bits_are_scaled_and_not_clipped(self, kind: str) -> None:
        values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
        shown = pixels_of(encoded(Image.fromarray(values), kind), channels=1)[..., 0]
        assert np.array_equal(shown, np.arange(256).reshape(16, 16))

    def test_16_bits_with_a_transparent_value(self) -> None:
        values = np.full((16, 16), 257 * 90, np.uint16)
        values[3, 4] = 257 * 10
        shown = image_files._of_deep(Image.fromarray(values), 257 * 10, "#ff0080")
        expected = np.full((16, 16, 3), 90)
        expected[3, 4] = (255, 0, 128)
        assert np.array_equal(np.asarray(shown), expected)

    def test_floats_and_long_integers_are_refused_by_name(self) -> None:
        assert reason(encoded(Image.fromarray(np.zeros((16, 16), np.float32)), "TIFF")).startswith("mode F: floating")
        assert reason(encoded(Image.fromarray(np.zeros((16, 16), np.int32)), "TIFF")).startswith("mode I: whole")

    @pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
    def test_of_several_pictures_the_first_counts(self, kind: str) -> None:
        frames = [Image.new("RGB", (16, 16), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]
        options = {"lossless": True} if kind == "WEBP" else {}
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        with Image.open(io.BytesIO(content)) as stored:
            stored.seek(2)  # there are three
        assert (pixels_of(content) == (255, 0, 0)).all()

    def test_a_progressive_jpeg(self) -> None:
        content = encoded(colours((16, 16)), "JPEG", progressive=True)
        with Image.open(io.BytesIO(content)) as image:
            assert image.info["progressive"]
            assert np.array_equal(pixels_of(content), np.asarray(image))

    def test_a_wrong_extension_does_not_matter(self, tmp_path: Path) -> None:
        image = colours((16, 16))
        (tmp_path / "image.jpg").write_bytes(encoded(image))
        assert np.array_equal(pixels_of(tmp_path / "image.jpg"), np.asarray(image))


def swapped_profile() -> bytes:
    """sRGB with the primaries of red and blue exchanged, and another name."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exchanged = profile.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")
    assert exchanged != profile
    return exchanged.replace("sRGB".encode("utf-16-be"), "ours".encode("utf-16-be"))


class TestProfiles:
    @pytest.mark.parametrize("alpha", [False, True])
    def test_the_colours_are_those_of_the_profile(self, alpha: bool) -> None:
        image = colours((16, 16))
        expected = np.asarray(image)[..., ::-1].astype(int)
        if alpha:
            image.putalpha(255)
        shown = pixels_of(encoded(image, icc_profile=swapped_profile()))
        assert np.abs(shown - expected).max() <= 2

    def test_a_palettes_colours_too(self) -> None:
        image = colours((16, 16)).convert("P")
        shown = pixels_of(encoded(image, icc_profile=swapped_profile()))
        assert np.abs(shown - np.asarray(image.convert("RGB"))[..., ::-1].astype(int)).max() <= 2

    def test_srgbs_own_changes_nothing(self) -> None:
        image = colours((16, 16))
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        assert np.array_equal(pixels_of(encoded(image, icc_profile=profile)), np.asarray(image))

    @pytest.mark.parametrize("space", ["damaged", "LAB", "XYZ"])
    def test_one_that_is_no_profile_of_an_image_is_ignored_as_by_viewers(self, space: str) -> None:
        image = colours((16, 16))
        profile = b"no profile"
        if space != "damaged":
            profile = ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()  # type: ignore[arg-type]
        assert np.array_equal(pixels_of(encoded(image, icc_profile=profile)), np.asarray(image))


class TestDamage:
    def test_the_reason_is_one_line(self) -> None:
        assert reason(None) == reason(b"") == "there is nothing in it"
        assert reason(b"no image") == "its bytes are no known image format"

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
    @pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
    def test_truncated_files(self, kind: str, share: float) -> None:
        content = encoded(colours((16, 16)), kind)
        reason(content[: int(share * len(content))])

    @pytest.mark.filterwarnings("ignore")  # decoding silences them
    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
    def test_any_bytes_are_an_image_or_refused(self, kind: str) -> None:
        """A hundred files with a few other bytes each; what comes out has the size and type that was asked for."""
        exif = Image.Exif()
        exif[0x0112] = 6
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        content = encoded(colours(), kind, **({} if kind in ("BMP", "PPM") else {"exif": exif, "icc_profile": profile}))
        random = np.random.default_rng(0)
        wanted = Wanted(channels=3, size=8, reading=Reading(image_size=8))
        for _ in range(100):
            changed = np.frombuffer(content, np.uint8).copy()
            places = random.integers(0, len(changed), 3)
            changed[places] = random.integers(0, 256, 3)
            try:
                pixels = read_pixels(Picture("it", changed.tobytes()), wanted)
            except UnreadableImage as error:
                assert str(error) and "\n" not in str(error)
            else:
                assert pixels.shape == (3, 8, 8) and pixels.dtype == np.uint8

    def test_too_many_pixels_are_refused_before_they_are_decoded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(image_files, "MOST_PIXELS", 200)
        assert reason(encoded(Image.new("L", (20, 11)))) == "20 × 11 pixels, more than 200 are not read: shrink it"

    def test_a_bomb_is_refused(self) -> None:
        content = bytearray(encoded(Image.new("1", (8, 8))))
        content[16:24] = (2**31 - 1).to_bytes(4) * 2  # width and height in the PNG's header
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4)
        assert "decompression bomb" in reason(bytes(content))

    def test_a_file_that_cannot_be_read_is_no_damaged_image(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match=r"it cannot be read \(No such file or directory\)"):
            pixels_of(tmp_path / "gone.png")
