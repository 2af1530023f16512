"""What a sweep leaves on disk: result.json, trials, the winner's files, figures and report. DESIGN, Contracts."""

import json
from typing import Any

import ray
import torch

from orchestrator.comparisons import compare_finals
from orchestrator.experts import ExpertSummary
from orchestrator.figures import draw_sets
from orchestrator.inputs import Inputs
from orchestrator.report import stored_result, write_report
from orchestrator.rungs import REFERENCE_TRIAL
from orchestrator.search import SearchOutcome
from orchestrator.settings import SweepSettings
from orchestrator.study import write_study
from orchestrator.tables import FINAL_NAMES
from orchestrator.tracking import SweepRun, compare_url
from orchestrator.trials import TrialRecord, best_trial, images_of, write_parquet
from trainables.checkpoints import checkpoint_place, read_checkpoint
from trainables.files import write_atomically
from trainables.initialization import initial_images
from trainables.labels import default_order_labels
from trainables.seeding import repeat_seed
from trainables.synthetic import SyntheticSet, write_challenge, write_synthetic

__all__ = ["collect_result", "finished_result", "leave_files", "leave_unfinished", "read_synthetic_sets"]

_FILES = {
    "synthetic": "synthetic.safetensors",
    "challenge": "synthetic.pt",
    "report": "report.md",
    "page": "report.html",
    "trials": "trials.parquet",
}
_STUDY_FILES = {"study": "study.parquet"}


def read_synthetic_sets(inputs: Inputs, outcome: SearchOutcome, best: TrialRecord) -> dict[int, SyntheticSet]:
    """Return by trial number the sets that go to the finals, each from its trial's last rung.

    They are those of the best trial and of the reference trial, if it has one; in a study also those of every trial
    that did all its iterations.
    """
    wanted = {best.number, REFERENCE_TRIAL}
    if inputs.settings.space.variants:
        wanted |= {record.number for record in outcome.trials if record.status == "finished"}
    sets = {}
    for record in outcome.trials:
        if record.number in wanted:
            state = read_checkpoint(checkpoint_place(inputs.settings.checkpoints, record.number))
            if state is not None:  # a trial that failed at once has none
                sets[record.number] = _synthetic_set(inputs, record, state)
    return sets


def _synthetic_set(inputs: Inputs, record: TrialRecord, state: dict[str, Any]) -> SyntheticSet:
    dataset, settings = inputs.dataset, inputs.settings
    soft = record.settings["label_mode"] == "soft"
    images = images_of(state)
    return SyntheticSet(
        images=images,
        displayable=dataset.displayable(images),
        labels=state["labels"] if soft else default_order_labels(record.settings["ipc"], dataset.classes),
        alpha=state["alpha"],
        dataset=dataset.name,
        class_names=dataset.class_names,
        mean=dataset.mean,
        std=dataset.std,
        ipc=record.settings["ipc"],
        method=_method(settings, record),
        config=record.settings,
        provenance={
            "sweep": settings.name,
            "trial": record.name,
            "seed": settings.seed,
            "iteration": state["iteration"],
            "validation_accuracy": record.last,
            "dataset_digest": dataset.digest,
            "experts": inputs.store.address,
            "torch": torch.__version__,
            "ray": ray.__version__,
        },
    )


def _method(settings: SweepSettings, record: TrialRecord) -> str:
    """Return what to call a set: the preset's name or ours, and in a study its variant's."""
    name = settings.preset or ("M-DATM" if record.settings["label_mode"] == "hard" else "DATM")
    return f"{settings.space.name}: {record.settings['variant']}" if settings.space.variants else name


