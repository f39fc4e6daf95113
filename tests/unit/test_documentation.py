"""What users can say or see is in the documentation."""

from __future__ import annotations

import inspect
import re

import pytest

from pytest_fkit import fixtures, hookspecs
from pytest_fkit.config.options import MARK_ARGUMENTS
from pytest_fkit.gpu.errors.failure import Failure
from pytest_fkit.journal import command
from pytest_fkit.journal.html.page import EXTRA
from snippets import PAGES, ROOT

README = ROOT / "README.md"


def _page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_the_readme_is_short() -> None:
    assert len(README.read_bytes()) <= 6000


def test_the_distribution_has_one_name() -> None:
    """Not that of another project, which has a package of the same name."""
    [name] = re.findall(r'^name = "(.+?)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert f"pip install '{name}[html]'" == EXTRA
    for page in ("start/quickstart.md", "start/migrating.md", "reference/stability.md"):
        assert f"`{name}`" in _page(page)
    assert f"`{name}`" in README.read_text(encoding="utf-8")
    release = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    assert release.count(f"dist/{name.replace('-', '_')}-$version") == 2


def test_each_hook_has_a_section_with_its_arguments() -> None:
    page = _page("extending/hooks.md")
    hooks = [name for name in vars(hookspecs) if name.startswith("pytest_fkit_")]
    for name in hooks:
        arguments = ", ".join(inspect.signature(getattr(hookspecs, name)).parameters)
        assert f"\n## `{name}`\n\n`{name}({arguments})` " in page
    assert re.findall(r"\n## `(\w+)`\n", page) == sorted(hooks, key=page.index)
    assert {f"`{name}`" for name in Failure._fields} <= {*re.findall(r"`\w+`", page)}


def test_each_fixture_mark_and_command_is_there() -> None:
    found = [name for name in vars(fixtures) if name.startswith("fkit_")]
    assert len(found) == 5
    assert all(f"| `{name}` |" in _page("extending/fixtures.md") for name in found)
    for mark in (
        "fkit",
        "fkit_skip",
        "fkit_serial",
        "fkit_single_gpu",
        "fkit_multi_gpu",
        "timeout",
    ):
        assert f"`@pytest.mark.{mark}" in _page("extending/marks.md")
    for argument in MARK_ARGUMENTS:
        assert f"{argument}=" in _page("extending/marks.md")
    assert all(f"`fkit {name}`" in _page("ci/journal.md") for name in command.COMMANDS)


def test_each_variable_is_there() -> None:
    source = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "src").rglob("*.py"))
    page = _page("reference/variables.md")
    for name in set(re.findall(r"\"(FKIT_[A-Z_]+)\"", source)):
        assert f"`{name}" in page, name


def test_each_event_of_the_journal_is_there() -> None:
    source = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "src").rglob("*.py"))
    events = set(re.findall(r"\bevent\(\s*\"(\w+)\"", source))
    assert len(events) > 8
    page = _page("reference/journal.md")
    assert all(f"`{name}`" in page for name in events), events


def test_links_between_files_lead_somewhere() -> None:
    """As GitHub follows them; the strict build checks those between pages with their anchors."""
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[\w-]+)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.relative_to(ROOT)}: {link}"


def test_the_help_reads_well(pytester: pytest.Pytester) -> None:
    """Each of these was hard to read once."""
    text = " ".join(pytester.runpytest_subprocess("--help").stdout.str().split())
    for said in (
        "number of workers, an alias of -n (default: 1)",
        "time for tests and class- to session-scoped fixtures to end after Ctrl-C or SIGTERM",
        "rerun tests that skip themselves because they see too few GPUs, with enough of them",
        "probe each worker's GPUs before its first test, and after errors that may be theirs",
        "retries, on other GPUs, after a GPU error (default: 1; 0: none)",
        "retries after a network error: HTTP 429 or 5xx, a name that can't be resolved,",
        "tests whose node id contains one of these never run at the same time; * is any text;",
        "write an HTML report to this file when the run ends, and its journal beside it, or",
    ):
        assert said in text


_NOT_OURS = "address already in use"
_IN_PARTS = "needs 2 GPUs; this run has none"


def test_messages_that_need_help_are_those_of_the_code() -> None:
    source = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "src").rglob("*.py"))
    source = re.sub(r"\"\s*\n\s*f?\"", "", source)  # a text in several lines
    messages = re.findall(r"\n### `(.+)`", _page("gpus/troubleshooting.md"))
    assert len(messages) > 10
    for message in {*messages} - {_NOT_OURS, _IN_PARTS}:
        for part in message.split("…"):
            assert part.strip(" :;") in source, message
