"""What is ahead of a running sweep, as multiples of the work whose speed is measured now."""

from collections.abc import Collection
from dataclasses import dataclass

from orchestrator.planning.devices import GPUS
from orchestrator.planning.plan import Plan
from orchestrator.results.result_json import PlannedTrial

__all__ = ["Outlook", "overhead_s"]

STAGE_S, END_S = 5.0, 10.0
"""Seconds until the workers of a stage work, and of the report, MLflow's last entries and Ray's end: measured on the
digits. In a small sweep they are a tenth of its time; in a large one they do not matter."""


def overhead_s(stages: int) -> float:
    """Return the time that the later stages take beside their work, s, for so many of them, the report apart."""
    return stages * STAGE_S + END_S


@dataclass(frozen=True)
class Outlook:
    """The later work of a sweep, by its plan: only ratios of the plan's times count, not the times."""

    plan: Plan
    compiled: bool
    """Whether inner steps are compiled."""

    def after_experts(self, epochs: int) -> float:
        """Return all work after the experts, as a multiple of so many epochs of experts."""
        plan, work = self.plan, self.plan.work
        epoch_s = plan.core_s(work.experts) / plan.expert_epochs
        distilled_s = plan.core_s(work.search + work.repeats, compiled=self.compiled)
        return (distilled_s + self._measured_s) / (epoch_s * epochs)

    def after_distillations(self, iterations: int) -> float:
        """Return the finals' work without their distillations, in distillation iterations of one worker.

        Args:
            iterations: Those of a trial.
        """
        return self._measured_s * iterations / self.plan.core_s(self.plan.work.trial, compiled=self.compiled)

    def after_networks(self) -> float:
        """Return the work after the finals' networks, as a multiple of theirs."""
        return self.plan.core_s(self.plan.work.diagnostics) / self.plan.core_s(self.plan.work.networks)

    def trial(self, gpus: Collection[str], share: float) -> PlannedTrial | None:
        """Return what the plan says of the time of trial 0; None: the workers' GPU is not known, or not one.

        Args:
            gpus: Types of the workers' GPUs, by Ray's names; empty: a worker has a CPU core alone.
            share: The GPU's share that a worker has: a part of a GPU takes as many times longer.
        """
        if not gpus:
            seconds = self.plan.core_s(self.plan.work.first, compiled=self.compiled)
            return PlannedTrial("a CPU core", seconds, seconds)
        gpu = GPUS.get(next(iter(gpus))) if len(gpus) == 1 else None
        if gpu is None or not gpu.has(self.plan.on_gpu.precision):
            return None
        low_s, high_s = self.plan.gpu_s(self.plan.work.first, gpu)
        return PlannedTrial(next(iter(gpus)), low_s / share, high_s / share)

    @property
    def _measured_s(self) -> float:
        return self.plan.core_s(self.plan.work.networks + self.plan.work.diagnostics)
