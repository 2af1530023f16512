"""The finals' distillations: the winner's settings and the reference's again, with seeds that the search never saw.

The search took its winner, among many, for what one distillation reached, so that very distillation flatters the
settings. These were not chosen. They are a study of two variants; a repeat's seed is the same for both, so they pair.
"""

from dataclasses import replace

from orchestrator.settings import FINALS, SweepSettings
from orchestrator.trials import TrialRecord
from search_spaces import Space
from search_spaces.dimensions import Fixed
from trainables.seeding import seed_of

__all__ = ["repeat_settings"]


def repeat_settings(settings: SweepSettings, best: TrialRecord, reference: TrialRecord | None) -> SweepSettings | None:
    """Return what a search's finals distil; None if nothing was asked for, or the sweep is a study.

    Args:
        settings: The sweep's.
        best: The search's winner.
        reference: The reference's trial; None if it came to nothing.
    """
    space, seeds = settings.space, settings.fixed["final_seeds"]
    if not seeds:
        return None
    chosen = {"winner": best, **({"paper_setting": reference} if reference and reference.number != best.number else {})}
    study = Space(
        name=space.name,
        title=space.title,
        dataset=space.dataset,
        reference=space.reference,
        parameters={
            **{name: each for name, each in space.pinned().items() if name not in space.searched},
            "repeats": Fixed(seeds, source="final_seeds"),
        },
        variants={name: {key: record.settings[key] for key in space.searched} for name, record in chosen.items()},
    )
    # The time budget is the search's.
    return replace(settings, space=study, seed=seed_of(settings.seed, "final seeds"), stage=FINALS, time_budget_s=None)
