"""How the pages are built: ``tox -e docs``. They read well on GitHub, too."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "pytest-fkit"
author = "The pytest-fkit developers"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "pytest-fkit"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
exclude_patterns = ["_build"]
nitpicky = True
myst_heading_anchors = 3
myst_enable_extensions = ["attrs_block"]

_NOT_RUN = re.compile(r"^<!-- not run: (.+) -->$", re.MULTILINE)


def _say_what_is_not_run(_app: Sphinx, _page: str, source: list[str]) -> None:
    """Show the reason why the tests don't run a block, as tests/snippets.py reads it."""
    source[0] = _NOT_RUN.sub(r"{.not-run}\nNot run by the tests: \1.\n", source[0])


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _say_what_is_not_run)
