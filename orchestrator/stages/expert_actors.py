"""Training of experts on Ray actors: an actor trains one group of experts at a time, and a lost actor is replaced."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

import trainables.workers.expert
from orchestrator.cluster.losses import Patience, check_gpu_memory, is_lost
from orchestrator.cluster.worker_code import remote_actor
from orchestrator.errors import ClusterError, UserError
from orchestrator.terminal.progress_bar import progress_bar
from trainables.storage.atomic import is_disk_full

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from orchestrator.cluster.resources import Resources
    from orchestrator.stages.inputs import Inputs
    from orchestrator.terminal.steps import Steps

__all__ = ["train_experts"]

QUIET_S = 60.0
"""Seconds without an answer, because Ray has no room for any actor, before that is reported."""


def train_experts(
    inputs: "Inputs",
    resources: "Resources",
    missing: list[int],
    console: "Console",
    patience: Patience,
    follow: "Callable[[Steps], None]" = lambda steps: None,
) -> None:
    """Train experts on actors, and add every expert to the manifest when it is finished.

    The caller holds the store's lock. Experts that the manifest lists resume from the end of their files. After an
    expert has diverged no other expert is started, but the running ones are finished and kept.

    Raises:
        UserError: An expert diverged.
        GpuMemoryError: An actor's GPU had too little memory.
        ClusterError: An actor failed, or actors were lost for longer than the patience; files on disk are kept.
        OSError: The disk is full; see `trainables.storage.atomic.is_disk_full`.
    """
    total = len(missing) * inputs.settings.space.horizon_epochs
    pool = ActorPool(inputs, resources, missing, console, patience)
    try:
        with progress_bar(console, f"Training {len(missing)} experts, epochs", total, follow) as show:
            while pool.at_work:
                pool.step()
                show(pool.epochs)
    except RayTaskError as error:
        check_gpu_memory("the training of experts", error, patience.remedy)
        if is_disk_full(error.cause):
            raise error.cause from None
        raise ClusterError(f"an expert actor failed: {_last_line(error)}") from error
    except RayActorError as error:  # its creation raised an error: it was not lost
        check_gpu_memory("the start of an expert actor", error, patience.remedy)
        raise ClusterError(f"an expert actor cannot start: {_last_line(error)}") from error
    except RayError as error:
        raise ClusterError(f"Ray failed while experts were trained: {_last_line(error)}") from error
    finally:
        pool.dismiss()
    if diverged := pool.diverged:
        others = f"; {len(diverged) - 1} more diverged" if len(diverged) > 1 else ""
        raise UserError(f"{diverged[0]}{others}")


@dataclass(eq=False)
class Slot:
    """A slot for one actor and its replacements, which train one group of experts at a time."""

    number: int
    actor: Any = None
    group_size: int = 0
    """Experts that the actor can train at once; 0: the actor has not reported it yet."""
    group: list[int] = field(default_factory=list)
    """Running experts: started, and neither at the horizon nor diverged."""


class ActorPool:
    """All slots, the waiting experts, and the progress of the others."""

    def __init__(
        self, inputs: "Inputs", resources: "Resources", missing: list[int], console: "Console", patience: Patience
    ) -> None:
        """Request as many actors as there is room and work for; Ray starts them later."""
        self._store, self._console, self._patience = inputs.store, console, patience
        self._work = ray.put(inputs.expert_work(resources))
        self._resources = resources
        self._horizon = inputs.settings.space.horizon_epochs
        self._waiting = list(missing)
        self._done = dict.fromkeys(missing, 0)
        """Current epochs by expert; the number falls when an actor is lost."""
        self._furthest = dict.fromkeys(missing, 0)
        """Most epochs so far by expert."""
        self.diverged: list[str] = []
        """Reasons of the experts that diverged."""
        self._calls: dict[Any, Slot] = {}
        """Slots by the Ray reference of their actor's running call."""
        self._slots = [Slot(number) for number in range(resources.workers(len(missing)))]
        self._lost: list[Slot] = []
        """Slots whose actor was lost and is to be replaced."""
        self._even_share = math.ceil(len(missing) / len(self._slots))  # so that no actor idles while another has more
        self._said_waiting = False
        for slot in self._slots:
            self._start(slot)

    @property
    def at_work(self) -> bool:
        """Whether an expert is running or to be started; an actor without work is not waited for."""
        return bool(self._waiting and not self.diverged) or any(slot.group for slot in self._slots)

    @property
    def epochs(self) -> int:
        """Current epochs, summed over the experts."""
        return sum(self._done.values())

    def step(self) -> None:
        """Replace lost actors, wait for answers, record them, and give those actors their next work.

        Raises:
            ClusterError: Actors were lost for longer than the patience.
            RayTaskError: An actor raised an error.
            RayActorError: The creation of an actor raised an error.
        """
        pause = self._patience.pause_left
        if not pause:
            self._replace_lost()
        if not self._calls:
            self._patience.wait()
            return
        ready, _ = ray.wait(list(self._calls), timeout=pause or QUIET_S)
        if not ready and not pause:
            self._tell_of_no_room()
        for call in ready:
            self._said_waiting = False
            slot = self._calls.pop(call)
            try:
                answer = ray.get(call)
            except (RayError, MemoryError) as error:
                if not is_lost(error):
                    raise
                self._lose(slot, error)
                continue
            if isinstance(answer, int):
                self._assign_group(slot, answer)
            else:
                self._record_progress(slot, answer)
            self._next_group(slot)

    def dismiss(self) -> None:
        """End all actors."""
        for slot in self._slots:
            ray.kill(slot.actor)

    def _tell_of_no_room(self) -> None:
        if not self._said_waiting and not any(slot.group_size for slot in self._calls.values()):
            self._console.print("Waiting for room on the cluster: no expert actor could be started yet")
        self._said_waiting = True

    def _start(self, slot: Slot) -> None:
        """Request an actor, and its group's size; Ray starts the actor when the cluster has room."""
        actor = remote_actor(trainables.workers.expert.ExpertActor, self._resources)
        slot.actor, slot.group_size = actor.remote(self._work, self._resources.gpus_per_trial), 0
        self._calls[slot.actor.at_once.remote()] = slot

    def _assign_group(self, slot: Slot, at_once: int) -> None:
        """Restart a lost actor's group on the new actor; experts that exceed its group size wait again."""
        slot.group_size = min(at_once, self._even_share)
        slot.group, surplus = slot.group[: slot.group_size], slot.group[slot.group_size :]
        self._waiting = surplus + self._waiting
        if slot.group:
            self._begin(slot)

    def _record_progress(self, slot: Slot, answer: trainables.workers.expert.GroupProgress) -> None:
        """Record the answer of a training call, and train the next epoch if the group has running experts."""
        if answer.diverged or any(epochs > self._furthest[expert] for expert, epochs in answer.epochs.items()):
            self._patience.progress(_name(slot))
        for expert, epochs in answer.epochs.items():
            self._done[expert], self._furthest[expert] = epochs, max(epochs, self._furthest[expert])
        self.diverged += answer.diverged.values()
        if answer.finished:
            self._store.record(answer.finished)
        if answer.diverged and (self._calls or answer.under_way):
            self._console.print(f"{self.diverged[-1]}; finishing the experts under way")
        slot.group = [expert for expert, epochs in answer.epochs.items() if epochs < self._horizon]
        if slot.group:
            self._calls[slot.actor.train_epoch.remote()] = slot

    def _next_group(self, slot: Slot) -> None:
        """Give an idle actor the next group, or end it, because a queued actor may need its resources."""
        if slot.group:
            return
        if self._waiting and not self.diverged:
            slot.group, self._waiting = self._waiting[: slot.group_size], self._waiting[slot.group_size :]
            self._begin(slot)
        else:
            ray.kill(slot.actor)

    def _begin(self, slot: Slot) -> None:
        listed = self._store.read()
        extendable = [expert for expert in slot.group if expert in listed]
        self._calls[slot.actor.begin.remote(slot.group, extendable)] = slot

    def _lose(self, slot: Slot, error: Exception) -> None:
        """End a lost actor, and have it replaced; the new one resumes from the ends of its files.

        Raises:
            ClusterError: Actors were lost for longer than the patience.
        """
        ray.kill(slot.actor)  # it may be unreachable and still running
        self._lost.append(slot)
        self._store.recover(slot.group)
        self._patience.lost(_name(slot), error)
        self._patience.check()

    def _replace_lost(self) -> None:
        """Replace lost actors, as far as they may run at once with those that are at work."""
        while self._lost and len(self._calls) < self._patience.workers(len(self._slots)):
            slot = self._lost.pop(0)
            listed = self._store.read()
            ends = [
                f"expert {expert} from epoch {listed[expert].rows - 1 if expert in listed else 0} of "
                f"{self._done[expert]}"
                for expert in slot.group
            ]
            self._console.print(f"Another expert actor resumes: {', '.join(ends) or 'no expert was started'}")
            self._start(slot)


def _name(slot: Slot) -> str:
    return f"expert actor {slot.number}"


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()
