"""The algorithm with one setting's values in it, as pseudo-code: `trainables.distillation`.

Source: docs/method.md, "Distillation", "DM" and "DC".
"""

from collections.abc import Mapping
from typing import Any

from orchestrator.reporting.templating import render

__all__ = ["pseudo_code"]

_INITIAL = {
    "real": "real images",
    "correct": "real images that the experts classify correctly",
    "noise": "images of noise",
}


def pseudo_code(settings: Mapping[str, Any]) -> str:
    """Return a distillation, line by line, with the values of one resolved setting.

    Args:
        settings: Every key of the vocabulary, T and T_plus.
    """
    template = "trajectory" if settings["method"] == "trajectory" else "matching"
    return render(
        f"sections/{template}.txt.j2",
        s=settings,
        initial=_INITIAL[settings["initialization"]],
        soft=settings["label_mode"] == "soft",
    )
