"""DSA: the distributions of docs/method.md, "DSA", and every family against a direct, slow implementation."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from tests.support.references import relative_error
from trainables.data.augmentation import FAMILIES, Augmentation, Draw, parse_families
from trainables.errors import ConfigError
from trainables.seeding import generator

MANY = 20_000
UNIFORM = [
    ("color", "brightness", -0.5, 0.5),
    ("color", "saturation", 0, 2),
    ("color", "contrast", 0.5, 1.5),
    ("scale", "x", 1 / 1.2, 1.2),
    ("scale", "y", 1 / 1.2, 1.2),
    ("rotate", "radians", -math.radians(15), math.radians(15)),
]


def drawn_by(augmentation: Augmentation, batch: int, side: int, draws: torch.Generator) -> Draw:
    drawn = augmentation.draw(batch, side, draws)
    assert drawn is not None
    return drawn


def draw(family: str, batch: int = 6, side: int = 8, name: int = 0) -> Draw:
    return drawn_by(Augmentation(families=(family,)), batch, side, generator("augmentation", family, name))


def apply(images: Tensor, drawn: Draw | None, align_corners: bool = True) -> Tensor:
    return Augmentation(align_corners=align_corners).apply(images, drawn)


def random_images(batch: int = 6, channels: int = 3, side: int = 8) -> Tensor:
    return torch.randn(batch, channels, side, side, dtype=torch.float64, generator=generator("images", side))


def is_uniform_over(counts: Any) -> bool:
    return bool(stats.chisquare(counts).pvalue > 1e-3)


def each_with_its_own(images: Tensor, drawn: Draw, reference: Callable[..., Tensor]) -> Tensor:
    """Images and parameters through a reference that handles one image [ch, H, W] with numbers as parameters."""
    return torch.stack(
        [
            reference(image, **{name: values[index].item() for name, values in drawn.values.items()})
            for index, image in enumerate(images)
        ]
    )


class TestDistributions:
    @pytest.mark.parametrize(("family", "name", "low", "high"), UNIFORM)
    def test_uniform_parameters(self, family: str, name: str, low: Any, high: Any) -> None:
        values = draw(family, MANY).values[name].numpy()
        assert low <= values.min() and values.max() <= high + 1e-6
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3

    @pytest.mark.parametrize("family", ["color", "scale"])
    def test_the_parameters_of_a_family_are_independent(self, family: str) -> None:
        correlations = torch.corrcoef(torch.stack([*draw(family, MANY).values.values()]))
        assert (correlations - torch.eye(len(correlations))).abs().max() < 4 / MANY**0.5

    @pytest.mark.parametrize(("side", "shift"), [(8, 1), (32, 4), (64, 8)])
    def test_crop_shifts_both_axes_by_up_to_an_eighth(self, side: int, shift: int) -> None:
        values = draw("crop", MANY, side).values
        rows, columns = values["rows"], values["columns"]
        assert rows.unique().tolist() == columns.unique().tolist() == list(range(-shift, shift + 1))
        cells = (rows + shift) * (2 * shift + 1) + columns + shift
        assert is_uniform_over(torch.bincount(cells, minlength=(2 * shift + 1) ** 2))

    @pytest.mark.parametrize(("side", "last"), [(8, 8), (32, 32), (64, 64), (10, 9)])
    def test_cutout_centres_reach_past_the_border_where_the_hole_is_even(self, side: int, last: int) -> None:
        values = draw("cutout", MANY, side).values
        cells = values["row"] * (last + 1) + values["column"]
        assert values["row"].unique().tolist() == values["column"].unique().tolist() == list(range(last + 1))
        assert is_uniform_over(torch.bincount(cells, minlength=(last + 1) ** 2))

    def test_flip_mirrors_every_second_image(self) -> None:
        mirrored = int(draw("flip", MANY).values["mirrored"].sum())
        assert stats.binomtest(mirrored, MANY, 0.5).pvalue > 1e-3

    def test_the_family_is_uniform_and_one_for_the_batch(self) -> None:
        augmentation, draws = Augmentation(families=tuple(FAMILIES)), generator("family")
        families = [drawn_by(augmentation, 2, 8, draws).family for _ in range(6000)]
        assert is_uniform_over([families.count(family) for family in FAMILIES])

    def test_parameters_are_the_same_whether_one_family_or_all_six_could_be_drawn(self) -> None:
        """As the evaluator draws: one stream of families and parameters, call after call."""
        augmentation, draws = Augmentation(families=tuple(FAMILIES), align_corners=False), generator("evaluator")
        calls_of: dict[str, list[dict[str, Tensor]]] = {family: [] for family in FAMILIES}
        for _ in range(3000):
            drawn = drawn_by(augmentation, 10, 32, draws)
            calls_of[drawn.family].append(drawn.values)
        pooled = {
            family: {name: torch.cat([values[name] for values in calls]) for name in calls[0]}
            for family, calls in calls_of.items()
        }
        for family, name, low, high in UNIFORM:
            assert stats.kstest(pooled[family][name].numpy(), stats.uniform(low, high - low).cdf).pvalue > 1e-3, name
        for family, low, high in (("crop", -4, 4), ("cutout", 0, 32)):
            for values in pooled[family].values():
                assert is_uniform_over(torch.bincount(values - low, minlength=high - low + 1)), family
        mirrored = pooled["flip"]["mirrored"]
        assert stats.binomtest(int(mirrored.sum()), len(mirrored), 0.5).pvalue > 1e-3

    @pytest.mark.parametrize("family", FAMILIES)
    def test_the_images_of_a_batch_are_independent(self, family: str) -> None:
        """Siamese off: the parameters of neighbours in a batch are uncorrelated."""
        for values in draw(family, MANY).values.values():
            pairs = torch.stack([values[:-1].double(), values[1:].double()])
            assert torch.corrcoef(pairs)[0, 1].abs() < 4 / MANY**0.5

    def test_the_family_of_a_call_says_nothing_of_the_next(self) -> None:
        augmentation, draws, names = Augmentation(families=tuple(FAMILIES)), generator("calls"), list(FAMILIES)
        drawn = torch.tensor([names.index(drawn_by(augmentation, 2, 8, draws).family) for _ in range(6000)])
        assert is_uniform_over(torch.bincount(drawn[:-1] * 6 + drawn[1:], minlength=36))

    def test_only_the_named_families_are_drawn(self) -> None:
        augmentation, draws = Augmentation(families=("flip", "scale")), generator("family")
        assert {drawn_by(augmentation, 2, 8, draws).family for _ in range(100)} == {"flip", "scale"}

    @pytest.mark.parametrize("family", FAMILIES)
    def test_every_image_has_parameters_of_its_own(self, family: str) -> None:
        for values in draw(family, 100).values.values():
            assert len(values) == 100
            assert len(values.unique()) > 1


class TestReplay:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_a_draw_applied_twice_gives_the_same_bits(self, family: str) -> None:
        images, drawn = random_images(), draw(family)
        assert torch.equal(apply(images, drawn), apply(images, drawn))
        assert torch.equal(apply(images, drawn), apply(images, draw(family)))
        assert not torch.equal(apply(images, drawn), apply(images, draw(family, name=1)))

    @pytest.mark.parametrize("family", FAMILIES)
    def test_images_do_not_meet_and_are_not_written_to(self, family: str) -> None:
        images, drawn = random_images(), draw(family)
        before = images.clone()
        together = apply(images, drawn)
        assert torch.equal(images, before)
        for index in range(len(images)):
            alone = Draw(family, {name: value[index, None] for name, value in drawn.values.items()})
            assert relative_error(together[index], apply(images[index, None], alone)[0]) < 1e-14

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("family", FAMILIES)
    def test_images_lie_in_memory_as_they_came(self, family: str, channels: int) -> None:
        """Every other layout would be another function to a compiler; with one channel, strides alone tell."""
        images = random_images(channels=channels).requires_grad_()
        augmented = apply(images, draw(family))
        (gradient,) = torch.autograd.grad(augmented, images, torch.ones_like(augmented))
        assert augmented.stride() == gradient.stride() == images.stride()

    def test_no_family_leaves_images_as_they_are(self) -> None:
        images = random_images()
        assert Augmentation().draw(6, 8, generator(0)) is None
        assert apply(images, None) is images


class TestLinearity:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_every_family_is_affine_in_the_images_and_all_but_color_linear(self, family: str) -> None:
        drawn, (one, other) = draw(family), random_images(12).split(6)
        nothing = apply(torch.zeros_like(one), drawn)
        assert bool(nothing.any()) == (family == "color")
        mixed = apply(2 * one - 3 * other, drawn) - nothing
        expected = 2 * (apply(one, drawn) - nothing) - 3 * (apply(other, drawn) - nothing)
        assert relative_error(mixed, expected) < 1e-14

    @pytest.mark.parametrize("align_corners", [False, True])
    @pytest.mark.parametrize("family", FAMILIES)
    def test_first_and_second_derivatives(self, family: str, align_corners: bool) -> None:
        drawn = draw(family, batch=2, side=5)
        images = random_images(2, 2, 5).requires_grad_()

        def curved(x: Tensor) -> Tensor:  # the second derivative of an affine function alone is nought
            return apply(x, drawn, align_corners).sin()

        assert torch.autograd.gradcheck(curved, images)
        assert torch.autograd.gradgradcheck(curved, images)


class TestColor:
    def test_brightness_then_saturation_then_contrast(self) -> None:
        def reference(image: Tensor, brightness: float, saturation: float, contrast: float) -> Tensor:
            image, side = image + brightness, image.shape[-1]
            for row in range(side):
                for column in range(side):
                    grey = sum(image[:, row, column]) / len(image)
                    image[:, row, column] = (image[:, row, column] - grey) * saturation + grey
            mean = sum(image.flatten()) / image.numel()
            return (image - mean) * contrast + mean

        images, drawn = random_images(), draw("color")
        assert relative_error(apply(images, drawn), each_with_its_own(images, drawn, reference)) < 1e-7

    def test_neutral_parameters_change_nothing(self) -> None:
        images, one = random_images(), torch.ones(6)
        drawn = Draw("color", {"brightness": 0 * one, "saturation": one, "contrast": one})
        assert relative_error(apply(images, drawn), images) < 1e-14


class TestCrop:
    @pytest.mark.parametrize("side", [8, 32])
    def test_moves_the_window_over_zeros(self, side: int) -> None:
        margin = side // 8

        def reference(image: Tensor, rows: int, columns: int) -> Tensor:
            padded = torch.zeros(len(image), side + 2 * margin, side + 2 * margin, dtype=image.dtype)
            padded[:, margin:-margin, margin:-margin] = image
            return padded[:, margin + rows : margin + rows + side, margin + columns : margin + columns + side]

        images, drawn = random_images(40, side=side), draw("crop", 40, side)
        assert torch.equal(apply(images, drawn), each_with_its_own(images, drawn, reference))


class TestCutout:
    @pytest.mark.parametrize("side", [7, 8, 10])
    def test_blanks_the_square_with_clipped_indices_around_every_centre(self, side: int) -> None:
        hole = int(side / 2 + 0.5)
        centres = torch.arange(side + 1 - hole % 2)
        drawn = Draw("cutout", dict(zip(("row", "column"), torch.cartesian_prod(centres, centres).T, strict=True)))

        def reference(image: Tensor, row: int, column: int) -> Tensor:
            image = image.clone()
            for i in range(hole):
                for j in range(hole):
                    y = min(max(row - hole // 2 + i, 0), side - 1)
                    x = min(max(column - hole // 2 + j, 0), side - 1)
                    image[:, y, x] = 0
            return image

        images = random_images(len(centres) ** 2, side=side)
        assert torch.equal(apply(images, drawn), each_with_its_own(images, drawn, reference))


class TestFlip:
    def test_mirrors_left_and_right(self) -> None:
        images = random_images(2)
        flipped = apply(images, Draw("flip", {"mirrored": torch.tensor([1.0, 0.0])}))
        assert torch.equal(flipped[0], torch.stack([images[0, :, :, 7 - column] for column in range(8)], dim=-1))
        assert torch.equal(flipped[1], images[1])


def sampled(image: Tensor, matrix: list[list[float]], align_corners: bool) -> Tensor:
    """Bilinear sampling of one image at matrix @ (u, v), in coordinates where the image is [−1, 1]²; zeros outside."""
    side = image.shape[-1]
    result = torch.zeros_like(image)

    def normalised(pixel: int) -> float:
        return 2 * pixel / (side - 1) - 1 if align_corners else (2 * pixel + 1) / side - 1

    def in_pixels(place: float) -> float:
        return (place + 1) / 2 * (side - 1) if align_corners else ((place + 1) * side - 1) / 2

    for row in range(side):
        for column in range(side):
            u, v = normalised(column), normalised(row)
            x = in_pixels(matrix[0][0] * u + matrix[0][1] * v)
            y = in_pixels(matrix[1][0] * u + matrix[1][1] * v)
            for i in (math.floor(y), math.floor(y) + 1):
                for j in (math.floor(x), math.floor(x) + 1):
                    if 0 <= i < side and 0 <= j < side:
                        result[:, row, column] += (1 - abs(y - i)) * (1 - abs(x - j)) * image[:, i, j]
    return result


@pytest.mark.parametrize("align_corners", [False, True])
class TestScaleAndRotate:
    @pytest.mark.parametrize("side", [7, 8])
    def test_scale_samples_at_multiples_of_the_coordinates(self, side: int, align_corners: bool) -> None:
        images, drawn = random_images(side=side), draw("scale", side=side)
        expected = each_with_its_own(images, drawn, lambda image, x, y: sampled(image, [[x, 0], [0, y]], align_corners))
        assert relative_error(apply(images, drawn, align_corners), expected) < 1e-6

    @pytest.mark.parametrize("side", [7, 8])
    def test_rotate_samples_at_rotated_coordinates(self, side: int, align_corners: bool) -> None:
        def reference(image: Tensor, radians: float) -> Tensor:
            cosine, sine = math.cos(radians), math.sin(radians)
            return sampled(image, [[cosine, -sine], [sine, cosine]], align_corners)

        images, drawn = random_images(side=side), draw("rotate", side=side)
        assert relative_error(apply(images, drawn, align_corners), each_with_its_own(images, drawn, reference)) < 1e-6

    def test_scale_by_one_and_rotation_by_nought_change_nothing(self, align_corners: bool) -> None:
        images, one = random_images(), torch.ones(6)
        for drawn in (Draw("scale", {"x": one, "y": one}), Draw("rotate", {"radians": 0 * one})):
            assert relative_error(apply(images, drawn, align_corners), images) < 1e-14

    def test_a_quarter_turn_is_exact(self, align_corners: bool) -> None:
        images = random_images()
        drawn = Draw("rotate", {"radians": torch.full((6,), math.pi / 2, dtype=torch.float64)})
        assert relative_error(apply(images, drawn, align_corners), images.rot90(1, (2, 3))) < 1e-12

    def test_a_scale_above_one_shrinks_and_leaves_a_border_of_zeros(self, align_corners: bool) -> None:
        drawn = Draw("scale", {"x": torch.full((6,), 2.0), "y": torch.ones(6)})
        shrunk = apply(random_images(), drawn, align_corners)
        assert not shrunk[..., [0, 7]].any()
        assert shrunk[..., 4].any()


class TestSettings:
    @pytest.mark.parametrize(
        ("families", "message"),
        [
            (("flip", "blur", "mixup"), "not blur, mixup$"),
            (("flip", "crop", "flip"), "family may be named once, not flip, crop, flip$"),
        ],
    )
    def test_unknown_and_repeated_families_are_refused(self, families: tuple[str, ...], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            Augmentation(families=families)

    @pytest.mark.parametrize(
        ("text", "families"),
        [
            ("dataset", ("flip", "scale")),
            ("none", ()),
            ("color_crop_cutout_flip_scale_rotate", tuple(FAMILIES)),
            ("crop", ("crop",)),
        ],
    )
    def test_parse_families(self, text: str, families: tuple[str, ...]) -> None:
        assert parse_families(text, ("flip", "scale")) == families
