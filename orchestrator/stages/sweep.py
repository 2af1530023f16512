"""The stages of a sweep, in order; every stage skips the work that is already done. docs/design/resume.md."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from rich.console import Console

from orchestrator.cluster.resources import AUTO, Resources
from orchestrator.cluster.signals import restored_handlers
from orchestrator.errors import ClusterError, NoTrialSucceeded, Stopped
from orchestrator.planning.compilation import decide_compilation
from orchestrator.planning.gpu_share import share_gpus
from orchestrator.reporting.tables import repeats_table, result_table, study_figure_table, study_table
from orchestrator.results.entries import PAPER_SETTING, WINNER
from orchestrator.results.experts import ExpertSummary
from orchestrator.results.finals import CHALLENGE, Measured, name_finals
from orchestrator.results.regimes import summarize_regimes
from orchestrator.results.result_json import Execution, Found, collect_result
from orchestrator.results.study import study_rows, summarize_study
from orchestrator.results.trials import REFERENCE_TRIAL, TrialRecord, best_trial, trial_name
from orchestrator.search.database import claim_study
from orchestrator.search.run import SearchOutcome, run_search
from orchestrator.search.view import SearchView
from orchestrator.stages.diagnostics import measure_diagnostics
from orchestrator.stages.driver import drive, status_after, tracked
from orchestrator.stages.experts import check_experts, ensure_experts
from orchestrator.stages.finals import run_finals
from orchestrator.stages.fresh_seeds import repeat_settings
from orchestrator.stages.inputs import Inputs, check_same_dataset, prepare_inputs
from orchestrator.stages.outputs import Findings, write_outputs, write_partial_outputs
from orchestrator.stages.trial_sets import read_synthetic_sets
from orchestrator.state.mirror import Mirror
from orchestrator.state.progress import Progress
from orchestrator.state.settings import SweepSettings
from orchestrator.state.stage import SEARCH, SECONDS
from orchestrator.terminal.console import make_console
from orchestrator.tracking.result import result_entries
from orchestrator.tracking.served_model import save_model
from orchestrator.tracking.sweep_run import SweepRun
from orchestrator.tracking.trial_callback import TrackingCallback
from search_spaces import Space, Study
from trainables.data.real_images import check_ipc
from trainables.data.synthetic import SyntheticSet

__all__ = ["run_sweep"]

RUN_NAMES_S = 10.0
"""Seconds for which the result waits for MLflow to name the last trials' runs, which the compare address lists."""


def run_sweep(settings: SweepSettings) -> dict[str, Any]:
    """Run a sweep from its experts to its report, or its remaining stages, and return the content of result.json."""
    result = drive(settings, _run_stages)
    _print_result(make_console(), settings, result)  # printed also with --quiet
    return result


def _run_stages(settings: SweepSettings, resources: Resources, mirror: Mirror, console: Console) -> dict[str, Any]:
    """Run the remaining stages and return the content of result.json."""
    progress = Progress(settings.places.folder)
    compiled, why = progress.compilation or decide_compilation(settings, resources)
    inputs = prepare_inputs(settings, console)
    check_same_dataset(inputs, progress)
    check_ipc(inputs.dataset, settings.fixed["ipc"])  # before the experts are trained
    check_experts(inputs)
    places = settings.places
    begun = places.settings_file.exists() or progress.has_identity
    claim_study(places.study_storage, places.study_name, progress.identity(), begun=begun)  # before the experts
    with tracked(settings, mirror) as run:
        stages = _Stages(settings, resources, inputs, compiled, run, progress, mirror, console)
        progress.decide_compilation((compiled, why))
        trials: list[TrialRecord] = []
        try:
            console.print(f"Sweep {settings.name} in {settings.places.shared}\n{why}", soft_wrap=True)
            run.log_dataset(inputs.dataset, inputs.file)
            stages.train_experts()
            outcome = stages.search(settings)
            trials = outcome.trials
            return stages.finish(trials, _best(settings, outcome))
        except BaseException as error:
            status = status_after(error)
            if status == "failed":  # a sweep that is stopped by hand ends without waiting
                run.flush(RUN_NAMES_S)
            result = collect_result(settings, status, Found(trials=trials), stages.execution())
            write_partial_outputs(settings, result, trials)
            raise


