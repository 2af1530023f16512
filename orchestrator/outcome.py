"""What a sweep leaves on disk: result.json, trials, the winner's files, figures and report. DESIGN, Contracts."""

import json
from pathlib import Path
from typing import Any

import ray
import torch

from orchestrator.experts import ExpertSummary
from orchestrator.figures import draw_sets, draw_trials
from orchestrator.inputs import Inputs
from orchestrator.report import FINAL_NAMES, write_report
from orchestrator.search import REFERENCE_TRIAL, SearchOutcome
from orchestrator.settings import SweepSettings
from orchestrator.tracking import SweepRun, compare_url
from orchestrator.trials import TrialRecord, best_trial, write_parquet
from trainables.files import write_atomically
from trainables.initialization import initial_images
from trainables.labels import default_order_labels
from trainables.synthetic import SyntheticSet, write_challenge, write_synthetic
from trainables.trial import read_state

__all__ = ["collect_result", "leave_files", "leave_unfinished", "read_synthetic_sets"]

_FILES = {
    "synthetic": "synthetic.safetensors",
    "challenge": "synthetic.pt",
    "report": "report.md",
    "trials": "trials.parquet",
}


def read_synthetic_sets(inputs: Inputs, outcome: SearchOutcome, best: TrialRecord) -> dict[str, SyntheticSet]:
    """Return the sets that the best trial and, if it has one, the reference trial made at their last rung."""
    by_number = {record.number: record for record in outcome.trials}
    sets = {}
    for name, number in (("winner", best.number), ("paper_setting", REFERENCE_TRIAL)):
        if number in outcome.checkpoints and number in by_number:
            with outcome.checkpoints[number].as_directory() as folder:
                sets[name] = _synthetic_set(inputs, by_number[number], read_state(Path(folder)))
    return sets


def _synthetic_set(inputs: Inputs, record: TrialRecord, state: dict[str, Any]) -> SyntheticSet:
    dataset, settings = inputs.dataset, inputs.settings
    return SyntheticSet(
        images=state["images"],
        labels=default_order_labels(record.settings["ipc"], dataset.classes),
        alpha=state["alpha"],
        dataset=dataset.name,
        class_names=dataset.class_names,
        mean=dataset.mean,
        std=dataset.std,
        ipc=record.settings["ipc"],
        method="M-DATM",
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


def collect_result(
    settings: SweepSettings,
    status: str,
    trials: list[TrialRecord],
    finals: dict[str, Any],
    experts: ExpertSummary | None,
    run: SweepRun,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Return what result.json holds; its form is a contract. Parts that a sweep did not come to are null or empty."""
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
        "experts": experts.facts() if experts else None,
        "seconds": seconds,
        "mlflow": {
            "tracking_uri": run.tracking_uri,
            "experiment_id": run.experiment_id,
            "parent_run_id": run.run_id,
            "compare_url": compare_url(run, list(run.trial_runs().values())),
        },
        "files": dict(_FILES) if status == "finished" else {"trials": _FILES["trials"]},
    }


def _trial_entry(record: TrialRecord) -> dict[str, Any]:
    return {"trial": record.name, "config": record.settings, "validation_accuracy": record.last}


def leave_unfinished(settings: SweepSettings, result: dict[str, Any], trials: list[TrialRecord]) -> None:
    """Write what a sweep has that was stopped or failed: its trials and a result.json that says so."""
    write_parquet(settings.folder / _FILES["trials"], trials, list(settings.space.searched))
    _write_result(settings, result)


def leave_files(
    inputs: Inputs, outcome: SearchOutcome, best: TrialRecord, sets: dict[str, SyntheticSet], result: dict[str, Any]
) -> None:
    """Write every file of a finished sweep; result.json last, so that it stands for all the others."""
    settings, folder = inputs.settings, inputs.settings.folder
    searched = list(settings.space.searched)
    write_parquet(folder / _FILES["trials"], outcome.trials, searched)
    write_synthetic(folder / _FILES["synthetic"], sets["winner"])
    write_challenge(folder / _FILES["challenge"], sets["winner"].images)
    draw_sets(folder / "figures" / "synthetic.png", _pictures(inputs, sets), inputs.dataset.class_names)
    draw_trials(folder / "figures" / "trials.png", outcome.trials, best)
    protocol, full = settings.final_protocol, settings.full_data_protocol
    write_report(
        folder / _FILES["report"],
        result,
        outcome.trials,
        title=settings.space.title,
        reference=settings.space.reference,
        searched=searched,
        protocol=(
            f"Challenge protocol: {protocol.epochs} epochs, SGD {protocol.learning_rate} then "
            f"{protocol.learning_rate * protocol.drop_factor:g} after epoch {protocol.drop_after_epochs}, "
            f"batch {protocol.batch_size}; {full.epochs} epochs on the full training set."
        ),
    )
    _write_result(settings, result)


def _write_result(settings: SweepSettings, result: dict[str, Any]) -> None:
    text = json.dumps(result, indent=1, allow_nan=False)
    write_atomically(settings.folder / "result.json", lambda aside: aside.write_text(text))


def _pictures(inputs: Inputs, sets: dict[str, SyntheticSet]) -> dict[str, torch.Tensor]:
    """Return the initial images and each set, displayable, by title."""
    settings, winner = inputs.settings, sets["winner"]
    epochs = settings.space.horizon_epochs
    initial = initial_images(
        settings.fixed["initialization"],
        inputs.dataset,
        winner.ipc,
        settings.seed,
        network=inputs.network,
        trajectories=inputs.store.open(range(settings.fixed["expert_count"]), epochs),
        epoch=epochs,
        device=torch.device("cpu"),
    )
    pictures = {"before: real images": initial}
    for name, synthetic in sets.items():
        same = name == "paper_setting" and synthetic.provenance["trial"] == winner.provenance["trial"]
        if not same:
            pictures[f"after: {FINAL_NAMES[name]}"] = synthetic.images
    return {title: inputs.dataset.displayable(images) for title, images in pictures.items()}
