"""The stages of a sweep, in order; every stage skips the work that is already done. docs/design/resume.md."""

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

from rich.console import Console

from orchestrator.cluster.losses import Patience
from orchestrator.cluster.resources import AUTO, Resources
from orchestrator.planning.compilation import decide_compilation
from orchestrator.planning.gpu_share import share_gpus
from orchestrator.planning.outlook import Outlook, overhead_s
from orchestrator.planning.plan import make_plan
from orchestrator.reporting.tables import repeats_table, result_table, study_figure_table, study_table
from orchestrator.results.entries import PAPER_SETTING, WINNER
from orchestrator.results.experts import ExpertSummary
from orchestrator.results.finals import CHALLENGE, Measured, measured_by_protocol, name_finals
from orchestrator.results.regimes import summarize_regimes
from orchestrator.results.result_json import Execution, Found, collect_result, trials_left
from orchestrator.results.so_far import found_so_far
from orchestrator.results.study import study_rows, summarize_study
from orchestrator.results.trials import REFERENCE_TRIAL, TrialRecord, trial_name
from orchestrator.results.under_way import UnderWay
from orchestrator.search.database import claim_study
from orchestrator.search.kept_trials import KeptTrials
from orchestrator.search.outcome import SearchOutcome
from orchestrator.search.remaining import Later, StoppingRule
from orchestrator.search.run import run_search
from orchestrator.search.status import SearchStatus
from orchestrator.search.view import SearchView
from orchestrator.stages.bulletin import Bulletin
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
from orchestrator.state.stage import SEARCH, final_stage, seconds_key
from orchestrator.terminal.console import make_console
from orchestrator.terminal.steps import Steps
from orchestrator.tracking.result import result_entries
from orchestrator.tracking.served_model import save_model
from orchestrator.tracking.sweep_run import SweepRun
from orchestrator.tracking.trial_callback import TrackingCallback
from search_spaces import Space, Study
from trainables.data.real_images import check_ipc
from trainables.data.synthetic import SyntheticSet

__all__ = ["run_sweep"]

