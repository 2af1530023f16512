"""The stages of a sweep, one after the other; every one knows what is done of it. docs/design/resume.md."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from rich.console import Console

from orchestrator.cluster import AUTO, Resources
from orchestrator.compilation import decide_compilation
from orchestrator.console import make_console
from orchestrator.diagnostics import measure_diagnostics
from orchestrator.driver import drive, status_after, tracked
from orchestrator.errors import ClusterError, NoTrialSucceeded, Stopped
from orchestrator.experts import ExpertSummary, check_experts, ensure_experts
from orchestrator.finals import CHALLENGE, name_finals, run_finals
from orchestrator.gpu_share import share_gpus
from orchestrator.inputs import Inputs, prepare_inputs
from orchestrator.live import SearchView
from orchestrator.mirror import Mirror
from orchestrator.outcome import (
    Findings,
    collect_result,
    leave_files,
    leave_unfinished,
    read_synthetic_sets,
)
from orchestrator.progress import Progress
from orchestrator.regimes import summarize_regimes
from orchestrator.repeats import repeat_settings
from orchestrator.rungs import REFERENCE_TRIAL
from orchestrator.search import SECONDS, SearchOutcome, run_search
from orchestrator.served_model import save_model
from orchestrator.settings import SEARCH, SweepSettings
from orchestrator.study import study_rows, summarize_study
from orchestrator.study_storage import open_storage
from orchestrator.tables import repeats_table, result_table, study_figure_table, study_table
from orchestrator.tracking import SweepRun
from orchestrator.trial_tracking import TrackingCallback
from orchestrator.trials import TrialRecord, best_trial, trial_name
from trainables.initialization import check_ipc

__all__ = ["run_sweep"]

RUN_NAMES_S = 10.0
"""How long the result waits for MLflow to name the last trials' runs, which its compare address lists."""


def run_sweep(settings: SweepSettings) -> dict[str, Any]:
    """Run a sweep from its experts to its report, or what is left of it, and return what result.json holds."""
    result = drive(settings, _run_stages)
    _print_result(make_console(), settings, result)  # --quiet leaves out all but this
    return result


def _run_stages(settings: SweepSettings, resources: Resources, mirror: Mirror, console: Console) -> dict[str, Any]:
    """Run what is left of the stages and return what result.json holds; every stage knows what is done of it."""
    progress = Progress(settings.folder)
    progress.compilation = progress.compilation or decide_compilation(settings, resources)
    compiled, why = progress.compilation
    inputs = prepare_inputs(settings, console)
    check_ipc(inputs.dataset, settings.fixed["ipc"])  # now, and not after the experts
    check_experts(inputs)
    if settings.study_uri:
        open_storage(settings.study_uri)  # now, and not after the experts
    with tracked(settings, mirror) as run:
        stages = _Stages(settings, resources, inputs, compiled, run, progress, mirror, console)
        experts, trials = None, []  # what there is to tell if the sweep ends early
        try:
            console.print(f"Sweep {settings.name} in {settings.place}\n{why}")
            run.log_dataset(inputs)
            experts = stages.train_experts()
            outcome = stages.search(settings)
            trials = outcome.trials
            return stages.finish(experts, outcome, _best(settings, outcome))
        except BaseException as error:
            status = status_after(error)
            if status == "failed":  # he who stopped it does not want to wait
                run.flush(RUN_NAMES_S)
            result = collect_result(settings, status, trials, {}, experts, run, stages.workers, progress.seconds())
            leave_unfinished(settings, result, trials)
            raise


