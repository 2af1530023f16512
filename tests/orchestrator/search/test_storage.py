"""A study in memory and its database: whatever is done to one is in the other, and a proposal is written whole."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from orchestrator.errors import ClusterError
from orchestrator.search.database import open_storage
from orchestrator.search.storage import OwnStudyStorage


def opened(folder: Path) -> optuna.Study:
    storage = OwnStudyStorage(open_storage(f"sqlite:///{folder / 'optuna.db'}"))
    return optuna.create_study(
        study_name="study", storage=storage, direction="maximize", load_if_exists=True,
        sampler=optuna.samplers.RandomSampler(0),
    )  # fmt: skip


def stored(folder: Path) -> list[dict[str, Any]]:
    """Return the trials as another process reads them from the database."""
    return facts(optuna.load_study(study_name="study", storage=f"sqlite:///{folder / 'optuna.db'}"))


def facts(study: optuna.Study) -> list[dict[str, Any]]:
    names = (
        "number", "state", "values", "params", "distributions", "user_attrs", "system_attrs", "intermediate_values",
    )  # fmt: skip
    return [{name: getattr(trial, name) for name in names} for trial in study.get_trials()]


def draw(trial: optuna.Trial) -> None:
    trial._suggest("lr", FloatDistribution(1e-9, 1e3, log=True))
    trial._suggest("N", IntDistribution(1, 9))
    trial._suggest("init", CategoricalDistribution(("real", "noise")))


def test_the_database_has_what_memory_has_and_the_next_process_reads_it(tmp_path: Path) -> None:
    study = opened(tmp_path)
    study.set_user_attr("sweep", {"name": "a"})
    study.enqueue_trial({"lr": 0.1 + 0.2, "N": 3, "init": "noise"})
    for number in range(4):
        trial = study.ask()
        draw(trial)
        study._storage.write(trial._trial_id)  # type: ignore[attr-defined]
        assert stored(tmp_path) == facts(study)
        trial.report(1 / 3, 5)
        trial.set_user_attr("measures", {"loss": 0.1, "skip_rate": 0.0})
        if number < 3:
            study.tell(
                trial,
                0.7 if number == 0 else None,
                state=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)[number],
            )
        assert stored(tmp_path) == facts(study)
    assert study.trials[0].params == {"lr": 0.1 + 0.2, "N": 3, "init": "noise"}
    assert study.trials[1].values == [1 / 3], "a pruned trial's last value"

    again = opened(tmp_path)
    assert facts(again) == facts(study) and again.user_attrs == study.user_attrs == {"sweep": {"name": "a"}}
    unfinished = optuna.Trial(again, again.get_trials()[3]._trial_id)
    unfinished.report(0.5, 10)
    again.tell(unfinished, 0.5)
    assert stored(tmp_path) == facts(again)
    assert again.trials[3].intermediate_values == {5: 1 / 3, 10: 0.5}


def test_a_proposal_is_in_the_database_only_when_it_is_complete(tmp_path: Path) -> None:
    study = opened(tmp_path)
    trial = study.ask()
    trial.suggest_int("N", 1, 9)
    trial.storage.set_trial_system_attr(trial._trial_id, "of the sampler", [1, 2])
    assert stored(tmp_path) == [] and len(study.trials) == 1
    draw(trial)
    study._storage.write(trial._trial_id)  # type: ignore[attr-defined]
    assert stored(tmp_path) == facts(study) and study.trials[0].system_attrs == {"of the sampler": [1, 2]}


def test_a_proposal_of_an_earlier_release_that_is_incomplete_is_completed(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    optuna.create_study(study_name="study", storage=storage, direction="maximize").ask().suggest_int("N", 1, 9)
    study = opened(tmp_path)
    draw(optuna.Trial(study, study.trials[0]._trial_id))
    assert stored(tmp_path) == facts(study) and set(study.trials[0].params) == {"lr", "N", "init"}


def test_a_second_writer_is_noticed(tmp_path: Path) -> None:
    study, other = opened(tmp_path), opened(tmp_path)
    for each in (study, other):
        draw(trial := each.ask())
        if each is study:
            study._storage.write(trial._trial_id)  # type: ignore[attr-defined]
    with pytest.raises(ClusterError, match="another process writes the study 'study'"):
        other._storage.write(trial._trial_id)  # type: ignore[attr-defined]
