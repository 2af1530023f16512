"""The finals' distillations: the winner's and the reference's settings again, with seeds that the search did not use.

The search chose its winner among many trials by the accuracy of one distillation, so that this accuracy is biased
upwards. The fresh distillations were not selected, and are unbiased. They form a study of two variants; a repeat has
the same seed in both variants, so that repeats are paired.
"""

from dataclasses import replace

from orchestrator.results.entries import PAPER_SETTING, WINNER
from orchestrator.results.trials import TrialRecord
from orchestrator.state.settings import SweepSettings
from orchestrator.state.stage import FINALS
from search_spaces import Study
from search_spaces.dimensions import Fixed
from trainables.seeding import seed_of

__all__ = ["repeat_settings"]


def repeat_settings(settings: SweepSettings, best: TrialRecord, reference: TrialRecord | None) -> SweepSettings | None:
    """Return the settings of the finals' distillations; None if the space has no final seeds, or is a study.

    Args:
        settings: The sweep's settings.
        best: The search's winner.
        reference: The reference's trial; None if it left no set.

    The caller sets the stage to `final_stage` of a later number if a search that continued has another winner.
    """
    space, seeds = settings.space, settings.fixed["final_seeds"]
    if not seeds:
        return None
    chosen = {WINNER: best, **({PAPER_SETTING: reference} if reference and reference.number != best.number else {})}
    study = Study(
        name=space.name,
        title=space.title,
        dataset=space.dataset,
        reference=space.reference,
        parameters={
            **{name: dimension for name, dimension in space.pinned().items() if name not in space.searched},
            "repeats": Fixed(seeds, source="final_seeds"),
        },
        variants={name: {key: record.settings[key] for key in space.searched} for name, record in chosen.items()},
    )
    # The time budget applies only to the search.
    return replace(settings, space=study, seed=seed_of(settings.seed, "final seeds"), stage=FINALS, time_budget_s=None)
