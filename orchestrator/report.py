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
        table.add_row(FINAL_NAMES.get(name, name), *cells)
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
    """Write report.md: the answer, the ranked trials, the pictures and how to repeat it.

    Args:
        path: The file.
        result: result.json's content.
        records: All trials that ended.
        title: The space's question.
        reference: Whose setting trial 0 is.
        searched: Names of the parameters that varied.
        protocol: One line: how the finals trained.
    """
    best, paper, finals = result["best"], result["paper"], result["finals"]
    gain = finals["winner"]["accuracy"]["mean"] - finals["random_real"]["accuracy"]["mean"]
    versus = finals["winner"]["accuracy"]["mean"] - finals["paper_setting"]["accuracy"]["mean"]
    counts = result["trials"]
    same = best["trial"] == paper["trial"]
    lines = [
        f"# {result['sweep']}: {title}",
        "",
        f"The best setting, **{best['trial']}**, reaches **{_mean_std(finals['winner']['accuracy'])}** test accuracy, "
        f"{gain:+.3f} against random real images of the same number"
        + (", and is the reference setting itself." if same else f" and {versus:+.3f} against the reference setting."),
        "",
        f"Space `{result['space']}`, seed {result['seed']}; {counts['finished']} trials finished, {counts['pruned']} pruned, "
        f"{counts['failed']} failed. Trial 0 is {reference}.",
        "",
        "## On the test split",
        "",
        f"Read once, after the search. {protocol} Mean ± standard deviation over fresh networks.",
        "",
        "| trained on | accuracy | macro-F1 | macro-recall | n |",
        "|---|---|---|---|---|",
    ]
    for name, metrics in finals.items():
        cells = " | ".join(_mean_std(metrics[metric]) for metric in ("accuracy", "macro_f1", "macro_recall"))
        lines.append(f"| {FINAL_NAMES.get(name, name)} | {cells} | {metrics['accuracy']['n']} |")
    lines += [
        "",
        "![Synthetic images before and after](figures/synthetic.png)",
        "",
        "## Trials, best first",
        "",
        "Accuracy on the validation split, which neither experts nor distillation saw; those that went further rank first.",
        "",
        "| trial | status | iterations | validation accuracy | " + " | ".join(searched) + " |",
        "|---" * (4 + len(searched)) + "|",
    ]
    for record in ranked(records):
        values = " | ".join(_number(record.settings[key]) for key in searched)
        accuracy = "–" if record.last is None else f"{record.last:.3f}"
        status = (
            record.status if not record.reason or record.status == "pruned" else f"{record.status}: {record.reason}"
        )
        lines.append(f"| {record.name} | {status} | {record.iterations} | {accuracy} | {values} |")
    seconds = result["seconds"]
    lines += [
        "",
        "![Search](figures/trials.png)",
        "",
        "## Cost",
        "",
        f"Experts {seconds['experts']:.0f} s ({result['experts']['trained']} trained, {result['experts']['reused']} reused), "
        f"search {seconds['search']:.0f} s, finals {seconds['finals']:.0f} s, all {seconds['total']:.0f} s.",
        "",
        "## Files",
        "",
        "- `synthetic.safetensors`: images, labels, α, normalisation, class names, settings, provenance",
        "- `synthetic.pt`: the images alone, a float tensor in default order, as the challenge wants it",
        "- `trials.parquet`, `result.json`, `settings.json`",
        "",
    ]
    path.write_text("\n".join(lines))


def _mean_std(summary: dict[str, Any]) -> str:
    return f"{summary['mean']:.3f} ± {summary['std']:.3f}"


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