class _Distilled(NamedTuple):
    """The sets that the finals measure, and the space and trials from which they come."""

    sets: dict[str, SyntheticSet]
    """Synthetic sets by trial's name."""
    space: Space
    """The distilled space: the sweep's own, or the study of the best settings and the reference's."""
    records: list[TrialRecord]
    """The trials of that space."""
    fresh: bool
    """Whether the sets were distilled again, with seeds that the search did not use."""


@dataclass
class _Stages:
    """The stages, and the state that they share."""

    settings: SweepSettings
    resources: Resources
    inputs: Inputs
    compiled: bool
    run: SweepRun
    progress: Progress
    mirror: Mirror
    console: Console
    experts: ExpertSummary | None = None
    """None until the expert stage has ended."""

    def execution(self) -> Execution:
        """Return the facts of the sweep's execution so far."""
        resources = self.resources
        return Execution(
            experts=self.experts,
            workers={"count": resources.workers(self.settings.concurrent), "gpus_each": resources.gpus_per_trial},
            seconds=self.progress.seconds(),
            mlflow={**self.run.facts(), "compare_url": self.run.compare_url()},
        )

    def train_experts(self) -> None:
        """Train the experts that the store lacks."""
        self.experts = ensure_experts(self.inputs, self.resources, self.console)
        self.console.print(self.experts.line(self.inputs.experts_place), soft_wrap=True)
        self.run.log_experts(self.experts, self.inputs.experts_params, self.inputs.experts_place)
        self._end_stage("experts")

    def search(self, settings: SweepSettings) -> SearchOutcome:
        """Distil with the settings of the search, or with those of the finals' repeats."""
        fixed, inputs = settings.fixed, replace(self.inputs, settings=settings)
        iterations, rung_iterations = fixed["iterations"], fixed["validation_every_iterations"]
        view = SearchView(
            self.console, trials=fixed["trials"], iterations=iterations, rung_iterations=rung_iterations,
            stage=settings.stage,
        )  # fmt: skip
        tracking = TrackingCallback(
            self.run, inputs.dataset, iterations, settings.places.checkpoints, stage=settings.stage
        )
        work = inputs.trial_work(self.resources, compiled=self.compiled)
        if settings.gpus_per_trial == AUTO and settings.stage == SEARCH:
            self.resources = share_gpus(settings.space, self.resources, work, self.console)
            work = inputs.trial_work(self.resources, compiled=self.compiled)
        workers = self.resources.workers(settings.concurrent)
        with self.resources.requested(workers), restored_handlers():  # Tune's handler would ignore a later Ctrl-C
            outcome = run_search(
                settings, self.resources, work, self.progress, [view, tracking],
                add_ended=view.add_ended, written=self._push,
            )  # fmt: skip
        self.run.close_trials(outcome.trials, settings.space.trial_keys)
        self._end_stage(SECONDS[settings.stage])
        return outcome

    def finish(self, trials: list[TrialRecord], best: TrialRecord) -> dict[str, Any]:
        """Distil the best settings again, measure all sets on the test split, write the files, return the result."""
        reference = next((record for record in trials if record.number == REFERENCE_TRIAL), None)
        distilled = self._distil_again(trials, best, reference)
        measured = self._measure(distilled.sets, best)
        finals = name_finals(measured[CHALLENGE], best.name, trial_name(REFERENCE_TRIAL))
        rows, study = _study(distilled, measured, finals)
        diagnostics = measure_diagnostics(self.inputs, self.resources, best, reference, self.console)
        self.progress.spend("finals")
        self.run.log_finals(measured)
        self.run.flush(RUN_NAMES_S)
        images = len(self.inputs.dataset.split("train"))
        regimes = summarize_regimes(self.settings, measured, best.name, images)
        found = Found(trials=trials, finals=finals, study=study, regimes=regimes)
        result = collect_result(self.settings, "finished", found, self.execution())
        findings = Findings(
            trials=trials, best=best, sets=distilled.sets, measured=measured, rows=rows, diagnostics=diagnostics
        )
        write_outputs(self.inputs, findings, result)
        self.run.log_result(result_entries(result, self.settings, self.run.run_id))
        self.mirror.push()
        return result

    def _distil_again(self, trials: list[TrialRecord], best: TrialRecord, reference: TrialRecord | None) -> _Distilled:
        """Distil the settings of the best trial and of the reference with fresh seeds, if the space has final seeds."""
        sets = read_synthetic_sets(self.inputs, trials, best)
        has_set = reference is not None and reference.name in sets
        settings = repeat_settings(self.settings, best, reference if has_set else None)
        if settings is None:
            return _Distilled(sets, self.settings.space, trials, fresh=False)
        repeats = self.search(settings)
        _check_ended(settings, repeats)
        sets |= read_synthetic_sets(replace(self.inputs, settings=settings), repeats.trials)
        return _Distilled(sets, settings.space, repeats.trials, fresh=True)

    def _measure(self, sets: dict[str, SyntheticSet], best: TrialRecord) -> Measured:
        """Train networks on every set, test them, and save the first network of the best set as a model."""
        inputs, images = self.inputs, {name: synthetic.images for name, synthetic in sets.items()}
        model = self.settings.places.folder / "model"
        return run_finals(
            inputs, self.resources, images, self.progress, self._push, self.console,
            best=best.name, save_model=partial(save_model, model, inputs.network, inputs.dataset),
        )  # fmt: skip

    def _push(self) -> None:
        """Copy changed files to the workdir's URI; the large files of MLflow only at intervals."""
        self.mirror.push(everything=False)

    def _end_stage(self, name: str) -> None:
        self.progress.spend(name)
        self.mirror.push()


