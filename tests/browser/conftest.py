"""A browser for the tests of reports: ``tox -e browser``. Chromium has to be installed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from opened_reports import DESKTOP, PHONE, Open, Opened, chromium, program


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    pytest.importorskip("playwright")
    if program() is None:
        pytest.skip("there is no Chromium")
    with chromium() as found:
        yield found


@pytest.fixture
def open_report(browser: Any) -> Iterator[Open]:
    """Opens a report, and waits until it can be used; in the end nothing may have gone wrong."""
    contexts, opened = [], []

    def open_it(
        path: Path, fragment: str = "", *, phone: bool = False, dark: bool = False
    ) -> Opened:
        theme = "dark" if dark else "light"
        context = browser.new_context(**(PHONE if phone else DESKTOP), color_scheme=theme)
        contexts.append(context)
        found = Opened(context.new_page())
        opened.append((found, path.as_uri()))
        found.page.on("console", lambda message: found.faults.append(message.text))
        found.page.on("pageerror", lambda error: found.faults.append(str(error)))
        found.page.on("dialog", lambda dialog: found.faults.append(f"dialog {dialog.message}"))
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.goto(path.as_uri() + fragment)
        found.page.wait_for_selector(":root[data-ready], :root[data-failed]", timeout=120_000)
        assert found.page.evaluate("document.documentElement.dataset.failed ?? ''") == ""
        return found

    yield open_it
    for found, address in opened:
        assert found.faults == []
        assert {each.partition("#")[0] for each in found.requests} == {address}
        wide, seen = found.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= seen, "it has to be moved sideways"
    for context in contexts:
        context.close()


@pytest.fixture
def picture(request: pytest.FixtureRequest) -> Callable[[Opened, str], None]:
    """Keeps a picture for people to look at, if FKIT_PICTURES names a directory."""

    def take(opened: Opened, name: str) -> None:
        directory = os.environ.get("FKIT_PICTURES")
        if directory:
            Path(directory).mkdir(parents=True, exist_ok=True)
            opened.page.screenshot(path=f"{directory}/{request.node.name}-{name}.png")

    return take