@dataclass
class _Stages:
    """The stages, and what they share."""

    settings: SweepSettings
    resources: Resources
    inputs: Inputs
    compiled: bool
    run: SweepRun
    progress: Progress
    mirror: Mirror
    console: Console

    @property
    def workers(self) -> dict[str, float]:
        """How many workers there are at once, and what GPUs each holds beside its core."""
        resources = self.resources
        return {"count": resources.workers(self.settings.concurrent), "gpus_each": resources.gpus_per_trial}

    def train_experts(self) -> ExpertSummary:
        """Train the experts that are not in the store."""
        experts = ensure_experts(self.inputs, self.resources, self.console)
        self.console.print(experts.line(self.inputs.experts_place))
        self.run.log_experts(experts, self.inputs)
        self._end_stage("experts")
        return experts

    def search(self, settings: SweepSettings) -> SearchOutcome:
        """Distil with the search's settings, or with those of the finals' repeats."""
        iterations, inputs = settings.fixed["iterations"], replace(self.inputs, settings=settings)
        view = SearchView(self.console, trials=settings.fixed["trials"], iterations=iterations, stage=settings.stage)
        tracking = TrackingCallback(self.run, inputs.dataset, iterations, settings.checkpoints, stage=settings.stage)
        work = inputs.trial_work(self.resources, compiled=self.compiled)
        if settings.gpus_per_trial == AUTO and settings.stage == SEARCH:
            self.resources = share_gpus(settings.space, self.resources, work, self.console)
            work = inputs.trial_work(self.resources, compiled=self.compiled)
        with self.resources.requested(self.resources.workers(settings.concurrent)):
            outcome = run_search(settings, self.resources, work, self.progress, [view, tracking], mirror=self.mirror)
        self.run.close_trials(outcome.trials)
        self._end_stage(SECONDS[settings.stage])
        return outcome

    def finish(self, experts: ExpertSummary, outcome: SearchOutcome, best: TrialRecord) -> dict[str, Any]:
        """Distil again what the search chose, measure everything on the test split, and leave the files."""
        settings, inputs, reference = self.settings, self.inputs, trial_name(REFERENCE_TRIAL)
        sets = read_synthetic_sets(inputs, outcome.trials, best)
        study, records = settings.space, outcome.trials
        first = next((record for record in outcome.trials if record.number == REFERENCE_TRIAL), None)
        again = repeat_settings(settings, best, first if reference in sets else None)
        if again:
            repeats = self.search(again)
            _check_ended(again, repeats)
            study, records = again.space, repeats.trials
            sets |= read_synthetic_sets(replace(inputs, settings=again), records)
        images = {name: synthetic.images for name, synthetic in sets.items()}
        measured = run_finals(
            inputs, self.resources, images, self.progress, self.mirror, self.console,
            kept=best.name, keep=partial(save_model, settings.folder / "model", inputs.network, inputs.dataset),
        )  # fmt: skip
        finals = name_finals(measured[CHALLENGE], best.name, reference)
        rows = study_rows(study, records, measured[CHALLENGE]) if study.variants else []
        others = {name: each for name, each in finals.items() if name not in ("winner", "paper_setting")}
        summary = summarize_study(study, rows, others if again else {})
        diagnostics = measure_diagnostics(inputs, self.resources, best, first, self.console)
        self.progress.spend("finals")
        self.run.log_finals(measured)
        self.run.flush(RUN_NAMES_S)
        result = collect_result(
            settings, "finished", outcome.trials, finals, experts, self.run, self.workers, self.progress.seconds(),
            summary if study.variants else None,
            summarize_regimes(settings, measured, best.name, len(inputs.dataset.split("train"))),
        )  # fmt: skip
        found = Findings(
            trials=outcome.trials, best=best, sets=sets, measured=measured, rows=rows, diagnostics=diagnostics
        )
        leave_files(inputs, found, result)
        self.run.log_result(result, settings)
        self.mirror.push()
        return result

    def _end_stage(self, name: str) -> None:
        self.progress.spend(name)
        self.mirror.push()


def _print_result(console: Console, settings: SweepSettings, result: dict[str, Any]) -> None:
    if result.get("study"):
        console.print(study_table(result["study"], settings.space), study_figure_table(result["study"]))
    console.print(result_table(result))
    if result.get("repeats"):
        console.print(repeats_table(result["repeats"], settings.fixed["final_networks"]))
    for label, place in result["files"].items():
        console.print(f"{label:>11}: {settings.place}/{place}")
    console.print(f"Compare the trials: python -m orchestrator.ui --workdir {settings.workdir} --sweep {settings.name}")


def _best(settings: SweepSettings, outcome: SearchOutcome) -> TrialRecord:
    """Return the winner of a search.

    Raises:
        Stopped: A signal ended the search.
        ClusterError: Nothing could go on.
        NoTrialSucceeded: There is no winner.
    """
    _check_ended(settings, outcome)
    best = best_trial(outcome.trials)
    if outcome.hopeless:
        raise NoTrialSucceeded(outcome.hopeless)
    if best is None:
        reasons = sorted({record.reason for record in outcome.trials})
        raise NoTrialSucceeded(f"none of {len(outcome.trials)} trials succeeded: {'; '.join(reasons)}")
    return best


def _check_ended(settings: SweepSettings, outcome: SearchOutcome) -> None:
    """Refuse to go on after distillations that something or somebody cut off.

    Raises:
        Stopped: A signal ended them.
        ClusterError: Nothing could go on.
    """
    go_on = f"go on with: {settings.resume_command}"
    if outcome.halted:
        raise ClusterError(f"{outcome.halted}, then {go_on}")
    if outcome.interrupted:
        raise Stopped(f"stopped by hand after {len(outcome.trials)} trials, which are kept; {go_on}")
