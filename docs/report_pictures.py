"""Makes the pictures of the report in the documentation: ``tox -e pictures``; needs Chromium."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs/_static"
sys.path.append(str(ROOT / "tests"))

from made_journals import write  # noqa: E402
from opened_reports import DESKTOP, PHONE, chromium  # noqa: E402

TESTS = 4000


def main() -> None:
    """Write the pictures, of a run that nobody made."""
    with tempfile.TemporaryDirectory() as directory:
        journal = write(Path(directory, "run.jsonl"), TESTS)
        report = Path(directory, "report.html")
        fkit = Path(sys.executable).with_name("fkit")
        subprocess.run([fkit, "html", journal, "-o", report], check=True)
        with chromium() as browser:
            take(browser, report)


def take(browser: Any, report: Path) -> None:
    """Look at a report in light and dark, on a desk and on a phone."""
    page = opened(browser, report, DESKTOP, "light")
    page.screenshot(path=PICTURES / "report.png")
    page.locator(".row").nth(4).click()
    page.wait_for_selector("#panel section")
    page.screenshot(path=PICTURES / "report-test.png")
    page = opened(browser, report, DESKTOP, "dark")
    page.locator("#timeline").scroll_into_view_if_needed()
    page.locator("#timeline").screenshot(path=PICTURES / "report-timeline.png")
    page = opened(browser, report, PHONE, "dark")
    page.screenshot(path=PICTURES / "report-phone.png")


def opened(browser: Any, report: Path, device: dict[str, Any], theme: str) -> Any:
    """A page with the report."""
    page = browser.new_context(**device, color_scheme=theme).new_page()
    page.goto(report.as_uri())
    page.wait_for_selector(":root[data-ready]", timeout=120_000)
    return page


if __name__ == "__main__":
    main()
