"""The standing of a sweep as lines of text, and as JSON."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from orchestrator.reporting.sections.pages import pages_command
from orchestrator.reporting.words import mean_std
from orchestrator.results.entries import PAPER_SETTING, WINNER
from orchestrator.results.standing import Standing, Standings
from orchestrator.results.under_way import StageAtWork
from orchestrator.terminal.steps import time_text

__all__ = ["facts_of", "lines_of"]

LISTED = 4
"""Running trials that are listed by name; of more, their number and the range of their iterations."""


def facts_of(standing: Standing, unsent: int | None) -> dict[str, Any]:
    """Return a standing as `status --json` prints it.

    Args:
        standing: The standing.
        unsent: Entries that wait for MLflow; None: not known here.
    """
    result, settings = standing.result or {}, standing.settings
    return {
        "sweep": settings.name,
        "state": standing.state,
        "elsewhere": standing.elsewhere,
        "trials": result.get("trials"),
        "expected_trials": settings.fixed["trials"],
        **{name: _entry(result.get(name)) for name in ("best", "paper")},
        "networks": _networks(result),
        "under_way": result.get("under_way"),
        "unsent": unsent,
        "resume": None if standing.state == Standings.FINISHED else settings.resume_command,
        "pages": pages_command(settings),
    }


def lines_of(standing: Standing, unsent: int | None, now: datetime | None = None) -> list[str]:
    """Return a standing as lines of text, the sweep's name and state first.

    Args:
        standing: The standing.
        unsent: Entries that wait for MLflow; None: not known here.
        now: The time; None: that of the clock.
    """
    now = now or datetime.now(UTC)
    settings, under_way, result = standing.settings, standing.under_way, standing.result
    facts: dict[str, str] = {}
    if under_way is not None:
        facts["stage"] = _stage_text(under_way.stage, now)
        if under_way.reason:
            facts["because"] = under_way.reason
    if result is not None and "trials" in result:
        facts["trials"] = _trials_text(result["trials"], settings.fixed["trials"])
        facts["best"] = _best_text(result)
    if result is not None and (networks := _networks(result)):
        facts["networks"] = f"{networks} are tested"
    if under_way is not None and not standing.state.ended:
        facts["speed"] = _speed_text(under_way.stage, (now - under_way.written).total_seconds())
    waiting = "" if unsent is None else f"{unsent} entries wait to be sent; "
    facts["MLflow"] = f"{waiting}its pages: {pages_command(settings)}"
    if standing.state.ended and standing.state != Standings.FINISHED:
        facts["go on"] = settings.resume_command
    elif standing.state == Standings.FINISHED:
        facts["report"] = f"{settings.places.shared}/report.html"
    elif standing.elsewhere:
        facts["go on"] = f"if its driver is lost: {settings.resume_command}"
    wide = max(map(len, facts))
    return [_headline(standing, now), *(f"  {name.ljust(wide)}  {text}" for name, text in facts.items())]


def _headline(standing: Standing, now: datetime) -> str:
    under_way, where = standing.under_way, ""
    if standing.elsewhere:
        where = ", on another machine unless its driver was lost"
    if under_way is None:
        return f"{standing.settings.name}: {standing.state}{where}"
    ran = time_text((under_way.written - under_way.begun).total_seconds())
    ago = time_text(max(0.0, (now - under_way.written).total_seconds()))
    times = f"{ago} ago, after {ran}" if standing.state.ended else f"for {ran}, as of {ago} ago"
    return f"{standing.settings.name}: {standing.state} {times}{where}"


def _stage_text(stage: StageAtWork, now: datetime) -> str:
    """Return what is done, and since when."""
    parts = [f"{stage.name}, since {stage.since.astimezone():%Y-%m-%d %H:%M:%S}"]
    if stage.total:
        parts.append(f"{stage.done} of {stage.total} {stage.unit}")
    if stage.running:
        at = list(stage.running.values())
        if len(at) <= LISTED:
            trials = ", ".join(f"{name} at {iteration}" for name, iteration in stage.running.items())
        else:
            trials = f"{len(at)} trials at {min(at)} to {max(at)}"
        parts.append(f"running: {trials} of {stage.iterations} iterations")
    return "; ".join(parts)


def _speed_text(stage: StageAtWork, age_s: float) -> str:
    """Return rate and time left; the estimates are as old as the file."""
    what = "iterations" if stage.running else stage.unit
    rate = "not known yet" if stage.rate is None else f"{stage.rate:,.{1 if stage.rate >= 1 else 3}f} {what}/s"
    times = [
        (None if seconds is None else max(0.0, seconds - age_s), where)
        for seconds, where in ((stage.seconds_left, "this stage"), (stage.seconds_left_in_all, "the sweep"))
    ]
    left = ", ".join(f"{time_text(seconds)} of {where}" for seconds, where in times if seconds is not None)
    return f"{rate}; left: {left or 'not known yet'}"


def _trials_text(counts: Mapping[str, int], expected: int) -> str:
    parts = ", ".join(f"{count} {status}" for status, count in counts.items())
    return f"{sum(counts.values())} of {expected} have ended: {parts}"


def _best_text(result: Mapping[str, Any]) -> str:
    """Return the best trial against the reference: on the test split where the finals have both, else validation."""
    best, reference = result["best"], result["paper"]
    if best is None:
        return "no trial has reached a rung yet"
    finals = result["finals"]
    if WINNER in finals and (PAPER_SETTING in finals or result["status"] == "finished"):
        accuracies = {name: mean_std(finals[name]["accuracy"]) for name in (WINNER, PAPER_SETTING) if name in finals}
        against = f"; reference {accuracies[PAPER_SETTING]}" if PAPER_SETTING in accuracies else ""
        return f"{best['trial']}: test accuracy {accuracies[WINNER]}{against}"
    text = f"{best['trial']}: validation accuracy {best['validation_accuracy']:.3f}"
    if reference is None or reference["validation_accuracy"] is None:
        return f"{text}; the reference has reached no rung yet"
    if reference["trial"] == best["trial"]:
        return f"{text}; it is the reference"
    return f"{text}; reference ({reference['trial']}) {reference['validation_accuracy']:.3f}"


def _entry(trial: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if trial is None else {key: trial[key] for key in ("trial", "validation_accuracy")}


def _networks(result: Mapping[str, Any]) -> int:
    """Return how many networks of the finals, or of a comparison, are tested."""
    records = sum(record["n"] for record in result.get("records", ()))
    return int(records + sum(metrics["accuracy"]["n"] for metrics in result.get("finals", {}).values()))
