"""The record of a device's measurement: one JSON file and one page of tables, written again after every job."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.device.jobs import CORRECTNESS
from benchmarks.device.results import Check, Fact, Measurement, Result
from benchmarks.device.sizes import Sizes
from trainables.storage.atomic import write_json, write_text

__all__ = ["VERSION", "Outcome", "Record"]

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended, and its results until then."""

    part: str
    job: str
    how: str
    """done, skipped (no time), refused (the product does not offer it) or failed."""
    reason: str
    """Why it is not done; empty if it is."""
    seconds: float
    """Wall time of the job."""
    results: tuple[Result, ...]


@dataclass(kw_only=True)
class Record:
    """All outcomes so far."""

    device: str
    minutes: float
    """The time that was given."""
    sizes: Sizes
    outcomes: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0
    """Wall time so far."""
    finished: bool = False

    @property
    def checks(self) -> list[Check]:
        """All checks."""
        return [result for outcome in self.outcomes for result in outcome.results if isinstance(result, Check)]

    @property
    def correct(self) -> bool:
        """Whether the checks have run and passed; those of what the product refuses do not count."""
        ran = all(
            outcome.how in ("done", "refused") for outcome in self.outcomes if outcome.part == CORRECTNESS
        )  # fmt: skip
        return ran and bool(self.checks) and all(check.passed for check in self.checks)

    def write(self, folder: Path) -> None:
        """Replace `gpu.json` and `gpu.md` in a folder."""
        write_json(folder / "gpu.json", self._content())
        write_text(folder / "gpu.md", self.page())

    def _content(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "benchmark": "gpu",
            "finished": self.finished,
            "device": self.device,
            "minutes": self.minutes,
            "seconds": self.seconds,
            "correct": self.correct,
            "sizes": asdict(self.sizes),
            "jobs": [
                {**asdict(outcome), "results": [_plain(result) for result in outcome.results]}
                for outcome in self.outcomes
            ],
        }

    def page(self) -> str:
        """Return the page of tables, Markdown."""
        return "\n".join([*self._head(), *self._correctness(), *self._measurements(), *self._ends()]) + "\n"

    def _head(self) -> Iterator[str]:
        yield f"# What this {'GPU' if self.device == 'cuda' else 'CPU'} does"
        yield ""
        state = "" if self.finished else ", not finished"
        yield f"`python -m benchmarks.gpu`, device {self.device}, {self.seconds:,.0f} s of {self.minutes:g} min{state}."
        yield ""
        for outcome in self.outcomes:
            facts = [result for result in outcome.results if isinstance(result, Fact)]
            if facts:
                yield f"- {', '.join(f'{fact.name}: {fact.value}' for fact in facts)}"

    def _correctness(self) -> Iterator[str]:
        checks = self.checks
        wrong = any(not check.passed for check in checks)
        yield from ("", f"## Correctness: {'WRONG' if wrong else 'passed' if self.correct else 'not all checked'}", "")
        yield "| precision | checks | passed | largest relative error | limit | of |"
        yield "|---|---|---|---|---|---|"
        for precision in dict.fromkeys(check.precision for check in checks):
            for limit in dict.fromkeys(check.limit for check in checks if check.precision == precision):
                same = [check for check in checks if (check.precision, check.limit) == (precision, limit)]
                worst = max(same, key=lambda check: math.inf if math.isnan(check.error) else check.error)
                passed = sum(check.passed for check in same)
                yield f"| {precision} | {len(same)} | {passed} | {worst.error:.1e} | {limit:.0e} | {worst.name} |"
        for check in checks:
            if not check.passed:
                yield from ("", f"Not passed: {check.name}, {check.precision}: {check.error:.1e} > {check.limit:.0e}")

    def _measurements(self) -> Iterator[str]:
        yield from ("", "## Figures", "", "| what | median | from – to | n | unit | peak MiB | |")
        yield "|---|---|---|---|---|---|---|"
        for outcome in self.outcomes:
            for result in outcome.results:
                if isinstance(result, Measurement):
                    yield _row(result)

    def _ends(self) -> Iterator[str]:
        ends = [outcome for outcome in self.outcomes if outcome.how != "done"]
        if ends:
            yield from ("", "## Without a figure", "", "| part | job | | why |", "|---|---|---|---|")
        for outcome in ends:
            yield f"| {outcome.part} | {outcome.job} | {outcome.how} | {outcome.reason.replace('|', '/')} |"


def _row(taken: Measurement) -> str:
    spread = f"{_number(min(taken.samples))} – {_number(max(taken.samples))}" if len(taken.samples) > 1 else ""
    peak = f"{taken.peak_bytes / 2**20:,.0f}" if taken.peak_bytes is not None else ""
    cells = (taken.name, _number(taken.median), spread, str(len(taken.samples)), taken.unit, peak, taken.note)
    return f"| {' | '.join(cells)} |"


def _number(value: float) -> str:
    """Return a number with four significant digits, without an exponent where it is near 1."""
    return f"{value:.4g}"


def _plain(result: Result) -> dict[str, Any]:
    """Return a result as JSON holds it, with its kind; a number that is not finite becomes null."""
    kind = type(result).__name__.lower()
    values = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(result).items()
    }
    if isinstance(result, Measurement):
        values["median"] = result.median
    elif isinstance(result, Check):
        values["passed"] = result.passed
    return {"kind": kind, **values}
