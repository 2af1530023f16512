"""A finished sweep's result, small enough to check by hand."""

from typing import Any

from orchestrator.results.differences import compare_finals
from orchestrator.results.finals import CHALLENGE
from orchestrator.results.statistics import summarize
from trainables.evaluation.metrics import TESTED, Metrics

MEASURED = {
    CHALLENGE: {
        "trial-000": [Metrics(((8, 2), (1, 9))), Metrics(((9, 1), (0, 10)))],
        "random_real": [Metrics(((5, 5), (5, 5))), Metrics(((6, 4), (5, 5)))],
    },
    "soft": {
        "trial-000": [Metrics(((7, 3), (0, 10))), Metrics(((8, 2), (1, 9)))],
        "random_real": [Metrics(((7, 3), (2, 8))), Metrics(((9, 1), (4, 6)))],
    },
}
"""Of each regime, the confusion matrices of two networks of two sets."""


def finished_result() -> dict[str, Any]:
    """Return what result.json holds of a finished sweep whose finals are `MEASURED`."""
    finals = {
        of: {metric: summarize([getattr(each, metric) for each in MEASURED[CHALLENGE][place]]) for metric in TESTED}
        for of, place in (("winner", "trial-000"), ("random_real", "random_real"))
    }
    return {
        "finals": finals,
        "comparisons": compare_finals(finals),
        **{name: {"trial": "trial-000", "config": {}, "validation_accuracy": 0.8} for name in ("best", "paper")},
        "trials": {"finished": 3, "pruned": 1, "failed": 0, "paused": 0},
        "seconds": {"search": 12.5},
        "files": {
            "synthetic": "synthetic.safetensors", "challenge": "synthetic.pt", "report": "report.md",
            "page": "report.html", "trials": "trials.parquet", "model": "model",
        },
    }  # fmt: skip
