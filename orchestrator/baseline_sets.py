"""The sets that a sweep's best one must beat, made by a worker while others measure. METHOD §6."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import ray

from orchestrator.cluster import Resources
from orchestrator.inputs import Inputs
from search_spaces.listed import BASELINES, listed
from trainables.baselines import BaselineMaker, BaselineWork
from trainables.seeding import seed_of

__all__ = ["Baselines", "chosen_baselines"]

TRIES = 3
"""How often what a worker was making is begun again after its process was lost."""


def chosen_baselines(fixed: Mapping[str, Any]) -> list[str]:
    """Return the names of the baselines that a sweep's fixed settings ask for, but random images, which are in any."""
    return [name for name in listed(fixed["baselines"], BASELINES) if name != "random"]


class Baselines:
    """A worker that makes the baselines' sets: of each method one, from one set of scoring runs.

    It gives what it makes as Ray's references, so that what is trained on a set waits for that set alone. It ends with
    the last of them, once nothing refers to it.
    """

    def __init__(self, inputs: Inputs, resources: Resources, repeat: int = 0) -> None:
        """Start nothing yet; another repeat has scoring runs and choices of its own."""
        self._inputs, self._resources, self._repeat = inputs, resources, repeat

    @cached_property
    def _maker(self) -> Any:
        """The worker, started when something is to be made."""
        worker = ray.remote(BaselineMaker).options(
            **self._resources.actor_options, max_restarts=TRIES, max_task_retries=TRIES
        )
        seed = seed_of(self._inputs.settings.seed, "baselines", self._repeat)
        return worker.remote(_work(self._inputs, self._resources), seed)

    def make(self, method: str, ipc: int) -> Any:
        """Return a reference to where a method's set is kept; one that a driver before has made is not made again."""
        place = f"{self._inputs.settings.checkpoints}/baselines/{method}-{ipc}-{self._repeat}.safetensors"
        return self._maker.make.remote(method, ipc, place)

    def teacher(self) -> Any:
        """Return a reference to the parameters, float32 [P], of who labels in the soft regimes."""
        settings = self._inputs.settings
        if settings.fixed["teacher"] == "expert":
            horizon = settings.space.horizon_epochs
            return ray.put(self._inputs.store.open([0], horizon).snapshot(0, horizon).numpy())
        return self._maker.teacher.remote()


def _work(inputs: Inputs, resources: Resources) -> BaselineWork:
    settings, fixed = inputs.settings, inputs.settings.fixed
    return BaselineWork(
        dataset=inputs.file,
        network=inputs.network,
        augmentation=inputs.evaluation_augmentation,
        kept=settings.workdir.scores,
        full_data_protocol=settings.full_data_protocol,
        validation_protocol=settings.validation_protocol,
        validation_networks=fixed["validation_networks"],
        squeeze_epochs=fixed["squeeze_epochs"],
        recover_iterations=fixed["recover_iterations"],
        device=resources.device,
    )
