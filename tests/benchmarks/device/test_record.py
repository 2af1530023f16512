"""The record: what counts as correct, and what its two files say."""

import json
import math
from pathlib import Path

from benchmarks.device.record import Outcome, Record
from benchmarks.device.results import Check, Fact, Measurement, Result
from benchmarks.device.sizes import cpu_sizes

GOOD = Check(name="exact, flip, hard labels", precision="fp32", error=1e-6, limit=1e-2)
BAD = Check(name="exact, crop, hard labels", precision="fp32", error=math.nan, limit=1e-2)
TIME = Measurement(
    name="CIFAR-100, eager, fp32", unit="s an iteration", samples=(3.0, 1.0, 2.0), peak_bytes=2**20, note="a note"
)


def outcome(*results: Result, part: str = "correctness", how: str = "done", reason: str = "") -> Outcome:
    return Outcome(part=part, job="a job", how=how, reason=reason, seconds=1.0, results=results)


def record(*outcomes: Outcome) -> Record:
    return Record(device="cpu", minutes=2, sizes=cpu_sizes(), outcomes=list(outcomes))


def test_correct_is_what_was_checked_and_passed() -> None:
    refused = outcome(how="refused", reason="no bf16")
    assert record(outcome(GOOD), refused, outcome(part="gradient", how="failed")).correct
    assert not record().correct
    assert not record(refused).correct
    assert not record(outcome(GOOD, BAD)).correct
    assert not record(outcome(GOOD), outcome(how="skipped")).correct
    assert not record(outcome(GOOD), outcome(how="failed")).correct


def test_the_page_has_a_row_for_each_figure_and_each_job_without_one() -> None:
    late = outcome(part="gradient", how="failed", reason="RuntimeError: a | b")
    page = record(
        outcome(Fact(name="gpu", value="none")), outcome(GOOD, BAD), outcome(TIME, part="gradient"), late
    ).page()
    rows = page.splitlines()
    assert "- gpu: none" in rows
    assert "## Correctness: WRONG" in rows
    assert "| fp32 | 2 | 1 | nan | 1e-02 | exact, crop, hard labels |" in rows
    assert any(row.startswith("Not passed: exact, crop, hard labels, fp32") for row in rows)
    assert "| CIFAR-100, eager, fp32 | 2 | 1 – 3 | 3 | s an iteration | 1 | a note |" in rows
    assert "| gradient | a job | failed | RuntimeError: a / b |" in rows


def test_checks_that_did_not_run_are_not_called_wrong() -> None:
    page = record(outcome(GOOD), outcome(how="skipped", reason="no time")).page()
    assert "## Correctness: not all checked" in page.splitlines()
    assert "## Correctness: passed" in record(outcome(GOOD)).page().splitlines()


def test_the_json_has_samples_medians_and_sizes(tmp_path: Path) -> None:
    record(outcome(GOOD, BAD), outcome(TIME, part="gradient")).write(tmp_path)
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert (content["correct"], content["finished"], content["device"]) == (False, False, "cpu")
    checks, (taken,) = (job["results"] for job in content["jobs"])
    assert [(check["kind"], check["passed"], check["error"]) for check in checks] == [
        ("check", True, 1e-6),
        ("check", False, None),
    ]
    assert (taken["kind"], taken["median"], taken["samples"]) == ("measurement", 2.0, [3.0, 1.0, 2.0])
    assert content["sizes"]["settings"]["CIFAR-100, cut"]["steps"] == 2
    assert (tmp_path / "gpu.md").read_text().startswith("# What this CPU does\n")
