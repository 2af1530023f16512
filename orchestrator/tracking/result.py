"""A sweep's result as entries of MLflow's parent run: metrics, files, and the description at the top of its page."""

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.reporting.summary import describe, describe_comparison
from orchestrator.state.settings import SweepSettings
from orchestrator.tracking.datasets import synthetic_dataset
from orchestrator.tracking.entries import file_entries, metric_entries
from orchestrator.tracking.mlflow_service import INPUT, TAGS, Part
from orchestrator.tracking.served_model import model_tags
from search_spaces import Comparison

__all__ = ["result_entries", "result_metrics"]


def result_entries(result: Mapping[str, Any], settings: SweepSettings, run_id: str) -> Iterator[Part]:
    """Yield the entries of a result for the parent run.

    Args:
        result: Content of result.json of a finished sweep or comparison.
        settings: The sweep's; the files are in its folder.
        run_id: The parent run's.
    """
    folder = settings.places.folder
    places = ["result.json", "settings.json", "figures"]
    if isinstance(settings.space, Comparison):  # a metric a method and regime, whose step is images per class
        records = result["records"]
        yield from metric_entries((f"{row['regime']}_{row['method']}", row["mean"], row["ipc"]) for row in records)
        yield TAGS, {"mlflow.note.content": describe_comparison(settings, result)}
        places += ["report.md", "report.html"]
    else:
        files = result["files"]
        yield from metric_entries((name, value, 0) for name, value in result_metrics(result).items())
        model = model_tags(folder, files["model"], run_id) if "model" in files else {}
        yield TAGS, {"mlflow.note.content": describe(result, settings), **model}
        yield INPUT, synthetic_dataset(folder / files["synthetic"], run_id)
        places += [place for label, place in files.items() if label != "challenge"]  # the same images as "synthetic"
    for place in places:
        yield from file_entries(folder, place)


def result_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a finished sweep from the content of its result.json."""
    figures = {
        f"{name}_{metric}": summary["mean"]
        for name, summaries in result["finals"].items()
        for metric, summary in summaries.items()
    }
    figures |= {
        f"{part}_{variant}_{metric}": summary["mean"]
        for part in ("study", "repeats")
        if part in result
        for variant, summaries in result[part]["variants"].items()
        for metric, summary in summaries.items()
        if metric != "settings" and summary is not None
    }
    figures |= {
        f"{regime}_{name}_accuracy": summaries["accuracy"]["mean"]
        for regime, entry in result.get("regimes", {}).items()
        for name, summaries in entry["sets"].items()
    }
    figures["best_validation_accuracy"] = result["best"]["validation_accuracy"]
    figures |= {f"trials_{status}": count for status, count in result["trials"].items()}
    figures |= {f"seconds_{stage}": seconds for stage, seconds in result["seconds"].items()}
    return figures
