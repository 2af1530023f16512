"""The rule for a ConvNet's depth, without torch: a plan checks it too."""

from trainables.errors import ConfigError

__all__ = ["check_depth"]


def check_depth(depth: int, image_size: int) -> None:
    """Refuse a ConvNet whose pooling would leave no pixels.

    Args:
        depth: Number of convolution blocks; each halves the side.
        image_size: Side of an image, in pixels.

    Raises:
        ConfigError: The side is below 2 to the power of the depth.
    """
    if image_size < 2**depth:
        most = image_size.bit_length() - 1
        shallower = f"net_depth ≤ {most}, or " if most else ""
        raise ConfigError(
            f"a ConvNet of depth {depth} halves the image {depth} times: it needs a side of at least {2**depth} "
            f"pixels, not {image_size}; use {shallower}image_size ≥ {2**depth}"
        )
