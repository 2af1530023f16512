"""Training experts on Ray actors: each trains a group at a time, and one that is lost is replaced."""

import math
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

import trainables.actor
from orchestrator.errors import ClusterError, UserError
from orchestrator.live import progress_bar
from trainables.files import is_disk_full

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.cluster import Resources
    from orchestrator.inputs import Inputs

__all__ = ["train_experts"]

MOST_REPLACEMENTS = 3
"""Actors that replace one after another before an expert of their group gets further."""
PATIENCE_S = 60.0
"""How long nothing may happen, because Ray has no room for any actor, before that is said."""


def train_experts(inputs: "Inputs", resources: "Resources", missing: list[int], console: "Console") -> None:
    """Train experts on actors, and enter each in the manifest as it is finished. Hold the store's lock.

    Experts that the manifest lists go on from the end of their files. Once an expert diverges no other is begun, but
    those under way are finished and kept.

    Raises:
        UserError: An expert diverged.
        ClusterError: An actor failed, or actors were lost again and again; what is on disk stays.
        OSError: The disk is full; see `files.is_disk_full`.
    """
    total = len(missing) * inputs.settings.space.horizon_epochs
    crew = _Crew(inputs, resources, missing, console)
    try:
        with progress_bar(console, f"Training {len(missing)} experts, epochs", total) as show:
            while crew.at_work:
                crew.step()
                show(crew.epochs)
    except RayTaskError as error:
        if is_disk_full(error.cause):
            raise error.cause from None
        raise ClusterError(f"an expert actor failed: {_last_line(error)}") from error
    except RayError as error:
        raise ClusterError(f"Ray failed while experts were trained: {_last_line(error)}") from error
    finally:
        crew.dismiss()
    if diverged := crew.diverged:
        more = f"; {len(diverged) - 1} more diverged" if len(diverged) > 1 else ""
        raise UserError(f"{diverged[0]}{more}")


@dataclass(kw_only=True, eq=False)
class _Place:
    """Where one actor after another trains experts, a group at a time."""

    actor: Any = None
    group_size: int = 0
    """Experts that the actor should be given at once; 0: it has not said."""
    group: list[int] = field(default_factory=list)
    """Experts under way: begun, and neither at the horizon nor diverged."""
    replacements: int = 0
    """Actors that were lost here since an expert last got further."""