NETWORKS = "finals, networks"
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
        patience = Patience(settings.patience_s, console, f"resume with: {settings.resume_command}")
        stages = _Stages(settings, resources, inputs, compiled, run, progress, mirror, console, patience)
        progress.decide_compilation((compiled, why))
        try:
            with stages.bulletin:
                mirror.push()
                console.print(f"Sweep {settings.name} in {settings.places.shared}\n{why}", soft_wrap=True)
                run.log_dataset(inputs.dataset, inputs.file)
                stages.train_experts()
                outcome = stages.search(settings)
                findings, found = stages.finish(outcome.trials, outcome.winner(settings))
            return stages.write_outputs(findings, found)
        except BaseException as error:
            status = status_after(error)
            if status == "failed":  # a sweep that is stopped by hand ends without waiting
                run.flush(RUN_NAMES_S)
            stages.bulletin.end(status, error)
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
    patience: Patience
    experts: ExpertSummary | None = None
    """None until the expert stage has ended."""
    repeats: tuple[Study, KeptTrials] | None = None
    """The study of the finals' distillations, and its trials; None until they begin."""

    @cached_property
    def bulletin(self) -> Bulletin:
        """Keeps result.json up to date until the sweep has finished."""
        return Bulletin(self._write_so_far, self.settings)

    @cached_property
    def _trials(self) -> KeptTrials:
        return KeptTrials(self.settings)

    def _write_so_far(self, status: str, under_way: UnderWay) -> None:
        """Write result.json and trials.parquet from the study and the progress, whatever the stages hold."""
        trials = self._trials.read()
        repeats = self.repeats and (self.repeats[0], self.repeats[1].read())
        measured = measured_by_protocol(self.progress, sorted(self.progress.finals))
        found = found_so_far(self.settings, trials, measured, len(self.inputs.dataset.split("train")), repeats)
        result = collect_result(self.settings, status, found, self.execution(), under_way)
        write_partial_outputs(self.settings, result, trials)

    def execution(self) -> Execution:
        """Return the facts of the sweep's execution so far."""
        resources = self.resources
        return Execution(
            experts=self.experts,
            workers={"count": resources.workers(self.settings.concurrent), "gpus_each": resources.gpus_per_trial},
            device=resources.device,
            seconds=self.progress.seconds(),
            mlflow={**self.run.facts(), "compare_url": self.run.compare_url()},
            dataset=self.inputs.findings,
            planned_trial=self._outlook.trial(resources.gpu_types, resources.gpus_per_trial),
        )

    def train_experts(self) -> None:
        """Train the experts that the store lacks."""
        self.bulletin.begin("experts", unit="epochs")
        self.experts = ensure_experts(self.inputs, self.resources, self.console, self.patience, self._count_epochs)
        self.console.print(self.experts.line(self.inputs.experts_place), soft_wrap=True)
        self.run.log_experts(self.experts, self.inputs.experts_params, self.inputs.experts_place)
        self._end_stage("experts")

    def search(self, settings: SweepSettings) -> SearchOutcome:
        """Distil with the settings of the search, or with those of the finals' repeats."""
        fixed, inputs = settings.fixed, replace(self.inputs, settings=settings)
        name = "search" if settings.stage == SEARCH else "finals, distillations"
        self.bulletin.begin(name, unit="trials", total=fixed["trials"])
        tracking = TrackingCallback(self.run, fixed["iterations"], stage=settings.stage)
        work = inputs.trial_work(self.resources, compiled=self.compiled)
        if settings.gpus_per_trial == AUTO and settings.stage == SEARCH:
            self.resources = share_gpus(
                settings.space, self.resources, work, self.progress, self.console, self.patience
            )
            work = inputs.trial_work(self.resources, compiled=self.compiled)
        workers = self.resources.workers(settings.concurrent)
        budget_s, spent_s = settings.time_budget_s, self.progress.seconds().get(seconds_key(settings.stage), 0.0)
        again = 2 * fixed["final_seeds"] if settings.stage == SEARCH else 0
        later = Later(
            distillations=again, iterations=self._outlook.after_distillations(fixed["iterations"]),
            seconds=overhead_s(stages=3 if again else 2),
        )  # fmt: skip
        status = SearchStatus(
            trials=fixed["trials"], rung_iterations=fixed["validation_every_iterations"],
            rule=StoppingRule.of(settings.space, fixed), workers=workers, later=later,
            budget_s=None if budget_s is None else budget_s - spent_s,
        )  # fmt: skip
        view = SearchView(self.console, status, settings.places.checkpoints, stage=settings.stage)
        self.bulletin.follow(view.look)

        def begin(ended: list[TrialRecord]) -> None:
            view.add_ended(ended)
            if settings.stage == SEARCH:
                self._forget_finals()

        with self.resources.requested(workers):
            outcome = run_search(
                settings, self.resources, work, self.progress, [view, tracking], self.patience,
                add_ended=begin, written=self._push,
            )  # fmt: skip
        self.bulletin.follow(None)
        view.show_paused(outcome.trials)
        self.run.close_trials(outcome.trials, settings.space.trial_keys)
        self._end_stage(seconds_key(settings.stage))
        return outcome

    def _forget_finals(self) -> None:
        """Have the sets of the search's trials measured again: a search that continues may change them."""
        self.run.forget_finals()
        self.progress.forget_finals(f"{SEARCH}-")

    def finish(self, trials: list[TrialRecord], best: TrialRecord) -> tuple[Findings, Found]:
        """Distil the best settings again, and measure all sets on the test split."""
        reference = next((record for record in trials if record.number == REFERENCE_TRIAL), None)
        distilled = self._distil_again(trials, best, reference)
        measured = self._measure(distilled.sets, best)
        finals = name_finals(measured[CHALLENGE], best.name, trial_name(REFERENCE_TRIAL))
        rows, study = _study(distilled, measured, finals)
        self.bulletin.begin("diagnostics")
        diagnostics = measure_diagnostics(
            self.inputs, self.resources, best, reference, self.console, self.patience,
            follow=partial(self.bulletin.count, later=0.0, overhead_s=overhead_s(stages=0)),
        )  # fmt: skip
        self.progress.spend("finals")
        self.run.log_finals(measured)
        self.bulletin.begin("report")
        self.run.flush(RUN_NAMES_S)
        images = len(self.inputs.dataset.split("train"))
        regimes = summarize_regimes(self.settings, measured, best.name, images)
        findings = Findings(
            trials=trials, best=best, sets=distilled.sets, measured=measured, rows=rows, diagnostics=diagnostics
        )
        return findings, Found(trials=trials, finals=finals, study=study, regimes=regimes)

    def write_outputs(self, findings: Findings, found: Found) -> dict[str, Any]:
        """Write the files of the finished sweep, and return the content of result.json."""
        result = collect_result(self.settings, "finished", found, self.execution())
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
        study = settings.space
        assert isinstance(study, Study), "repeat_settings() makes one"
        variants = {name: dict(varied) for name, varied in study.variants.items()}
        settings = replace(settings, stage=final_stage(self.progress.number_repeats(variants)))
        self.repeats = study, KeptTrials(settings)
        repeats = self.search(settings)
        repeats.check_ended(settings, kept=f"{len(trials)} trials and {len(repeats.trials)} of the finals")
        sets |= read_synthetic_sets(replace(self.inputs, settings=settings), repeats.trials)
        return _Distilled(sets, settings.space, repeats.trials, fresh=True)

    def _measure(self, sets: dict[str, SyntheticSet], best: TrialRecord) -> Measured:
        """Train networks on every set, test them, and save the first network of the best set as a model."""
        inputs, images = self.inputs, {name: synthetic.images for name, synthetic in sets.items()}
        model = self.settings.places.folder / "model"
        self.bulletin.begin(NETWORKS, unit="networks")
        return run_finals(
            inputs, self.resources, images, self.progress, self._push, self.console, self.patience,
            best=best.name, save_model=partial(save_model, model, inputs.network, inputs.dataset),
            follow=partial(
                self.bulletin.count, later=self._outlook.after_networks(), overhead_s=overhead_s(stages=1)
            ),
        )  # fmt: skip

    @cached_property
    def _outlook(self) -> Outlook:
        return Outlook(make_plan(self.settings), self.compiled)

    def _count_epochs(self, steps: Steps) -> None:
        self.bulletin.count(steps, self._outlook.after_experts(steps.total), overhead_s(stages=4))

    def _push(self) -> None:
        """Copy changed files to the workdir's URI; the large files of MLflow only at intervals."""
        self.mirror.push(everything=False)

    def _end_stage(self, name: str) -> None:
        self.progress.spend(name)
        self.bulletin.write()
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
    if left := trials_left(settings, result):
        console.print(
            f"The time budget ended before {left} of {settings.fixed['trials']} trials; to continue the search with a "
            f"larger one: {settings.resume_command} --time-budget TIME",
            soft_wrap=True,
        )
    console.print(f"Compare the trials: {settings.pages_command}", soft_wrap=True)
