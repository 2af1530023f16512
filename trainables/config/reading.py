"""How the files of a dataset are read."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from trainables.config.checks import require, require_whole

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
    """The split of the files that is the test split; auto: the one that is labelled, test before validation."""

    def __post_init__(self) -> None:
        """Refuse invalid settings."""
        require_whole(self, "image_size")
        require(self.fit in ("crop", "pad", "squash"), f"fit is crop, pad or squash, not {self.fit}")
        require(
            _is_colour(self.background), f"background is a colour's name, as in CSS, or #rrggbb, not {self.background}"
        )
        require(self.damaged in ("refuse", "skip"), f"damaged is refuse or skip, not {self.damaged}")
        require(0 < self.test_share <= 0.5, f"test_share must be larger than 0 and at most 0.5, not {self.test_share}")
        require(
            self.test_split in ("auto", "test", "validation"),
            f"test_split is auto, test or validation, not {self.test_split}",
        )

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Build from a flat mapping; a field that it lacks, as in sets of earlier versions, has its default."""
        return cls(**{field.name: settings[field.name] for field in fields(cls) if field.name in settings})

    def changed(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults."""
        return {name: value for name, value in asdict(self).items() if value != getattr(AS_IT_IS, name)}


def _is_colour(text: str) -> bool:
    if text == "white" or re.fullmatch("#[0-9a-fA-F]{6}", text):
        return True
    from PIL import ImageColor  # only here: few readings name another colour

    return text.lower() in ImageColor.colormap


AS_IT_IS = Reading()
"""Images as they are in their files."""
