"""The two stages that distil, and the names under which their time is recorded."""

__all__ = ["FINALS", "SEARCH", "SECONDS"]

SEARCH, FINALS = "trial", "final"
"""Names of the two stages; a distillation's name is its stage's name and its number."""

SECONDS = {SEARCH: "search", FINALS: "finals"}
"""Key of a stage's time in `Progress.seconds`."""
