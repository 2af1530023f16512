"""The distillation trial: the interface between Ray Tune and a distillation by any method. It has no arithmetic.

A step of Tune is a rung: `validation_every_iterations` iterations and one validation. Everything that is the same for
all trials of a sweep is loaded once per process and shared by its trials (`workbench`).

A trial writes its own checkpoint (`checkpoints`): before it reports the result of a rung and, within a rung, as often
as a twentieth of its time allows. A trial that has a checkpoint resumes from it, on any node and under any driver. The
report of its last rung is then repeated, because it may not have arrived.
"""

import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from ray import tune

from trainables.distillation.learned_images import FIRST_UPDATES
from trainables.distillation.soft_labels import label_inconsistency
from trainables.distillation.starting_alpha import AlphaCurve
from trainables.distillation.trajectory import Distiller, Iteration
from trainables.errors import ConfigError
from trainables.memory_errors import refused_without_gpu_memory
from trainables.storage.atomic import is_disk_full
from trainables.storage.checkpoints import checkpoint_place, read_checkpoint, write_checkpoint
from trainables.storage.writing_pace import WritingPace
from trainables.workers.iteration import iterate
from trainables.workers.process import prepare_process
from trainables.workers.rung import Halted, RungResult, SettingsFailed
from trainables.workers.workbench import TrialWork, Workbench

__all__ = ["DistillationTrial"]

_MORE_MEMORY = "lower batch_syn or net_width, or let fewer trials share a GPU: --gpus-per-trial 1"


class _IterationRecord(NamedTuple):
    """The values of one iteration that the rung's result needs."""

    loss: float
    finite: bool
    skipped: bool
    floored: bool
    seconds: float


