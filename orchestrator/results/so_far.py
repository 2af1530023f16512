"""The results of a sweep that has not finished, from what its study and its progress keep."""

from orchestrator.results.finals import CHALLENGE, Measured, name_finals
from orchestrator.results.regimes import summarize_regimes
from orchestrator.results.result_json import Found
from orchestrator.results.study import study_rows, summarize_variants
from orchestrator.results.trials import REFERENCE_TRIAL, TrialRecord, best_trial, trial_name
from orchestrator.state.settings import SweepSettings
from search_spaces import Space, Study

__all__ = ["found_so_far"]


def found_so_far(
    settings: SweepSettings,
    trials: list[TrialRecord],
    measured: Measured,
    images: int,
    repeats: tuple[Space, list[TrialRecord]] | None,
) -> Found:
    """Return the results so far; sets may lack networks, and no difference is tested.

    Args:
        settings: The sweep's.
        trials: Trials of the search or study, unfinished ones too.
        measured: Networks of the finals that are tested.
        images: Real training images, |D|.
        repeats: The study of the finals' distillations and its trials; None before they have begun.
    """
    best = best_trial(trials)
    if best is None:
        return Found(trials=trials)
    challenge = measured.get(CHALLENGE, {})
    space, records = repeats or (settings.space, trials)
    rows = study_rows(space, records, challenge) if isinstance(space, Study) else []
    study = {"variants": summarize_variants(space, rows), "comparisons": []} if isinstance(space, Study) else None
    return Found(
        trials=trials,
        finals=name_finals(challenge, best.name, trial_name(REFERENCE_TRIAL)),
        study=study if rows else None,
        regimes=summarize_regimes(settings, measured, best.name, images, tested=False),
    )
