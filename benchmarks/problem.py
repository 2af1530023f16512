"""What a headline run works on: the dataset, the network and the setting that its stages share."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch

from benchmarks.published import Setting
from trainables.augmentation import Augmentation
from trainables.config import DistillationConfig
from trainables.datasets import ImageDataset
from trainables.inner_step import use_precision
from trainables.networks import ConvNet
from trainables.trajectories import TrajectoryStore

__all__ = ["Problem", "multiplying"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is done, on what, where."""

    setting: Setting
    file: Path
    """Prepared dataset file."""
    dataset: ImageDataset
    """Its training and validation split; the test split is opened by the last evaluation alone."""
    network: ConvNet
    families: tuple[str, ...]
    """DSA families of experts, distillation and evaluation."""
    stores: Path
    """Root folder of the expert stores."""
    seed: int
    device: torch.device

    @property
    def config(self) -> DistillationConfig:
        """The setting of the distillation."""
        return self.setting.config

    @property
    def horizon(self) -> int:
        """Epochs of an expert: as far as the matching range reads, at its widest."""
        matching = self.config.matching_range
        return matching.T_plus - (matching.range_end == "exclusive") + self.config.M

    @property
    def augmentation(self) -> Augmentation:
        """That of experts and distillation."""
        return Augmentation(families=self.families)

    @property
    def evaluator(self) -> Augmentation:
        """The evaluator's augmentation: its affine transforms do not align corners. METHOD §3."""
        return Augmentation(families=self.families, align_corners=False)

    @cached_property
    def store(self) -> TrajectoryStore:
        """The store of the experts, addressed by all that shapes one."""
        identity = {
            "dataset": self.dataset.digest,
            "network": asdict(self.network),
            "recipe": asdict(self.setting.recipe),
            "augmentation": list(self.families),
            "seed": self.seed,
        }
        return TrajectoryStore(self.stores, identity, self.network)


@contextmanager
def multiplying(precision: str, device: torch.device) -> Iterator[None]:
    """Multiply float32 in a precision for a while, then as before: as PyTorch does by itself, as our workers do.

    Raises:
        ConfigError: The device does not have the precision.
    """
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = (cuda.fp32_precision, cudnn.fp32_precision)
    use_precision(precision, device)
    try:
        yield
    finally:
        cuda.fp32_precision, cudnn.fp32_precision = before
