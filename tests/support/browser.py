"""Debian's Chromium without a window: what a page shows, asks for and complains about."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.paths import ROOT

CHROMIUM = Path("/usr/bin/chromium")
SCREENSHOTS = ROOT / ".artifacts" / "screenshots"
"""Kept after a run, for people to look at."""

PATIENCE_MS = 60_000  # a busy machine is slow, and that is no fault
expect.set_options(timeout=PATIENCE_MS)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser; it finds no host but this one."""
    if not CHROMIUM.exists():
        pytest.skip("Debian's chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        )
        yield browser
        browser.close()


@dataclass
class Tab:
    """A page that nobody has visited before, and what it did."""

    page: Page
    addresses: list[str] = field(default_factory=list)
    """What it asked for, its workers included."""
    errors: list[str] = field(default_factory=list)
    """What it wrote into the console as errors."""
    exceptions: list[str] = field(default_factory=list)
    """What its scripts did not catch."""

    @property
    def elsewhere(self) -> list[str]:
        """Return the addresses that are not on this machine."""
        parts = [(address, urlsplit(address)) for address in self.addresses]
        own = ("data", "blob", "file")
        return [address for address, part in parts if part.scheme not in own and part.hostname != "127.0.0.1"]

    def keep(self, name: str, *, whole: bool = False) -> None:
        """Write a screenshot, of what is in the window or of the whole page."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=whole)


@contextmanager
def opened(browser: Browser, address: str, *, width: int = 1600, height: int = 1100) -> Iterator[Tab]:
    """Open an address in a window of that many pixels."""
    context = browser.new_context(viewport={"width": width, "height": height})
    context.set_default_timeout(PATIENCE_MS)
    try:
        tab = Tab(context.new_page())
        context.on("request", lambda request: tab.addresses.append(request.url))
        tab.page.on("console", lambda said: tab.errors.append(said.text) if said.type == "error" else None)
        tab.page.on("pageerror", lambda error: tab.exceptions.append(str(error)))
        tab.page.goto(address)
        yield tab
    finally:
        context.close()