class _Crew:
    """All places, the experts that wait for one, and what became of the others."""

    def __init__(self, inputs: "Inputs", resources: "Resources", missing: list[int], console: "Console") -> None:
        """Ask for as many actors as have room and work; they are not there yet."""
        self._store, self._console = inputs.store, console
        self._work = ray.put(inputs.expert_work(resources))
        self._resources = resources
        self._horizon = inputs.settings.space.horizon_epochs
        self._waiting = list(missing)
        self._done = dict.fromkeys(missing, 0)
        """Epochs that each expert has now: fewer after an actor was lost."""
        self._furthest = dict.fromkeys(missing, 0)
        """Epochs that each expert ever had."""
        self.diverged: list[str] = []
        """Why each expert that diverged did."""
        self._calls: dict[Any, _Place] = {}
        """What every actor that has something to do is doing."""
        self._places = [_Place() for _ in range(resources.workers(len(missing)))]
        self._fair = math.ceil(len(missing) / len(self._places))  # none idle while another has more than its part
        self._said_waiting = False
        for place in self._places:
            self._start(place)

    @property
    def at_work(self) -> bool:
        """Whether an expert is under way or to be begun; an actor that has not come yet is not waited for in vain."""
        return bool(self._waiting and not self.diverged) or any(place.group for place in self._places)

    @property
    def epochs(self) -> int:
        """Epochs that the experts have now, all together."""
        return sum(self._done.values())

    def step(self) -> None:
        """Wait for an actor, and give each that has come to an end of what it did something to do."""
        ready, _ = ray.wait(list(self._calls), timeout=PATIENCE_S)
        if not ready and not self._said_waiting and not any(place.group_size for place in self._calls.values()):
            self._console.print("Waiting for room on the cluster: no expert actor could be started yet")
        self._said_waiting = not ready
        for call in ready:
            place = self._calls.pop(call)
            try:
                answer = ray.get(call)
            except (RayActorError, OutOfMemoryError) as error:
                self._replace(place, error)
                continue
            if isinstance(answer, int):
                self._seat(place, answer)
            else:
                self._take_note(place, answer)
            self._go_on(place)

    def dismiss(self) -> None:
        """End all actors."""
        for place in self._places:
            ray.kill(place.actor)

    def _start(self, place: _Place) -> None:
        """Ask for an actor and for the size of its group; it comes when the cluster has room."""
        actor = ray.remote(trainables.actor.ExpertActor).options(**self._resources.actor_options)
        place.actor, place.group_size = actor.remote(self._work, self._resources.gpus_per_trial), 0
        self._calls[place.actor.at_once.remote()] = place

    def _seat(self, place: _Place, at_once: int) -> None:
        """Begin the group that a lost actor has left, as far as the new one can take it."""
        place.group_size = min(at_once, self._fair)
        place.group, surplus = place.group[: place.group_size], place.group[place.group_size :]
        self._waiting = surplus + self._waiting
        if place.group:
            self._begin(place)

    def _take_note(self, place: _Place, answer: trainables.actor.Progress) -> None:
        """Keep what a call came to, and have the actor train on where something is under way."""
        if answer.diverged or any(epochs > self._furthest[expert] for expert, epochs in answer.epochs.items()):
            place.replacements = 0
        for expert, epochs in answer.epochs.items():
            self._done[expert], self._furthest[expert] = epochs, max(epochs, self._furthest[expert])
        self.diverged += answer.diverged.values()
        if answer.finished:
            self._store.record(answer.finished)
        if answer.diverged and (self._calls or answer.under_way):
            self._console.print(f"{self.diverged[-1]}; finishing the experts under way")
        place.group = [expert for expert, epochs in answer.epochs.items() if epochs < self._horizon]
        if place.group:
            self._calls[place.actor.train_epoch.remote()] = place

    def _go_on(self, place: _Place) -> None:
        """Give an actor that has nothing to do the next group, or end it: a queued one may need its room."""
        if place.group:
            return
        if self._waiting and not self.diverged:
            place.group, self._waiting = self._waiting[: place.group_size], self._waiting[place.group_size :]
            self._begin(place)
        else:
            ray.kill(place.actor)

    def _begin(self, place: _Place) -> None:
        listed = self._store.read()
        extendable = [expert for expert in place.group if expert in listed]
        self._calls[place.actor.begin.remote(place.group, extendable)] = place

    def _replace(self, place: _Place, error: Exception) -> None:
        """Have another actor go on from the ends of the files that a lost one has left."""
        ray.kill(place.actor)  # it may be out of reach and not dead
        place.replacements += 1
        if place.replacements > MOST_REPLACEMENTS:
            raise ClusterError(
                f"an expert actor was lost {place.replacements} times in a row without an epoch of progress "
                f"({_reason(error)}); what is trained is kept, run the same command again to train the rest"
            ) from error
        self._store.recover(place.group)
        listed = self._store.read()
        ends = [
            f"expert {expert} from epoch {listed[expert].rows - 1 if expert in listed else 0} of {self._done[expert]}"
            for expert in place.group
        ]
        found = ", ".join(ends) or "nothing was begun"
        line = f"An expert actor was lost ({_reason(error)}); another goes on: {found}"
        self._console.print(line, markup=False)  # Ray's words may hold brackets
        self._start(place)


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()


def _reason(error: Exception) -> str:
    """Return in one short line why an actor was lost: Ray names the actor first, and ends with what never happened."""
    if getattr(error, "actor_init_failed", False):
        return _last_line(error)
    said = [line for line in str(error).splitlines() if line.strip() and not line.startswith("\t")]
    telling = [line for line in said if not line.startswith(("The actor died unexpectedly", "The actor never ran"))]
    return textwrap.shorten((telling or said or [type(error).__name__])[0], width=160, placeholder=" …")
