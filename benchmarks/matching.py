"""A matching problem of random numbers, of any size: its network, its matcher and the matcher's arguments."""

from dataclasses import dataclass
from typing import Any

import torch

from trainables.data.augmentation import Augmentation
from trainables.distillation.inner_step import InnerStep
from trainables.distillation.kept_graphs import kept_graphs_budget, steps_to_keep
from trainables.distillation.matching import Matcher, draw_chunks
from trainables.distillation.micro_batches import micro_batch_for, spare_bytes
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator

__all__ = ["MatchingProblem"]


@dataclass(frozen=True, kw_only=True)
class MatchingProblem:
    """The size of one gradient of the matching loss."""

    images: int
    """Synthetic images."""
    classes: int
    size: int
    """Side of an image, in pixels."""
    width: int
    """Channels of the ConvNet."""
    depth: int
    """Blocks of the ConvNet."""
    steps: int
    """Inner steps, N."""
    batch: int
    """Images of an inner step."""
    families: tuple[str, ...] = ()
    """Augmentation families."""
    soft: bool = False
    """Whether labels are soft."""
    alpha: float = 0.01
    """Inner learning rate: the larger, the more of the gradient is second derivatives."""

    @property
    def network(self) -> ConvNet:
        """The network that is matched."""
        return ConvNet(
            channels=3, image_size=self.size, classes=self.classes, depth=self.depth, width=self.width
        )  # fmt: skip

    @property
    def augmentation(self) -> Augmentation:
        """The augmentation of the inner steps."""
        return Augmentation(families=self.families)

    def matcher(
        self,
        method: str,
        *,
        precision: str,
        compiled: bool,
        device: torch.device,
        share: float = 1.0,
        micro_batch: int | None = None,
        keep: bool = False,
    ) -> Matcher:
        """Return the matcher, with micro-batches as a trial has them; the unrolled gradient has none.

        Args:
            method: A name of `trainables.distillation.matching.METHODS`.
            precision: A name of `trainables.distillation.inner_step.PRECISIONS`.
            compiled: Whether the inner step is compiled.
            device: Where it runs.
            share: Share of the device's memory that it may take.
            micro_batch: Images of a micro-batch; None: a trial's choice.
            keep: Whether as many inner steps keep their graphs as a trial would let them; only for `exact`, uncompiled.

        Raises:
            ConfigError: The combination is refused, or the memory does not suffice.
        """
        network = self.network
        if method == "unrolled":
            micro_batch = None
        elif micro_batch is None:
            budget = spare_bytes(device, share)
            micro_batch = micro_batch_for(network, self.batch, device=device, budget_bytes=budget, precision=precision)
        step = InnerStep(network, precision=precision, compiled=compiled, micro_batch=micro_batch)
        kept = 0
        if keep and micro_batch is not None:
            budget = kept_graphs_budget(device, share)
            kept = steps_to_keep(
                network, self.steps, self.batch, micro_batch, precision, device=device, budget_bytes=budget
            )
        return Matcher(step, self.augmentation, method=method, kept_steps=kept)

    def arguments(self, device: torch.device, dtype: torch.dtype, steps: int | None = None) -> dict[str, Any]:
        """Return the arguments of a call of the matcher, the same numbers on every device and in every dtype.

        Args:
            device: Where they lie.
            dtype: torch.float32 or torch.float64.
            steps: Inner steps; None: those of the problem.
        """
        draws = generator("benchmark", "gradient")
        start = self.network.initial(draws)
        target = start + 0.01 * torch.randn(start.shape, generator=draws)
        images = torch.randn(self.images, 3, self.size, self.size, generator=draws).to(device, dtype)
        labels = torch.arange(self.images) * self.classes // self.images
        if self.soft:
            labels = torch.randn(self.images, self.classes, generator=draws).to(dtype)
        return {
            "start": start.to(device, dtype),
            "target": target.to(device, dtype),
            "images": images,
            "labels": labels.to(device),
            "alpha": self.alpha,
            "chunks": draw_chunks(images, steps or self.steps, self.batch, self.augmentation, draws),
        }
