"""The baselines' sets, made by one worker while other workers measure. docs/method.md, "Coresets"."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray

from orchestrator.cluster.resources import Resources
from orchestrator.cluster.tasks import Task
from orchestrator.cluster.worker_code import remote_actor
from orchestrator.results.entries import ComparedSet
from orchestrator.stages.inputs import Inputs
from orchestrator.state.implementations import implementations
from search_spaces import Space
from search_spaces.entry import Kind
from trainables.seeding import seed_of
from trainables.workers.baselines import BaselineMaker, BaselineWork

__all__ = ["Baselines", "Made", "chosen_baselines"]


def chosen_baselines(space: Space) -> list[str]:
    """Return the baselines that a `Baselines` worker makes: all but random images, which the finals draw themselves."""
    return [name for name in space.baselines if name != "random"]


@dataclass(frozen=True)
class Made:
    """What a worker makes before networks can be trained with it: the key of the task that makes it."""

    repeat: int
    """Every repeat has its own scoring runs and choices."""
    wanted: ComparedSet | None
    """The set; None: the teacher of the soft regimes."""


class Baselines:
    """A worker that makes the teacher and one set per baseline method, one after another, from the same scoring runs.

    Ray ends the worker after its last task, once nothing refers to it. If it is lost, another makes the rest; a set
    that is stored already is not made again.
    """

    def __init__(
        self, inputs: Inputs, resources: Resources, sets: Sequence[ComparedSet], *, teacher: bool, repeat: int = 0
    ) -> None:
        """Keep the inputs; the worker starts with the first task."""
        self._inputs, self._resources, self._repeat, self._teacher = inputs, resources, repeat, teacher
        trained = teacher and inputs.settings.fixed["teacher"] != "expert"
        self._parts = [Made(repeat, wanted) for wanted in ([None] if trained else []) + list(sets)]
        self._worker: Any = None
        self._begun = dict[Made, Any]()
        """References of the results that the worker was asked for in advance."""

    def tasks(self) -> dict[Hashable, Task]:
        """Return a task for every set, with the path or URI of the set as result, and for the teacher.

        The teacher's result is its parameters, float32 [P].
        """
        before: list[tuple[Made, ...]] = [(), *((part,) for part in self._parts)]
        tasks: dict[Hashable, Task] = {
            part: Task(
                "the teacher" if part.wanted is None else f"the set {part.wanted.name}",
                lambda *_, part=part: self._start(part),
                needs,
            )
            for part, needs in zip(self._parts, before, strict=False)
        }
        expert = Made(self._repeat, None)
        if self._teacher and expert not in tasks:
            tasks[expert] = Task("the teacher", partial(_put_expert, self._inputs))
        return tasks

    def _start(self, part: Made) -> Any:
        """Return the reference of a part; a part that is asked for again was lost, and all from it on are made anew."""
        if part not in self._begun:
            self._begin(self._parts[self._parts.index(part) :])
        reference = self._begun.pop(part)
        if not self._begun:
            self._worker = None
        return reference

    def _begin(self, parts: Sequence[Made]) -> None:
        """Ask a new worker for parts."""
        if self._worker is not None:
            ray.kill(self._worker)
        settings = self._inputs.settings
        maker = remote_actor(BaselineMaker, self._resources)
        worker: Any = maker.remote(
            _work(self._inputs, self._resources), seed_of(settings.seed, "baselines", self._repeat)
        )
        for part in parts:
            if part.wanted is None:
                self._begun[part] = worker.teacher.remote()
            else:
                place = f"{settings.places.checkpoints}/baselines/{part.wanted.name}-{part.repeat}.safetensors"
                self._begun[part] = worker.make.remote(part.wanted.method, part.wanted.ipc, place)
        self._worker = worker


def _put_expert(inputs: Inputs) -> Any:
    """Return the Ray reference of the last parameters of the first expert."""
    horizon = inputs.settings.space.horizon_epochs
    return ray.put(inputs.store.open([0], horizon).snapshot(0, horizon).numpy())


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
        arithmetic=settings.arithmetic,
    )