def collect_result(
    settings: SweepSettings,
    status: str,
    trials: list[TrialRecord],
    finals: dict[str, Any],
    experts: ExpertSummary | None,
    run: SweepRun,
    seconds: dict[str, float],
    study: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what result.json holds; its form is a contract. Parts that a sweep did not come to are null or empty.

    `study` is there in a study alone, and null in one that did not come to its finals.
    """
    statuses = [record.status for record in trials]
    best = best_trial(trials)
    reference = next((record for record in trials if record.number == REFERENCE_TRIAL), None)
    return {
        "version": 1,
        "sweep": settings.name,
        "space": settings.space.name,
        "status": status,
        "seed": settings.seed,
        "trials": {status: statuses.count(status) for status in ("finished", "pruned", "failed")},
        "best": _trial_entry(best) if best else None,
        "paper": _trial_entry(reference) if reference else None,
        "finals": finals,
        "comparisons": compare_finals(finals),
        **({"study": study} if settings.space.variants else {}),
        "experts": experts.facts() if experts else None,
        "seconds": seconds,
        "mlflow": {
            "tracking_uri": run.tracking_uri,
            "experiment_id": run.experiment_id,
            "parent_run_id": run.run_id,
            "compare_url": compare_url(run, list(run.trial_runs().values())),
        },
        "files": _FILES | (_STUDY_FILES if study else {}) if status == "finished" else {"trials": _FILES["trials"]},
    }


def _trial_entry(record: TrialRecord) -> dict[str, Any]:
    return {"trial": record.name, "config": record.settings, "validation_accuracy": record.last}


def finished_result(settings: SweepSettings) -> dict[str, Any] | None:
    """Return what result.json holds if the sweep is finished."""
    result = stored_result(settings)
    return result if result and result["status"] == "finished" else None


def leave_unfinished(settings: SweepSettings, result: dict[str, Any], trials: list[TrialRecord]) -> None:
    """Write what a sweep has that was stopped or failed: its trials and a result.json that says so."""
    write_parquet(settings.folder / _FILES["trials"], trials, settings.space.varied)
    _write_result(settings, result)


def leave_files(
    inputs: Inputs,
    outcome: SearchOutcome,
    best: TrialRecord,
    sets: dict[int, SyntheticSet],
    rows: list[dict[str, Any]],
    result: dict[str, Any],
) -> None:
    """Write every file of a finished sweep; result.json last, so that it stands for all the others.

    Args:
        inputs: The sweep's inputs.
        outcome: Its trials.
        best: The best of them.
        sets: Synthetic sets by trial number.
        rows: A study's rows; of a search none.
        result: What result.json is to hold.
    """
    settings, folder = inputs.settings, inputs.settings.folder
    space, names = settings.space, inputs.dataset.class_names
    write_parquet(folder / _FILES["trials"], outcome.trials, space.varied)
    write_synthetic(folder / _FILES["synthetic"], sets[best.number])
    write_challenge(folder / _FILES["challenge"], sets[best.number].images)
    shown = {f"after: {FINAL_NAMES['winner']}": sets[best.number]}
    if best.number != REFERENCE_TRIAL and REFERENCE_TRIAL in sets:
        shown[f"after: {FINAL_NAMES['paper_setting']}"] = sets[REFERENCE_TRIAL]
    draw_sets(folder / "figures" / "synthetic.png", _pictures(inputs, shown), names)
    if space.variants:
        write_study(folder / _STUDY_FILES["study"], rows)
        firsts: dict[str, SyntheticSet] = {}
        for number in sorted(sets):  # repeat by repeat: a variant's first that there is
            firsts.setdefault(f"after: {sets[number].config['variant']}", sets[number])
        draw_sets(folder / "figures" / "variants.png", _pictures(inputs, firsts), names)
    write_report(settings, result, outcome.trials, rows)
    _write_result(settings, result)


def _write_result(settings: SweepSettings, result: dict[str, Any]) -> None:
    text = json.dumps(result, indent=1, allow_nan=False)
    write_atomically(settings.folder / "result.json", lambda aside: aside.write_text(text))


def _pictures(inputs: Inputs, sets: dict[str, SyntheticSet]) -> dict[str, torch.Tensor]:
    """Return each set, displayable, by title, after the images that it started from if no set before it did."""
    pictures: dict[str, torch.Tensor] = {}
    origins: set[tuple[str, int]] = set()
    for title, synthetic in sets.items():
        origin = synthetic.config["initialization"], synthetic.config.get("repeat", 0)
        if origin not in origins:
            more = f" ({origin[0]}, repeat {origin[1]})" if origins else ""
            kind = "noise" if origin[0] == "noise" else "real images"
            pictures[f"before: {kind}{more}"] = inputs.dataset.displayable(_initial(inputs, *origin))
        origins.add(origin)
        pictures[title] = inputs.dataset.displayable(synthetic.images)
    return pictures


def _initial(inputs: Inputs, initialization: str, repeat: int) -> torch.Tensor:
    """Return the images that trials of this initialisation and repeat start from."""
    fixed, epochs = inputs.settings.fixed, inputs.settings.space.horizon_epochs
    return initial_images(
        initialization,
        inputs.dataset,
        fixed["ipc"],
        repeat_seed(inputs.settings.seed, repeat),
        network=inputs.network,
        trajectories=inputs.store.open(range(fixed["expert_count"] if initialization == "correct" else 0), epochs),
        epoch=epochs,
        device=torch.device("cpu"),
    )
