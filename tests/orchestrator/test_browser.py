"""What people look at, in a real browser: MLflow's pages about a sweep, its report, Optuna's dashboard."""

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Locator, expect

from search_spaces import load
from tests.support.browser import chromium, opened
from tests.support.processes import end, run, start, wait_for, wait_until
from tests.support.servers import free_port
from tests.support.sweeps import Sweep, begin

pytestmark = pytest.mark.slow

SEARCHED = load("digits").varied
SETTINGS = (*SEARCHED, "T", "T_plus")
MEMORY = "peak_memory_mib" if torch.cuda.is_available() else "resident_memory_mib"
METRICS = sorted(("validation_accuracy", "matching_loss", "alpha", "skip_rate", "image_displacement", MEMORY))
TRIALS = [f"trial-{number:03d}" for number in range(4)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def mlflow(first: Sweep) -> Iterator[dict[str, str]]:
    """The pages of a finished sweep."""
    with pages(first.workdir, "first") as addresses:
        yield addresses


@contextmanager
def pages(workdir: Path, sweep: str) -> Iterator[dict[str, str]]:
    """What `python -m orchestrator.ui` says while it serves: addresses by what they show."""
    port = free_port()
    ui = start(sys.executable, "-u", "-m", "orchestrator.ui", "--workdir", workdir, "--sweep", sweep, "--port", port)
    try:
        assert ui.stdout is not None
        said = ""
        for line in ui.stdout:
            said += line
            if "Ctrl-C stops it" in line:
                break
        wait_for(f"http://127.0.0.1:{port}/health")
        addresses = dict(re.findall(r"^(.+): (http://\S+)$", said, re.MULTILINE))
        yield {**addresses, "server": f"http://127.0.0.1:{port}"}
    finally:
        end(ui)


class TestMlflow:
    def test_the_experiment_lists_the_sweep_and_its_trials(
        self, browser: Browser, mlflow: dict[str, str], first: Sweep
    ) -> None:
        experiment = first.result["mlflow"]["experiment_id"]
        with opened(browser, f"{mlflow['server']}/#/experiments/{experiment}/runs") as tab:
            rows = tab.page.locator(".ag-pinned-left-cols-container .ag-row")
            sweep = rows.filter(has=tab.page.get_by_role("link", name="first", exact=True))
            sweep.get_by_role("button").first.click()
            for name in TRIALS:
                expect(tab.page.get_by_role("link", name=name, exact=True)).to_be_visible()
            expect(sweep).to_be_visible()
            tab.keep("mlflow-experiment")
        assert tab.elsewhere == [] and tab.exceptions == []

    def test_the_table_has_our_columns_and_the_best_trial_first(
        self, browser: Browser, mlflow: dict[str, str], first: Sweep
    ) -> None:
        with opened(browser, mlflow["Table of the trials"], width=2200) as tab:
            tab.page.get_by_role("button", name="Close", exact=True).click()  # MLflow's assistant, open at first
            for kind, names in (("metrics", METRICS), ("params", SETTINGS), ("tags", ["mdatm.outcome"])):
                for name in names:
                    expect(tab.page.locator(f'.ag-header-cell[col-id="{kind}.`{name}`"]')).to_be_visible()
            rows = tab.page.locator(".ag-pinned-left-cols-container .ag-row", has_text="trial-")
            expect(rows).to_have_count(len(TRIALS))
            cells = tab.page.locator(".ag-center-cols-container [col-id='metrics.`validation_accuracy`']")
            accuracies = [float(text) for text in cells.all_inner_texts()]
            assert accuracies == sorted(accuracies, reverse=True) and len(set(accuracies)) > 1
            tab.keep("mlflow-table")
        assert tab.elsewhere == [] and tab.exceptions == []

    def test_the_charts_are_drawn(self, browser: Browser, mlflow: dict[str, str], first: Sweep) -> None:
        rungs = sum(row["iterations_done"] // 5 for row in pq.read_table(first.folder / "trials.parquet").to_pylist())
        with opened(browser, mlflow["Charts of the trials"], height=2300) as tab:
            cards = tab.page.get_by_test_id("experiment-view-compare-runs-card")
            titles = {"validation_accuracy": rungs, "matching_loss": rungs, "alpha": rungs}
            titles["matching_loss vs. validation_accuracy"] = len(TRIALS)
            for title, points in titles.items():
                card = cards.filter(has=tab.page.get_by_role("heading", name=title, exact=True))
                expect(card.locator(".scatterlayer .point").nth(points - 1)).to_be_visible()
            parallel = cards.filter(has=tab.page.get_by_role("heading", name="Parallel Coordinates"))
            expect(parallel.locator(".dimension")).to_have_count(len(SEARCHED) + 1)
            for name in SEARCHED:
                expect(parallel.get_by_text(name, exact=True)).to_be_visible()
            assert_lines_are_drawn(parallel.locator("canvas.foreground"))
            images = cards.filter(has=tab.page.get_by_role("heading", name="synthetic")).locator("img")
            expect(images).to_have_count(len(TRIALS))
            widths = "all => Promise.all(all.map(one => one.decode())).then(() => all.map(one => one.naturalWidth))"
            assert min(images.evaluate_all(widths)) > 100
            tab.keep("mlflow-charts")
        assert tab.elsewhere == [] and tab.exceptions == []

    def test_the_best_trials_are_compared(self, browser: Browser, mlflow: dict[str, str]) -> None:
        with opened(browser, mlflow["Compare the best trials"], height=2400) as tab:
            expect(tab.page.get_by_text("Comparing 4 Runs from 1 Experiment")).to_be_visible()
            for name in (*TRIALS, *SETTINGS):
                expect(tab.page.get_by_role("table").get_by_text(name, exact=True).first).to_be_attached()
            assert_lines_are_drawn(tab.page.locator(".js-plotly-plot canvas.gl-canvas-context"))
            tab.keep("mlflow-compare")
            for name in METRICS:  # the page makes the lines of their table as they come into sight
                while not (metric := tab.page.get_by_role("link", name=name, exact=True)).count():
                    tab.page.get_by_role("link", name=re.compile("^[a-z_]+$")).last.hover()
                expect(metric).to_be_visible()
        assert tab.elsewhere == [] and tab.exceptions == []


@pytest.mark.rare
class TestRunning:
    def test_trials_come_in_while_people_look(self, browser: Browser, first: Sweep) -> None:
        name = "watched"
        sweep = begin(first.workdir, name, "--trials", 200)

        def state() -> str:
            done = run("orchestrator.status", name, "--workdir", first.workdir, "--json")
            assert done.returncode == 0, done.stderr
            return str(json.loads(done.stdout)[0]["state"])

        def trials() -> int:
            file = first.workdir / "sweeps" / name / "result.json"
            return sum(json.loads(file.read_text())["trials"].values()) if file.exists() else 0

        try:
            wait_until(sweep, lambda: trials() >= 2)
            with (
                pages(first.workdir, name) as addresses,
                opened(browser, addresses["Table of the trials"], width=2200) as tab,
            ):
                rows = tab.page.locator(".ag-pinned-left-cols-container .ag-row", has_text="trial-")
                expect(rows.nth(1)).to_be_visible()
                tab.keep("mlflow-running")
                seen = rows.count()
                while rows.count() <= seen:  # the test's own timeout bounds it
                    assert sweep.poll() is None
                    tab.page.reload()
                    expect(rows.nth(seen - 1)).to_be_visible()
                assert tab.elsewhere == [] and tab.exceptions == []
            assert state() == "running"
            done = run("orchestrator.report", "--workdir", first.workdir, "--sweep", name)
            assert done.returncode == 0, done.stderr
            with opened(browser, Path(done.stdout.strip()).as_uri(), height=900) as tab:
                expect(tab.page.get_by_text("This sweep is running.")).to_be_visible()
                expect(tab.page.get_by_role("cell", name="trial-001", exact=True)).to_be_visible()
                tab.keep("report-running", whole=True)
            assert sweep.poll() is None
        finally:
            os.kill(sweep.pid, signal.SIGKILL)
            end(sweep)
        assert state() == "killed" and trials() >= 2


def assert_lines_are_drawn(canvas: Locator) -> None:
    """Wait until coloured lines cross the left half of a canvas, where no colour bar is; axes and texts are grey."""
    coloured = 0
    while coloured < 100:
        canvas.page.wait_for_timeout(200)
        with Image.open(BytesIO(canvas.screenshot())) as picture:
            saturation = np.asarray(picture.convert("HSV"))[:, : picture.width // 2, 1]
        coloured = int(np.count_nonzero(saturation > 100))


@pytest.mark.parametrize("width", [1280, 400])
def test_the_report_is_readable_and_asks_for_nothing(browser: Browser, first: Sweep, width: int) -> None:
    with opened(browser, (first.folder / "report.html").as_uri(), width=width, height=900) as tab:
        tab.keep(f"report-{width}", whole=True)
        pictures = tab.page.locator("img").evaluate_all(
            "all => all.map(one => [one.complete, one.naturalWidth, one.getBoundingClientRect().width])"
        )
        assert len(pictures) == (first.folder / "report.md").read_text().count("![") > 2
        assert all(complete and natural > 100 and shown > 300 for complete, natural, shown in pictures)
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.page.evaluate(SMALLEST_TEXT) >= 12
    assert tab.addresses[0].startswith("file://")
    assert all(address.startswith("data:") for address in tab.addresses[1:])
    assert tab.errors == [] and tab.exceptions == []


SMALLEST_TEXT = """() => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), sizes = [];
    while (texts.nextNode())
        if (texts.currentNode.data.trim())
            sizes.push(parseFloat(getComputedStyle(texts.currentNode.parentElement).fontSize));
    return Math.min(...sizes);
}"""
"""Pixels of the smallest letters on a page."""


def test_optuna_dashboard_shows_the_study(browser: Browser, first: Sweep) -> None:
    port = free_port()
    storage = f"sqlite:///{first.workdir / 'optuna.db'}"
    dashboard = start(Path(sys.executable).parent / "optuna-dashboard", storage, "--host", "127.0.0.1", "--port", port)
    try:
        wait_for(f"http://127.0.0.1:{port}/dashboard")
        with opened(browser, f"http://127.0.0.1:{port}/dashboard", height=2000) as tab:
            tab.page.get_by_role("link", name=re.compile(r"\bfirst\b")).click()
            expect(tab.page.get_by_role("heading", name="Best Trial")).to_be_visible()
            for name in SEARCHED:
                expect(tab.page.get_by_role("paragraph").filter(has_text=f"{name}: ")).to_be_visible()
            expect(tab.page.locator(".scatterlayer .point").first).to_be_visible()
            tab.keep("optuna-dashboard")
        assert tab.elsewhere == [] and tab.exceptions == []
    finally:
        end(dashboard)
