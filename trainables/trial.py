"""The distillation trial: the face that Ray Tune sees of a distillation by any method. No arithmetic here.

A step of Tune is a rung: `validation_every_iterations` iterations and one validation. Everything that is the same for
all trials of a sweep is opened once a process and reused from trial to trial (`workbench`).

A trial keeps its own checkpoint (`checkpoints`), written before the result of a rung is reported and, within a rung, as
often as a twentieth of its time allows. Whoever begins a trial that has one goes on from it, on any node and under any
driver; the report of its last rung is then repeated, because nobody knows whether it arrived.
"""

import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from ray import tune

from trainables.checkpoints import checkpoint_place, read_checkpoint, write_checkpoint
from trainables.distillation import Distiller, Iteration
from trainables.errors import ConfigError
from trainables.files import is_disk_full
from trainables.labels import label_inconsistency
from trainables.learned import Update
from trainables.pace import WritingPace
from trainables.workbench import TrialWork, Workbench

__all__ = ["DistillationTrial"]


class _Done(NamedTuple):
    """What a rung's result needs of one of its iterations."""

    loss: float
    finite: bool
    skipped: bool
    floored: bool
    seconds: float


class _SettingsFailed(Exception):
    """Settings that cannot work; the message says why and what would."""


class DistillationTrial(tune.Trainable):
    """Distils with one setting and reports the accuracy on the validation split at every rung.

    A result holds `iteration`, `validation_accuracy` and what else a rung came to. Settings that cannot work end the
    trial with a last result that has the reason as `failed`, and no number as accuracy. A disk without room for its
    checkpoint ends it with a result that has the remedy as `halted`.
    """

    _done: list[_Done]
    """The rung's iterations so far."""
    _unconfirmed: dict[str, Any] | None
    """A rung's result that may not have arrived before this process took the trial over."""
    _fault: _SettingsFailed | None
    """Why the settings cannot even begin."""

    def setup(self, config: dict[str, Any], work: TrialWork) -> None:  # type: ignore[override]
        """Open what all trials share, then begin this one."""
        if work.device == "cpu":
            torch.set_num_threads(1)
        self._bench = Workbench(work)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in this process."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Run one rung, or what is left of it."""
        try:
            if self._fault is not None:
                raise self._fault
            result, self._unconfirmed = self._unconfirmed, None
            if result is None:
                self._distill()
                result = self._rung_result()
                self._done = []
                self._save(result)
        except _SettingsFailed as error:
            return {**self._last_words(), "failed": str(error)}
        except OSError as error:
            if not is_disk_full(error):
                raise
            return {**self._last_words(), "halted": f"no room for the checkpoint {self._place}; free space there"}
        return result

    def _begin(self, config: dict[str, Any]) -> None:
        self._place, self._place_within_rung = (
            checkpoint_place(self._bench.work.checkpoints, config["trial_number"], within_rung=within)
            for within in (False, True)
        )
        self._settings = dict(config)
        if self._bench.work.device == "cuda":
            torch.cuda.reset_peak_memory_stats()  # else it would be that of all trials of this process
        self._began, self._seconds_before = time.perf_counter(), 0.0
        self._pace = WritingPace()
        self._done, self._unconfirmed, self._fault = [], None, None
        try:
            self._distiller = self._bench.distiller(config)
        except ConfigError as error:
            self._fault = _SettingsFailed(str(error))
            return
        states = [read_checkpoint(place) for place in (self._place, self._place_within_rung)]
        # One of other settings is of a trial whose study was lost.
        if found := [state for state in states if state is not None and state["settings"] == self._settings]:
            self._go_on(max(found, key=lambda state: state["iteration"]))  # the rung's own first, where they are alike

    def _go_on(self, state: Mapping[str, Any]) -> None:
        """Take up a checkpoint."""
        own = self._distiller.state_dict().keys()
        self._distiller.load_state_dict({name: state[name] for name in state if name in own})
        self._seconds_before = state["trial_seconds"]
        self._done = [_Done(*each) for each in state["rung"]]
        self._unconfirmed = state["unconfirmed"]
        if state["micro_batch"] != self._distiller.micro_batch:  # the same rounding as before
            self._bench.limit(self._distiller, state["micro_batch"])

    def _save(self, unconfirmed: dict[str, Any] | None) -> None:
        """Write the checkpoint: of a rung with its result, or of one under way."""
        state = {
            **self._distiller.state_dict(),
            "settings": self._settings,
            "trial_seconds": self._seconds,
            "rung": self._done,
            "unconfirmed": unconfirmed,
            "micro_batch": self._distiller.micro_batch,
        }
        with self._pace.measured():
            write_checkpoint(self._place if unconfirmed else self._place_within_rung, state)

    @property
    def _seconds(self) -> float:
        """Time the trial has run, here and wherever it ran before."""
        return self._seconds_before + time.perf_counter() - self._began

    def _distill(self) -> None:
        """Run the iterations that are left of the rung."""
        distiller, every = self._distiller, self._bench.work.validation_every_iterations
        last = min((distiller.iteration - len(self._done)) + every, distiller.config.iterations)
        while distiller.iteration < last:
            began = time.perf_counter()
            each = self._iterate()
            floored = isinstance(each, Iteration) and each.floored
            self._done.append(_Done(each.loss, each.finite, each.skipped, floored, time.perf_counter() - began))
            if self._pace.due():
                self._save(None)

    def _iterate(self) -> Update:
        """Run an iteration; where the GPU's memory does not suffice for it, once more with half the images at a time.

        The distiller is as it was before the iteration until the gradient is there, so the second go is the same one.
        """
        distiller = self._distiller
        try:
            return distiller.step()
        except torch.cuda.OutOfMemoryError:
            whole = distiller.micro_batch or min(distiller.config.batch_syn, len(distiller.images))
        self._bench.limit(distiller, max(1, whole // 2))
        torch.cuda.empty_cache()
        try:
            return distiller.step()
        except torch.cuda.OutOfMemoryError as error:
            raise _SettingsFailed(
                f"out of GPU memory with {max(1, whole // 2)} images at a time; lower --memory-budget or "
                f"{'batch_syn' if isinstance(distiller, Distiller) else 'batch_real'}"
            ) from error

    def _rung_result(self) -> dict[str, Any]:
        """Validate, and return what the rung came to.

        Raises:
            _SettingsFailed: Nothing in it was finite.
        """
        distiller, done = self._distiller, self._done
        config, count = distiller.config, len(done)
        finite = [each.loss for each in done if each.finite]
        if not finite:
            trains = config.method != "distribution"
            remedy = f" (α = {distiller.alpha:.3g}); lower alpha_init or lr_pixel" if trains else "; lower lr_pixel"
            raise _SettingsFailed(
                f"diverged: no finite update in iterations {distiller.iteration - count} to {distiller.iteration - 1}"
                f"{remedy}"
            )
        return {
            "iteration": distiller.iteration,
            "validation_accuracy": self._bench.validate(distiller.result_images),
            distiller.loss_name: sum(finite) / len(finite),
            "skip_rate": sum(each.skipped for each in done) / count,
            "not_finite_rate": 1 - len(finite) / count,
            "image_displacement": distiller.displacement,
            "micro_batch_images": distiller.micro_batch or config.batch_syn,
            **(self._of_trajectory(distiller) if isinstance(distiller, Distiller) else {}),
            "seconds_per_iteration": sum(each.seconds for each in done) / count,
            "trial_seconds": self._seconds,
            **self._memory(),
            "done": distiller.iteration >= config.iterations,
        }

    def _of_trajectory(self, distiller: Distiller) -> dict[str, float]:
        """Return what a rung of trajectory matching comes to and no other method has."""
        config = distiller.config
        soft = config.label_mode == "soft"
        return {
            "alpha": distiller.alpha,
            "floor_rate": sum(each.floored for each in self._done) / len(self._done),
            **({"label_inconsistency": label_inconsistency(distiller.labels, config.ipc)} if soft else {}),
            "upper_bound_epochs": config.matching_range.upper(distiller.iteration - 1),
        }

    def _memory(self) -> dict[str, float]:
        """Return the trial's memory in MiB: on a GPU the most that its tensors took since it began in this process.

        On a CPU it is what the process holds now: having run other trials before, it knows no peak of this one.
        """
        if self._bench.work.device == "cuda":
            return {"peak_memory_mib": torch.cuda.max_memory_allocated() / 2**20}
        import psutil  # only here: a GPU machine may have torch and nothing else

        return {"resident_memory_mib": psutil.Process().memory_info().rss / 2**20}

    def _last_words(self) -> dict[str, Any]:
        """Return what a last result holds that is no rung's."""
        iteration = 0 if self._fault else self._distiller.iteration
        return {
            "iteration": iteration, "validation_accuracy": math.nan, "trial_seconds": self._seconds, "done": True
        }  # fmt: skip
