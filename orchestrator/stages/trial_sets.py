"""The synthetic sets of trials, read from their checkpoints."""

from collections.abc import Iterable
from typing import Any

import ray
import torch

from orchestrator.results.trials import REFERENCE_TRIAL, TrialRecord, images_of
from orchestrator.stages.inputs import Inputs
from orchestrator.state.settings import SweepSettings
from search_spaces import Study
from search_spaces.entry import Kind
from trainables.data.labels import default_order_labels
from trainables.data.synthetic import SyntheticSet
from trainables.storage.checkpoints import checkpoint_place, read_checkpoint

__all__ = ["read_synthetic_sets"]


def read_synthetic_sets(
    inputs: Inputs, records: Iterable[TrialRecord], best: TrialRecord | None = None
) -> dict[str, SyntheticSet]:
    """Return the sets of the finals by trial's name, read from the last checkpoint of their trial.

    They are the sets of the best trial and of the reference trial, if it has one; in a study also the sets of all
    trials that completed their iterations.
    """
    study = isinstance(inputs.settings.space, Study)
    wanted = {best.number, REFERENCE_TRIAL} if best else set()
    sets = {}
    for record in records:
        if (record.number in wanted and record.rungs) or (study and record.status == "finished"):
            state = read_checkpoint(checkpoint_place(inputs.settings.places.checkpoints, record.number))
            if state is not None:  # a trial that failed before its first rung has no checkpoint
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
            # Of the checkpoint: a paused trial may have written one that the study does not have yet.
            "validation_accuracy": state["unconfirmed"]["validation_accuracy"],
            "dataset_digest": dataset.digest,
            "experts": inputs.store.address,
            "torch": torch.__version__,
            "ray": ray.__version__,
        },
    )


def _method(settings: SweepSettings, record: TrialRecord) -> str:
    """Return the method's name in a set's file: the preset's or the method's label, in a study the variant."""
    label = settings.space.entry(Kind.METHOD, record.settings["method"]).label
    name = settings.preset or ("DATM" if record.settings["label_mode"] == "soft" else label)
    return f"{settings.space.name}: {record.settings['variant']}" if isinstance(settings.space, Study) else name
