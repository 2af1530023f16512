"""The stages of a sweep, one after the other; every one knows what is done of it. docs/design/resume.md."""

from typing import Any

from rich.console import Console

from orchestrator.cluster import AUTO, Resources, connected
from orchestrator.compilation import decide_compilation
from orchestrator.console import make_console
from orchestrator.errors import ClusterError, NoTrialSucceeded, Stopped
from orchestrator.experts import check_experts, ensure_experts
from orchestrator.finals import name_finals, run_finals
from orchestrator.gpu_share import share_gpus
from orchestrator.inputs import prepare_inputs
from orchestrator.live import SearchView
from orchestrator.mirror import Mirror
from orchestrator.outcome import collect_result, finished_result, leave_files, leave_unfinished, read_synthetic_sets
from orchestrator.progress import Progress
from orchestrator.rungs import REFERENCE_TRIAL
from orchestrator.search import SearchOutcome, run_search
from orchestrator.settings import SweepSettings
from orchestrator.study import study_rows, summarize_study
from orchestrator.study_storage import open_storage
from orchestrator.tables import result_table, study_figure_table, study_table
from orchestrator.tracking import SweepRun, open_sweep_run, reopen_sweep_run
from orchestrator.trial_tracking import TrackingCallback
from orchestrator.trials import TrialRecord, best_trial

__all__ = ["run_sweep"]

RUN_NAMES_S = 10.0
"""How long the result waits for MLflow to name the last trials' runs, which its compare address lists."""


def run_sweep(settings: SweepSettings) -> dict[str, Any]:
    """Run a sweep from its experts to its report, or what is left of it, and return what result.json holds."""
    console = make_console(quiet=settings.quiet)
    settings.check_dataset()
    with settings.held():
        mirror = Mirror(settings.workdir, settings.name)
        mirror.pull()
        settings.check_same()  # again: another driver may have been at it meanwhile
        result = finished_result(settings)
        if result is not None:
            _send_the_rest(settings, result, mirror, console)
        else:
            with connected(settings.address, settings.gpus_per_trial, settings.concurrent) as resources:
                result = _run_stages(settings, resources, mirror, console)
    _print_result(console, settings, result)
    return result