def _study(
    distilled: _Distilled, measured: Measured, finals: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Return a study's rows, one per variant and repeat, and its summary; for a search without repeats [] and None."""
    if not isinstance(distilled.space, Study):
        return [], None
    rows = study_rows(distilled.space, distilled.records, measured[CHALLENGE])
    others = {name: final for name, final in finals.items() if name not in (WINNER, PAPER_SETTING)}
    return rows, summarize_study(distilled.space, rows, others if distilled.fresh else {})


def _print_result(console: Console, settings: SweepSettings, result: dict[str, Any]) -> None:
    if isinstance(settings.space, Study):
        console.print(study_table(result["study"], settings.space), study_figure_table(result["study"]))
    console.print(result_table(result))
    if result.get("repeats"):
        console.print(repeats_table(result["repeats"], settings.fixed["final_networks"]))
    for label, place in result["files"].items():
        console.print(f"{label:>11}: {settings.places.shared}/{place}", soft_wrap=True)
    console.print(f"Compare the trials: {settings.pages_command}", soft_wrap=True)


def _best(settings: SweepSettings, outcome: SearchOutcome) -> TrialRecord:
    """Return the winner of a search.

    Raises:
        Stopped: A signal ended the search.
        ClusterError: A failure halted all trials.
        NoTrialSucceeded: No trial succeeded.
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
    """Check that the distillations were not interrupted.

    Raises:
        Stopped: A signal ended them.
        ClusterError: A failure halted all trials.
    """
    resume = f"resume with: {settings.resume_command}"
    if outcome.halted:
        raise ClusterError(f"{outcome.halted}, then {resume}")
    if outcome.interrupted:
        raise Stopped(f"stopped by hand after {len(outcome.trials)} trials, which are kept; {resume}")
