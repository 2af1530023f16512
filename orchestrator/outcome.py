"""What a sweep leaves on disk: result.json, trials, the winner's files, figures and report. DESIGN, Contracts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
import torch

from orchestrator.comparisons import compare_finals
from orchestrator.experts import ExpertSummary
from orchestrator.figures import draw_sets
from orchestrator.finals import Measured, write_finals
from orchestrator.inputs import Inputs
from orchestrator.rungs import REFERENCE_TRIAL
from orchestrator.settings import SweepSettings
from orchestrator.study import range_text, write_study
from orchestrator.sweep_report import write_report
from orchestrator.tables import FINAL_NAMES
from orchestrator.tracking import SweepRun, compare_url
from orchestrator.trials import TrialRecord, best_trial, images_of, trial_name, write_parquet
from trainables.checkpoints import checkpoint_place, read_checkpoint
from trainables.files import write_json
from trainables.initialization import initial_images
from trainables.labels import default_order_labels
from trainables.seeding import repeat_seed
from trainables.synthetic import SyntheticSet, write_challenge, write_synthetic

__all__ = [
    "Findings",
    "collect_result",
    "finished_result",
    "leave_files",
    "leave_unfinished",
    "read_synthetic_sets",
]

_FILES = {
    "synthetic": "synthetic.safetensors",
    "challenge": "synthetic.pt",
    "report": "report.md",
    "page": "report.html",
    "trials": "trials.parquet",
    "finals": "finals.parquet",
    "diagnostics": "diagnostics.json",
    "model": "model",
}


OF_REAL_IMAGES = {"distribution": "DM", "gradient": "DC"}
"""What the methods are called that match real images and no experts."""


def read_synthetic_sets(
    inputs: Inputs, records: Iterable[TrialRecord], best: TrialRecord | None = None
) -> dict[str, SyntheticSet]:
    """Return by trial's name the sets that go to the finals, each from its trial's last rung.

    They are those of the best trial and of the reference trial, if it has one; in a study those of every trial that
    did all its iterations.
    """
    study = bool(inputs.settings.space.variants)
    wanted = {best.number, REFERENCE_TRIAL} if best else set()
    sets = {}
    for record in records:
        if record.number in wanted or (study and record.status == "finished"):
            state = read_checkpoint(checkpoint_place(inputs.settings.checkpoints, record.number))
            if state is not None:  # a trial that failed at once has none
                sets[record.name] = _synthetic_set(inputs, record, state)
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
    of_method = {"trajectory": "M-DATM" if record.settings["label_mode"] == "hard" else "DATM", **OF_REAL_IMAGES}
    name = settings.preset or of_method[record.settings["method"]]
    return f"{settings.space.name}: {record.settings['variant']}" if settings.space.variants else name


def collect_result(
    settings: SweepSettings,
    status: str,
    trials: list[TrialRecord],
    finals: dict[str, Any],
    experts: ExpertSummary | None,
    run: SweepRun,
    workers: dict[str, float],
    seconds: dict[str, float],
    study: dict[str, Any] | None = None,
    regimes: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what result.json holds; its form is a contract. Parts that a sweep did not come to are null or empty.

    `summarize_study`'s is there as `study` in a study, and as `repeats` in a search whose finals distil again;
    `summarize_regimes`' where label regimes are asked for.
    """
    part = "study" if settings.space.variants else "repeats" if settings.fixed["final_seeds"] else None
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
        **({part: study} if part else {}),
        **({"regimes": regimes} if regimes else {}),
        "experts": experts.facts() if experts else None,
        "workers": workers,
        "seconds": seconds,
        "mlflow": {
            "tracking_uri": run.tracking_uri,
            "experiment_id": run.experiment_id,
            "parent_run_id": run.run_id,
            "compare_url": compare_url(run, list(run.trial_runs().values())),
        },
        "files": _FILES | ({part: f"{part}.parquet"} if part else {})
        if status == "finished"
        else {"trials": _FILES["trials"]},
    }


def _trial_entry(record: TrialRecord) -> dict[str, Any]:
    return {"trial": record.name, "config": record.settings, "validation_accuracy": record.last}


def finished_result(settings: SweepSettings) -> dict[str, Any] | None:
    """Return what result.json holds if the sweep is finished."""
    result = settings.stored_result()
    return result if result and result["status"] == "finished" else None


def write_result(settings: SweepSettings, result: dict[str, Any]) -> None:
    """Write result.json, which stands for all other files and so comes last."""
    write_json(settings.folder / "result.json", result)


def leave_unfinished(settings: SweepSettings, result: dict[str, Any], trials: list[TrialRecord]) -> None:
    """Write what a sweep has that was stopped or failed: its trials and a result.json that says so."""
    write_parquet(settings.folder / _FILES["trials"], trials, settings.space.varied)
    write_result(settings, result)


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a finished sweep found, besides what result.json holds."""

    trials: list[TrialRecord]
    best: TrialRecord
    sets: Mapping[str, SyntheticSet]
    """Synthetic sets by trial's name."""
    measured: Measured
    """What networks reached on the test split."""
    rows: list[dict[str, Any]]
    """A study's rows, or those of a search's repeats."""
    diagnostics: dict[str, Any]
    """See `measure_diagnostics`."""


def leave_files(inputs: Inputs, found: Findings, result: dict[str, Any]) -> None:
    """Write every file of a finished sweep; result.json last, so that it stands for all the others."""
    settings, folder = inputs.settings, inputs.settings.folder
    space, names = settings.space, inputs.dataset.class_names
    best, sets = found.best, found.sets
    write_parquet(folder / _FILES["trials"], found.trials, space.varied)
    write_finals(folder / _FILES["finals"], found.measured, names)
    write_json(folder / _FILES["diagnostics"], found.diagnostics)
    write_synthetic(folder / _FILES["synthetic"], sets[best.name])
    write_challenge(folder / _FILES["challenge"], sets[best.name].images)
    shown = {_title(FINAL_NAMES["winner"], sets[best.name]): sets[best.name]}
    reference = trial_name(REFERENCE_TRIAL)
    if best.name != reference and reference in sets:
        shown[_title(FINAL_NAMES["paper_setting"], sets[reference])] = sets[reference]
    draw_sets(folder / "figures" / "synthetic.png", _pictures(inputs, shown), names)
    for label in ("study", "repeats"):
        if label in result["files"]:
            write_study(folder / result["files"][label], found.rows)
    if space.variants:
        firsts: dict[str, SyntheticSet] = {}
        for name in sorted(sets, key=lambda name: sets[name].config["repeat"]):  # a variant's first that there is
            firsts.setdefault(_title(sets[name].config["variant"], sets[name]), sets[name])
        draw_sets(folder / "figures" / "variants.png", _pictures(inputs, firsts), names)
    write_report(settings, result, found.trials, found.rows)
    write_result(settings, result)


def _title(name: str, synthetic: SyntheticSet) -> str:
    return f"after: {name}, expert epochs {range_text(synthetic.config)}"


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