def _run_stages(settings: SweepSettings, resources: Resources, mirror: Mirror, console: Console) -> dict[str, Any]:
    """Run what is left of the stages and return what result.json holds; every stage knows what is done of it."""
    progress = Progress(settings.folder)
    progress.compilation = progress.compilation or decide_compilation(settings, resources)
    compiled, why = progress.compilation
    inputs = prepare_inputs(settings, console)
    check_experts(inputs)
    if settings.study_uri:
        open_storage(settings.study_uri)  # now, and not after the experts
    run = open_sweep_run(
        settings.tracking_uri, settings.workdir, settings.space.name, settings.name,
        {**settings.fixed, "seed": settings.seed, "preset": settings.preset or "none"},
    )  # fmt: skip
    settings.write()
    experts, trials = None, []  # what there is to tell if the sweep ends early
    try:
        mirror.push()  # from here on it is this driver's
        console.print(f"Sweep {settings.name} in {settings.place}\n{why}")
        experts = ensure_experts(inputs, resources, console)
        console.print(experts.line(inputs.store.shared.place("").rstrip("/")))
        run.log_losses(experts.losses)
        progress.spend("experts")
        mirror.push()

        iterations = settings.fixed["iterations"]
        view = SearchView(console, trials=settings.fixed["trials"], iterations=iterations)
        tracking = TrackingCallback(run, inputs.dataset, iterations, settings.checkpoints)
        work = inputs.trial_work(resources, compiled=compiled)
        if settings.gpus_per_trial == AUTO:
            resources = share_gpus(settings.space, resources, work, console)
            work = inputs.trial_work(resources, compiled=compiled)
        with resources.requested(resources.workers(settings.concurrent)):
            outcome = run_search(settings, resources, work, progress, [view, tracking], mirror=mirror)
        trials = outcome.trials
        run.close_trials(trials)
        best = _best(settings, outcome)
        progress.spend("search")
        mirror.push()

        sets = read_synthetic_sets(inputs, outcome, best)
        images = {number: synthetic.images for number, synthetic in sets.items()}
        measured = run_finals(inputs, resources, images, progress, mirror, console)
        finals = name_finals(measured, best.number, REFERENCE_TRIAL)
        rows = study_rows(settings.space, trials, measured) if settings.space.variants else []
        study = summarize_study(settings.space, rows) if settings.space.variants else None
        progress.spend("finals")

        run.flush(RUN_NAMES_S)
        result = collect_result(settings, "finished", trials, finals, experts, run, progress.seconds(), study)
        leave_files(inputs, outcome, best, sets, rows, result)
        run.log_result(result, settings.folder)
        mirror.push()
    except BaseException as error:
        by_hand = isinstance(error, KeyboardInterrupt | Stopped)
        word, status = ("stopped", "KILLED") if by_hand else ("failed", "FAILED")
        if not by_hand:  # he who stopped it does not want to wait
            run.flush(RUN_NAMES_S)
        leave_unfinished(settings, collect_result(settings, word, trials, {}, experts, run, progress.seconds()), trials)
        _end_run(run, settings, status, console)
        try:
            mirror.push(patience_s=0)
        except ClusterError as lost:  # what ended the sweep is what is to be told
            console.print(f"Not everything is at {settings.place}: {lost}", markup=False)
        if isinstance(error, KeyboardInterrupt):
            raise Stopped(f"stopped by hand; go on with: {settings.resume_command}") from None
        raise
    _end_run(run, settings, "FINISHED", console)
    mirror.push()
    return result


def _end_run(run: SweepRun, settings: SweepSettings, status: str, console: Console) -> None:
    """Close the sweep's run, and say what MLflow has not taken in yet."""
    if waiting := run.end(status):
        console.print(
            f"{waiting} entries wait for MLflow at {run.tracking_uri}; to send them: {settings.resume_command}"
        )


def _send_the_rest(settings: SweepSettings, result: dict[str, Any], mirror: Mirror, console: Console) -> None:
    """Tell MLflow what it does not know of a finished sweep whose driver was cut off before it had sent all."""
    run = reopen_sweep_run(settings.tracking_uri, settings.workdir, settings.name)
    if run is not None:
        run.log_result(result, settings.folder)
        _end_run(run, settings, "FINISHED", console)
        mirror.push()


def _print_result(console: Console, settings: SweepSettings, result: dict[str, Any]) -> None:
    if result.get("study"):
        console.print(study_table(result["study"], settings.space), study_figure_table(result["study"]))
    console.print(result_table(result))
    for label, place in result["files"].items():
        console.print(f"{label:>10}: {settings.place}/{place}")
    console.print(f"Compare the trials: python -m orchestrator.ui --workdir {settings.workdir} --sweep {settings.name}")


def _best(settings: SweepSettings, outcome: SearchOutcome) -> TrialRecord:
    """Return the winner of a search.

    Raises:
        Stopped: A signal ended the search.
        ClusterError: Nothing could go on.
        NoTrialSucceeded: There is no winner.
    """
    best = best_trial(outcome.trials)
    go_on = f"go on with: {settings.resume_command}"
    if outcome.halted:
        raise ClusterError(f"{outcome.halted}, then {go_on}")
    if outcome.hopeless:
        raise NoTrialSucceeded(outcome.hopeless)
    if outcome.interrupted:
        raise Stopped(f"stopped by hand after {len(outcome.trials)} trials, which are kept; {go_on}")
    if best is None:
        reasons = sorted({record.reason for record in outcome.trials})
        raise NoTrialSucceeded(f"none of {len(outcome.trials)} trials succeeded: {'; '.join(reasons)}")
    return best
