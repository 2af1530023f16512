"""What a sweep leaves for people: the result table, report.md and its figures."""

from pathlib import Path
from typing import Any

from rich.table import Table

from orchestrator.trials import TrialRecord, ranked

__all__ = ["FINAL_NAMES", "result_table", "write_report"]

FINAL_NAMES = {
    "winner": "best trial",
    "paper_setting": "reference setting (trial 0)",
    "random_real": "random real images",
    "full_data": "full training set",
}


def result_table(result: dict[str, Any]) -> Table:
    """Return the finals as a table for the terminal."""
    networks = next(iter(result["finals"].values()))["accuracy"]["n"]
    table = Table(title=f"Test split, mean ± std over {networks} networks", title_justify="left")
    table.add_column("trained on")
    for heading in ("accuracy", "macro-F1", "macro-recall"):
        table.add_column(heading, justify="right")
    for name, metrics in result["finals"].items():
        cells = [_mean_std(metrics[metric]) for metric in ("accuracy", "macro_f1", "macro_recall")]
        table.add_row(FINAL_NAMES[name], *cells)
    return table


def write_report(
    path: Path,
    result: dict[str, Any],
    records: list[TrialRecord],
    *,
    title: str,
    reference: str,
    searched: list[str],
    protocol: str,
) -> None:
    """Write report.md: the answer, the ranked trials, the pictures and the cost.

    Args:
        path: The file.
        result: result.json's content.
        records: All trials that ended.
        title: The space's question.
        reference: Whose setting trial 0 is.
        searched: Names of the parameters that varied.
        protocol: How the finals trained, in a sentence.
    """
    experts, seconds = result["experts"], result["seconds"]
    parts = [
        f"# {result['sweep']}: {title}",
        _headline(result),
        _counts(result, reference),
        "## On the test split",
        f"Read once, after the search. {protocol} Mean ± standard deviation over fresh networks.",
        _finals_table(result["finals"]),
        "![Synthetic images before and after](figures/synthetic.png)",
        "## Trials, best first",
        "Accuracy on the validation split, which neither experts nor distillation saw; those that went furthest first.",
        _trials_table(ranked(records), searched),
        "![Search](figures/trials.png)",
        "## Cost",
        f"Experts {seconds['experts']:.0f} s ({experts['trained']} trained, {experts['reused']} reused), search "
        f"{seconds['search']:.0f} s, finals {seconds['finals']:.0f} s, all {seconds['total']:.0f} s.",
        "## Files",
        "- `synthetic.safetensors`: images, labels, α, normalisation, class names, settings, provenance\n"
        "- `synthetic.pt`: the images alone, a float tensor in default order, as the challenge wants it\n"
        "- `trials.parquet`, `result.json`, `settings.json`",
    ]
    path.write_text("\n\n".join(parts) + "\n")


def _headline(result: dict[str, Any]) -> str:
    finals, best, paper = result["finals"], result["best"], result["paper"]
    winner = finals["winner"]["accuracy"]

    def gain(name: str) -> str:
        return f"{winner['mean'] - finals[name]['accuracy']['mean']:+.3f}"

    text = (
        f"The best setting, **{best['trial']}**, reaches **{_mean_std(winner)}** test accuracy, "
        f"{gain('random_real')} against random real images of the same number"
    )
    if paper and paper["trial"] == best["trial"]:
        return f"{text}; it is the reference setting itself."
    if "paper_setting" in finals:
        return f"{text} and {gain('paper_setting')} against the reference setting."
    return f"{text}; the reference setting left no synthetic set to compare with."


def _counts(result: dict[str, Any], reference: str) -> str:
    counts = result["trials"]
    return (
        f"Space `{result['space']}`, seed {result['seed']}; {counts['finished']} trials finished, "
        f"{counts['pruned']} pruned, {counts['failed']} failed. Trial 0 is {reference}."
    )


def _finals_table(finals: dict[str, Any]) -> str:
    lines = ["| trained on | accuracy | macro-F1 | macro-recall | n |", "|---|---|---|---|---|"]
    for name, metrics in finals.items():
        cells = " | ".join(_mean_std(metrics[metric]) for metric in ("accuracy", "macro_f1", "macro_recall"))
        lines.append(f"| {FINAL_NAMES[name]} | {cells} | {metrics['accuracy']['n']} |")
    return "\n".join(lines)


def _trials_table(records: list[TrialRecord], searched: list[str]) -> str:
    headings = ["trial", "status", "iterations", "validation accuracy", *searched]
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for record in records:
        accuracy = "–" if record.last is None else f"{record.last:.3f}"
        values = [_number(record.settings[key]) for key in searched]
        status = f"failed: {record.reason}" if record.status == "failed" else record.status
        lines.append(f"| {' | '.join([record.name, status, str(record.iterations), accuracy, *values])} |")
    return "\n".join(lines)


def _mean_std(summary: dict[str, Any]) -> str:
    return f"{summary['mean']:.3f} ± {summary['std']:.3f}"


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
