"""A report that is open in Chromium, and what it did there."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator

PLACES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

DESKTOP = {"viewport": {"width": 1360, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True,
         "has_touch": True}  # fmt: skip


@dataclass
class Opened:
    """A report in a page of the browser, and what the page did that it should not.

    :param faults: errors, messages on the console, violations of the policy.
    :param requests: addresses that were asked for.
    """

    page: Any
    faults: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def milliseconds(self) -> float:
        """From the start of loading until all of it could be used."""
        return float(self.page.evaluate("document.documentElement.dataset.ready"))

    def texts(self, selector: str) -> list[str]:
        """The texts of what is seen."""
        found = self.page.locator(selector).all_inner_texts()
        return [" ".join(text.split()) for text in found if text.strip()]

    def fragment(self) -> str:
        """What is shown, as the address says it."""
        return str(self.page.evaluate("location.hash"))


Open = Callable[..., Opened]


def program() -> str | None:
    """Where Chromium is, if it is installed."""
    return next(filter(None, map(shutil.which, PLACES)), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser, without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        found = running.chromium.launch(
            executable_path=program(), args=["--no-sandbox", "--disable-gpu"]
        )
        yield found
        found.close()