class DistillationTrial(tune.Trainable):
    """Runs one distillation and reports the accuracy on the validation split at every rung.

    A step's result is the report of a `RungResult`, with the pictures of the images. If the settings are invalid or
    diverge, it has the reason and the trial ends. If the disk is full, it has the remedy and the trial halts.
    """

    _rung: list[_IterationRecord]
    """The completed iterations of the rung."""
    _unconfirmed: RungResult | None
    """A rung's result that may not have arrived before this process resumed the trial."""
    _fault: ConfigError | None
    """Why the settings are invalid; None if they are valid."""
    _alpha_curve: AlphaCurve | None
    """The losses by which α was found; None: alpha_init is a number."""

    def setup(self, config: dict[str, Any], work: TrialWork) -> None:  # type: ignore[override]
        """Load the data that all trials share, then begin this trial."""
        prepare_process(work.device, work.arithmetic)
        self._bench = Workbench(work)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in this process."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Run one rung, or the rest of an interrupted one."""
        try:
            report = self._next_result().to_report()
            self._bench.draw(self._distiller.result_images).add_to(report)
            return report
        except ConfigError as error:
            return self._failure_result(SettingsFailed(str(error))).to_report()
        except OSError as error:
            if not is_disk_full(error):
                raise
            remedy = f"no room for the checkpoint {self._place}; free space there"
            return self._failure_result(Halted(remedy)).to_report()

    def _next_result(self) -> RungResult:
        """Return the unconfirmed result if there is one; otherwise run a rung and return its result.

        Raises:
            ConfigError: The settings are invalid or diverge.
            OSError: The checkpoint cannot be written.
        """
        if self._fault is not None:
            raise self._fault
        result, self._unconfirmed = self._unconfirmed, None
        if result is None:
            self._distill()
            result = self._rung_result()
            self._rung = []
            self._save(result)
        return result

    def _begin(self, own: dict[str, Any]) -> None:
        """Begin or resume the trial with these own settings, which include its `trial_number`."""
        self._place, self._place_within_rung = (
            checkpoint_place(self._bench.work.checkpoints, own["trial_number"], within_rung=within)
            for within in (False, True)
        )
        self._settings = {**own, "shared": self._bench.work.settings_digest}
        if self._bench.work.device == "cuda":
            torch.cuda.reset_peak_memory_stats()  # otherwise the peak would be that of all trials of this process
        self._began, self._seconds_before = time.perf_counter(), 0.0
        self._pace = WritingPace()
        self._rung, self._unconfirmed, self._fault = [], None, None
        state = self._stored_state()
        try:
            with refused_without_gpu_memory("before the first iteration", _MORE_MEMORY):
                self._alpha_curve = AlphaCurve.of_state(state) or self._bench.starting_alpha(own)
                found = {} if self._alpha_curve is None else {"alpha_init": self._alpha_curve.best}
                self._distiller = self._bench.distiller({**own, **found})
        except ConfigError as error:
            self._fault = error
            return
        if state is not None:
            self._resume(state)

    def _stored_state(self) -> Mapping[str, Any] | None:
        """Return this trial's furthest checkpoint; None if it has none."""
        states = [read_checkpoint(place) for place in (self._place, self._place_within_rung)]
        # A checkpoint of other settings belongs to a trial whose study was lost.
        own_states = [state for state in states if state is not None and state["settings"] == self._settings]
        # At the same iteration, the checkpoint at the end of the rung comes first.
        return max(own_states, key=lambda state: state["iteration"], default=None)

    def _resume(self, state: Mapping[str, Any]) -> None:
        """Resume from a checkpoint."""
        own = self._distiller.state_dict().keys()
        self._distiller.load_state_dict({name: state[name] for name in state if name in own})
        self._seconds_before = state["trial_seconds"]
        self._rung = [_IterationRecord(*values) for values in state["rung"]]
        self._unconfirmed = RungResult.from_report(state["unconfirmed"]) if state["unconfirmed"] else None
        if state["micro_batch"] != self._distiller.micro_batch:  # the same rounding as before
            self._bench.limit(self._distiller, state["micro_batch"])

    def _save(self, unconfirmed: RungResult | None) -> None:
        """Write the checkpoint: at the end of a rung with its unconfirmed result, or within a rung with None."""
        state = {
            **self._distiller.state_dict(),
            "settings": self._settings,
            "trial_seconds": self._seconds,
            "rung": self._rung,
            "unconfirmed": unconfirmed and unconfirmed.to_report(),
            "micro_batch": self._distiller.micro_batch,
            **({} if self._alpha_curve is None else {AlphaCurve.KEY: self._alpha_curve.points}),
        }
        with self._pace.measured():
            write_checkpoint(self._place if unconfirmed else self._place_within_rung, state)

    @property
    def _seconds(self) -> float:
        """Time that the trial has run in all its processes, in seconds."""
        return self._seconds_before + time.perf_counter() - self._began

    def _distill(self) -> None:
        """Run the remaining iterations of the rung."""
        distiller, every = self._distiller, self._bench.work.validation_every_iterations
        last = min((distiller.iteration - len(self._rung)) + every, distiller.config.iterations)
        while distiller.iteration < last:
            began = time.perf_counter()
            update = iterate(self._bench, distiller)
            floored = isinstance(update, Iteration) and update.floored
            seconds = time.perf_counter() - began
            self._rung.append(_IterationRecord(update.loss, update.finite, update.skipped, floored, seconds))
            self._check_progress(min(FIRST_UPDATES, every, distiller.config.iterations))
            if self._pace.due():
                self._save(None)

    def _check_progress(self, first: int) -> None:
        """Refuse a distillation that will not move: none of its `first` updates was accepted, or α is not positive.

        Raises:
            ConfigError: It is such a one; the message has the loss or α, and the remedy.
        """
        distiller = self._distiller
        if not isinstance(distiller, Distiller):  # others skip what is not finite alone, which the rung's end tells
            return
        if distiller.alpha <= 0:
            raise ConfigError(
                f"α became {distiller.alpha:.3g} in iteration {distiller.iteration - 1}, and inner steps go uphill; "
                "lower lr_alpha, or set alpha_update=log or alpha_floor"
            )
        finite = [record.loss for record in self._rung if record.finite]
        if distiller.iteration == distiller.skipped == first and finite:
            config = distiller.config
            found = self._alpha_curve is not None
            raise ConfigError(
                f"no update was accepted: in iterations 0 to {first - 1} no matching loss was below {min(finite):.3g}, "
                f"with α = {distiller.alpha:.3g}, and max_matching_loss is {config.max_matching_loss:g}; "
                f"{'' if found else 'set alpha_init=auto, or '}raise max_matching_loss"
            )

    def _rung_result(self) -> RungResult:
        """Validate, and return the result of the rung.

        Raises:
            ConfigError: No update of the rung was finite, or the GPU's memory does not suffice to validate.
        """
        distiller, rung = self._distiller, self._rung
        config, count = distiller.config, len(rung)
        finite = [record.loss for record in rung if record.finite]
        if not finite:
            trains = config.method != "distribution"
            given = "lr_pixel" if self._alpha_curve is not None else "alpha_init or lr_pixel"
            remedy = f" (α = {distiller.alpha:.3g}); lower {given}" if trains else "; lower lr_pixel"
            raise ConfigError(
                f"diverged: no finite update in iterations {distiller.iteration - count} to {distiller.iteration - 1}"
                f"{remedy}"
            )
        loss: dict[str, Any] = {distiller.loss_name: sum(finite) / len(finite)}
        with refused_without_gpu_memory("in the validation", _MORE_MEMORY):
            accuracy = self._bench.validate(distiller.result_images)
        return RungResult(
            iteration=distiller.iteration,
            validation_accuracy=accuracy,
            **loss,
            skip_rate=sum(record.skipped for record in rung) / count,
            not_finite_rate=1 - len(finite) / count,
            image_displacement=distiller.displacement,
            micro_batch_images=distiller.micro_batch or config.batch_syn,
            **(self._of_trajectory(distiller) if isinstance(distiller, Distiller) else {}),
            seconds_per_iteration=sum(record.seconds for record in rung) / count,
            trial_seconds=self._seconds,
            **self._memory(),
            done=distiller.iteration >= config.iterations,
        )

    def _of_trajectory(self, distiller: Distiller) -> dict[str, Any]:
        """Return the fields of a RungResult that only trajectory matching has."""
        config = distiller.config
        soft = config.label_mode == "soft"
        return {
            "alpha": distiller.alpha,
            "floor_rate": sum(record.floored for record in self._rung) / len(self._rung),
            "label_inconsistency": label_inconsistency(distiller.labels, config.ipc) if soft else None,
            "upper_bound_epochs": config.matching_range.upper(distiller.iteration - 1),
        }

    def _memory(self) -> dict[str, Any]:
        """Return the field of a RungResult that holds the trial's memory, in MiB.

        On a GPU, it is the peak of the trial's tensors in this process. On a CPU, it is the current memory of the
        process, because the process may have run other trials before and has no peak of this one.
        """
        if self._bench.work.device == "cuda":
            return {"peak_memory_mib": torch.cuda.max_memory_allocated() / 2**20}
        import psutil  # only here: a GPU machine may have torch and nothing else

        return {"resident_memory_mib": psutil.Process().memory_info().rss / 2**20}

    def _failure_result(self, end: SettingsFailed | Halted) -> RungResult:
        """Return the result of a trial that stops without the figures of a rung."""
        return RungResult(
            iteration=0 if self._fault else self._distiller.iteration,
            validation_accuracy=math.nan,
            trial_seconds=self._seconds,
            done=True,
            end=end,
        )
