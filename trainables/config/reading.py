"""How the files of a dataset are read."""

from dataclasses import dataclass

__all__ = ["AS_IT_IS", "Reading"]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the files of a dataset are read; docs/how-to/use-a-dataset.md."""

    image_size: int = 0
    """Height and width to which images are resized, in pixels; 0: as they are, and all of one square size."""
    fit: str = "crop"
    """How an image that is not square becomes square: its centre (crop), with margins (pad), or distorted (squash)."""
    background: str = "white"
    """What is behind transparent pixels, and in margins: a colour's name or #rrggbb."""
    damaged: str = "refuse"
    """What happens to a dataset with damaged images: refuse, or skip: they are left out."""
    test_share: float = 0.2
    """Share of each class's images that becomes the test split where the files have none."""
    test_split: str = "auto"
    """The split of the files that is the test split; auto: the one that is labelled and usually is."""


AS_IT_IS = Reading()
"""Images as they are in their files."""
