"""The problem of a headline run: dataset, network and setting, shared by its stages."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from benchmarks.published import Setting
from trainables.config.distillation import DistillationConfig
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset
from trainables.experts.identity import ExpertIdentity
from trainables.experts.store import TrajectoryStore
from trainables.networks.convnet import ConvNet

__all__ = ["Problem"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Setting, dataset, network and device of a run."""

    setting: Setting
    file: Path
    """Prepared dataset file."""
    dataset: ImageDataset
    """Its training and validation split; only the final evaluation opens the test split."""
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
        """Epochs of an expert: the last epoch that the widest matching range reads."""
        matching = self.config.matching_range
        return matching.T_plus - (matching.range_end == "exclusive") + self.config.M

    @property
    def augmentation(self) -> Augmentation:
        """The augmentation of experts and distillation."""
        return Augmentation(families=self.families)

    @property
    def evaluator(self) -> Augmentation:
        """The augmentation of networks that are trained to be tested."""
        return self.augmentation.for_evaluation()

    @cached_property
    def store(self) -> TrajectoryStore:
        """The store of the experts, addressed by their identity."""
        identity = ExpertIdentity.of(
            self.dataset,
            network=self.network,
            recipe=self.setting.recipe,
            augmentation=self.augmentation,
            seed=self.seed,
            arithmetic=self.setting.arithmetic,
        )
        return TrajectoryStore(self.stores, identity)
