"""The baselines' sets, made by one worker while other workers measure. docs/method.md, "Coresets"."""

from functools import cached_property
from typing import Any

import ray

from orchestrator.cluster.resources import Resources
from orchestrator.results.entries import ComparedSet
from orchestrator.stages.inputs import Inputs
from orchestrator.state.implementations import implementations
from search_spaces import Space
from search_spaces.entry import Kind
from trainables.seeding import seed_of
from trainables.workers.baselines import BaselineMaker, BaselineWork

__all__ = ["Baselines", "chosen_baselines"]

TRIES = 3
"""How often a task is restarted after its worker process was lost."""


def chosen_baselines(space: Space) -> list[str]:
    """Return the baselines that a `Baselines` worker makes: all but random images, which the finals draw themselves."""
    return [name for name in space.baselines if name != "random"]


class Baselines:
    """A worker that makes one set per baseline method, all from the same scoring runs.

    Sets are returned as Ray references, so that a training waits only for its own set. Ray ends the worker after its
    last task, once nothing refers to it.
    """

    def __init__(self, inputs: Inputs, resources: Resources, repeat: int = 0) -> None:
        """Keep the inputs; the worker starts with the first task. Every repeat has its own scoring runs and choices."""
        self._inputs, self._resources, self._repeat = inputs, resources, repeat

    @cached_property
    def _maker(self) -> Any:
        """The worker, started at the first task."""
        worker = ray.remote(BaselineMaker).options(
            **self._resources.actor_options, max_restarts=TRIES, max_task_retries=TRIES
        )
        seed = seed_of(self._inputs.settings.seed, "baselines", self._repeat)
        return worker.remote(_work(self._inputs, self._resources), seed)

    def make(self, wanted: ComparedSet) -> Any:
        """Return a reference to the path or URI of a set; a set that an earlier driver has stored is not made again."""
        place = f"{self._inputs.settings.places.checkpoints}/baselines/{wanted.name}-{self._repeat}.safetensors"
        return self._maker.make.remote(wanted.method, wanted.ipc, place)

    def teacher(self) -> Any:
        """Return a reference to the parameters, float32 [P], of the teacher in the soft regimes."""
        settings = self._inputs.settings
        if settings.fixed["teacher"] == "expert":
            horizon = settings.space.horizon_epochs
            return ray.put(self._inputs.store.open([0], horizon).snapshot(0, horizon).numpy())
        return self._maker.teacher.remote()


def _work(inputs: Inputs, resources: Resources) -> BaselineWork:
    settings, fixed = inputs.settings, inputs.settings.fixed
    return BaselineWork(
        dataset=inputs.file,
        coresets=implementations(settings.space, Kind.CORESET),
        others=implementations(settings.space, Kind.BASELINE),
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
