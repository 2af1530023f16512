"""What MLflow's parent run says of a result: metrics, files, and the description that its page opens with."""

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.accuracy import headline
from orchestrator.comparison_report import describe_comparison
from orchestrator.delivery import INPUT, TAGS, Part
from orchestrator.mlflow_datasets import synthetic_dataset
from orchestrator.mlflow_entries import file_entries, metric_entries
from orchestrator.served_model import model_tags
from orchestrator.settings import SweepSettings
from orchestrator.sweep_report import repeat_command
from orchestrator.tables import (
    difference_parts,
    finals_table,
    repeats_markdown,
    study_markdown,
)

__all__ = ["describe", "result_entries", "result_metrics"]


def result_entries(result: Mapping[str, Any], settings: SweepSettings, run_id: str) -> Iterator[Part]:
    """Yield what the parent run is told of a result.

    Args:
        result: What result.json holds, of a finished sweep or comparison.
        settings: The sweep's; the files are in its folder.
        run_id: The parent run's.
    """
    folder = settings.folder
    places = ["result.json", "settings.json", "figures"]
    if settings.space.ipcs:  # a metric a method and regime, whose step is images per class
        records = result["records"]
        yield from metric_entries((f"{each['regime']}_{each['method']}", each["mean"], each["ipc"]) for each in records)
        yield TAGS, {"mlflow.note.content": describe_comparison(settings, result)}
        places += ["report.md", "report.html"]
    else:
        files = result["files"]
        yield from metric_entries((name, value, 0) for name, value in result_metrics(result).items())
        model = model_tags(folder, files["model"], run_id) if "model" in files else {}
        yield TAGS, {"mlflow.note.content": describe(result, settings), **model}
        yield INPUT, synthetic_dataset(folder / files["synthetic"], run_id)
        places += [place for label, place in files.items() if label != "challenge"]  # the images once
    for place in places:
        yield from file_entries(folder, place)


def result_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of what result.json holds of a finished sweep."""
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
        for regime, found in result.get("regimes", {}).items()
        for name, summaries in found["sets"].items()
    }
    figures["best_validation_accuracy"] = result["best"]["validation_accuracy"]
    figures |= {f"trials_{status}": count for status, count in result["trials"].items()}
    figures |= {f"seconds_{stage}": seconds for stage, seconds in result["seconds"].items()}
    return figures


def describe(result: Mapping[str, Any], settings: SweepSettings) -> str:
    """Return a finished sweep's result in Markdown, without pictures: MLflow resolves no paths of a run's artifacts.

    Args:
        result: What result.json holds.
        settings: What the sweep was asked.
    """
    counts = result["trials"]
    parts = [
        headline(result),
        f"Of {sum(counts.values())} trials {counts['finished']} finished, {counts['pruned']} were pruned, "
        f"{counts['failed']} failed. Trial 0 is {settings.space.reference}.",
        f"The report is `report.html`, here among the artifacts and in `{settings.place}`. The synthetic set is "
        "`synthetic.safetensors`; `model` is a network that was trained on it.",
        f"To repeat the sweep: `{repeat_command(settings)}`",  # a block of code would widen the whole page
        "Mean ± standard deviation over networks, on the test split:",
        finals_table(result["finals"]),
        *difference_parts(result["comparisons"]),
    ]
    if "repeats" in result:
        parts += [
            "The settings distilled again, with seeds that the search never saw; mean ± standard deviation over "
            "distillations:",
            repeats_markdown(result["repeats"]),
            *difference_parts(result["repeats"]["comparisons"]),
        ]
    if "study" in result:  # last: MLflow cuts off what is too long for it
        parts += [
            "The variants; mean ± standard deviation over repeats:",
            study_markdown(result["study"], settings.space),
        ]
    return "\n\n".join(parts)
