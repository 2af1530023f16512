"""The output files of a sweep: result.json, trials, the winner's files, figures and report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from orchestrator.reporting.pictures import draw_sets
from orchestrator.reporting.sweep import write_report
from orchestrator.reporting.words import method_name
from orchestrator.results.entries import PAPER_SETTING, WINNER
from orchestrator.results.finals import Measured, write_finals
from orchestrator.results.result_json import FILES, write_result
from orchestrator.results.study import range_text, write_study
from orchestrator.results.trials import REFERENCE_TRIAL, TrialRecord, trial_name, write_parquet
from orchestrator.stages.inputs import Inputs
from orchestrator.state.settings import SweepSettings
from search_spaces import Study
from trainables.data.synthetic import SyntheticSet, write_challenge, write_synthetic
from trainables.distillation.initialization import initial_images
from trainables.seeding import repeat_seed
from trainables.storage.atomic import write_json

__all__ = ["Findings", "write_outputs", "write_partial_outputs"]


def write_partial_outputs(settings: SweepSettings, result: dict[str, Any], trials: list[TrialRecord]) -> None:
    """Write the trials and result.json of a sweep that has not finished."""
    write_parquet(settings.places.folder / FILES["trials"], trials, settings.space.trial_keys)
    write_result(settings, result)


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The results of a finished sweep that are not in result.json."""

    trials: list[TrialRecord]
    best: TrialRecord
    sets: Mapping[str, SyntheticSet]
    """Synthetic sets by trial's name."""
    measured: Measured
    """Metrics of networks on the test split."""
    rows: list[dict[str, Any]]
    """Rows of a study, or of a search's repeats."""
    diagnostics: dict[str, Any]
    """See `measure_diagnostics`."""


def write_outputs(inputs: Inputs, findings: Findings, result: dict[str, Any]) -> None:
    """Write every file of a finished sweep; result.json is last, so that its presence means that all files exist."""
    settings, folder = inputs.settings, inputs.settings.places.folder
    space, names = settings.space, inputs.dataset.class_names
    best, sets = findings.best, findings.sets
    write_parquet(folder / FILES["trials"], findings.trials, space.trial_keys)
    write_finals(folder / FILES["finals"], findings.measured, names)
    write_json(folder / FILES["diagnostics"], findings.diagnostics)
    write_synthetic(folder / FILES["synthetic"], sets[best.name])
    write_challenge(folder / FILES["challenge"], sets[best.name].images)
    shown = {_title(method_name(WINNER), sets[best.name]): sets[best.name]}
    reference = trial_name(REFERENCE_TRIAL)
    if best.name != reference and reference in sets:
        shown[_title(method_name(PAPER_SETTING), sets[reference])] = sets[reference]
    draw_sets(folder / "figures" / "synthetic.png", _pictures(inputs, shown), names)
    for label in ("study", "repeats"):
        if label in result["files"]:
            write_study(folder / result["files"][label], findings.rows)
    if isinstance(space, Study):
        firsts: dict[str, SyntheticSet] = {}
        for name in sorted(sets, key=lambda name: sets[name].config["repeat"]):  # a variant's first existing repeat
            firsts.setdefault(_title(sets[name].config["variant"], sets[name]), sets[name])
        draw_sets(folder / "figures" / "variants.png", _pictures(inputs, firsts), names)
    write_report(settings, result, findings.trials, findings.rows)
    write_result(settings, result)


def _title(name: str, synthetic: SyntheticSet) -> str:
    return f"after: {name}, expert epochs {range_text(synthetic.config)}"


def _pictures(inputs: Inputs, sets: dict[str, SyntheticSet]) -> dict[str, torch.Tensor]:
    """Return the displayable images of every set by title, preceded by its initial images if no earlier set has them.

    Images are float32 [ipc·C, ch, H, W].
    """
    pictures: dict[str, torch.Tensor] = {}
    origins: set[tuple[str, int]] = set()
    for title, synthetic in sets.items():
        origin = synthetic.config["initialization"], synthetic.config.get("repeat", 0)
        if origin not in origins:
            detail = f" ({origin[0]}, repeat {origin[1]})" if origins else ""
            kind = "noise" if origin[0] == "noise" else "real images"
            pictures[f"before: {kind}{detail}"] = inputs.dataset.displayable(_initial(inputs, *origin))
        origins.add(origin)
        pictures[title] = inputs.dataset.displayable(synthetic.images)
    return pictures


def _initial(inputs: Inputs, initialization: str, repeat: int) -> torch.Tensor:
    """Return the images from which trials of this initialisation and repeat start."""
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
