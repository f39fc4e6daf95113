"""What options and marks together say about a test."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_fkit.config import marks
from pytest_fkit.config.settings import settings_of
from pytest_fkit.protocol.process_keys import OWN


def _limits(pytester: pytest.Pytester, source: str, **changes: Any) -> list[marks.Limits]:
    items = pytester.getitems("import pytest\nfkit = pytest.mark.fkit\n" + source)
    settings = settings_of(items[0].config)._replace(**changes)
    return [marks.limits(item, settings) for item in items]


def test_without_marks_the_settings_count(pytester: pytest.Pytester) -> None:
    [found] = _limits(pytester, "def test_it(): pass", timeout=5.0, memory_limit=7)
    assert found == marks.Limits(OWN, 5.0, 7)


def test_closer_marks_win_argument_by_argument(pytester: pytest.Pytester) -> None:
    [found] = _limits(
        pytester,
        """
pytestmark = fkit(timeout=1, memory_limit="1K")
@fkit(timeout=2)
class TestIt:
    @fkit(isolation="module")
    def test_it(self): pass
""",
    )
    assert (found.timeout, found.memory_limit) == (2.0, 1024)
    assert found.key.scope == "module"


@pytest.mark.parametrize(
    ("isolation", "scopes"),
    [
        ("function", ["function", "function", "fkit_skip"]),
        ("class", ["function", "class", "fkit_skip"]),
        ("module", ["module", "module", "fkit_skip"]),
        ("session", ["session", "session", "session"]),
    ],
)
def test_keys_of_processes(pytester: pytest.Pytester, isolation: str, scopes: list[str]) -> None:
    found = _limits(
        pytester,
        """
def test_1(): pass
class TestIt:
    def test_2(self): pass
@pytest.mark.fkit_skip
def test_3(): pass
""",
        isolation=isolation,
    )
    assert [limits.key.scope for limits in found] == scopes
    endings = {"module": ".py", "class": "::TestIt"}
    for limits in found:
        assert limits.key.name.endswith(endings.get(limits.key.scope, ""))


def test_none_stands_for_not_given(pytester: pytest.Pytester) -> None:
    [found] = _limits(
        pytester, "@fkit(isolation=None, timeout=None, memory_limit=None)\ndef test_it(): pass"
    )
    assert found == marks.Limits(OWN, 600.0, 0)


def test_the_error_names_the_node_that_has_the_mark(pytester: pytest.Pytester) -> None:
    with pytest.raises(pytest.UsageError, match=r"timeout='x'\): expected .*mark of .*::TestIt\)"):
        _limits(pytester, "@fkit(timeout='x')\nclass TestIt:\n    def test_it(self): pass")


def test_pytest_timeouts_mark(pytester: pytest.Pytester) -> None:
    [found] = _limits(pytester, "@pytest.mark.timeout(3)\ndef test_it(): pass")
    extra = marks.HANG_GRACE if pytester.parseconfig().pluginmanager.hasplugin("timeout") else 0
    assert found.timeout == 3.0 + extra
