"""The two stages that distil, and the names under which their time is recorded."""

__all__ = ["FINALS", "SEARCH", "final_stage", "seconds_key"]

SEARCH, FINALS = "trial", "final"
"""Names of the two stages; a distillation's name is its stage's name and its number."""


def final_stage(number: int) -> str:
    """Return the stage of the finals' distillations: of the first winner, or a later one of a search that continued."""
    return FINALS if number == 1 else f"{FINALS}-{number}"


def seconds_key(stage: str) -> str:
    """Return the key of a stage's time in `Progress.seconds`."""
    return "search" if stage == SEARCH else "finals"
