"""The pictures that a trial reports at a rung."""

from collections.abc import Sequence

from torch import Tensor

from trainables.data.pictures import draw_set, encode_picture, overview
from trainables.workers.rung import RungPictures

__all__ = ["draw_pictures"]


def draw_pictures(images: Tensor, class_names: Sequence[str]) -> RungPictures:
    """Draw a synthetic set in default order.

    Args:
        images: Displayable, float [ipc·C, ch, H, W] in [0, 1], on the CPU.
        class_names: Names of the C classes.
    """
    picture = draw_set(images, class_names)
    return RungPictures(png=encode_picture(picture, "PNG"), webp=encode_picture(overview(picture), "WEBP"))
