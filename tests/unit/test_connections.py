"""Which tests plugins and the hook pytest_fkit_isolation connect, and who runs them."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_fkit.controller.schedule import units
from pytest_fkit.controller.schedule.units import connected_units, merged_groups
from pytest_fkit.protocol.process_keys import CONNECTED, OWN, SESSION, ProcessKey
from pytest_fkit.worker.tests.connected import connections

SOURCE = """
import warnings
import pytest
warnings.simplefilter("ignore", pytest.PytestUnknownMarkWarning)

def test_0(): pass
class TestA:
    def test_1(self): pass
    @pytest.mark.incremental
    def test_2(self): pass
    @pytest.mark.incremental
    def test_3(self): pass
def test_4(): pass
@pytest.mark.incremental
class TestB:
    def test_5(self): pass
    class TestInner:
        def test_6(self): pass
        def test_7(self): pass
@pytest.mark.incremental
class TestC:
    def test_8(self): pass
@pytest.mark.fkit(isolation="function")
@pytest.mark.incremental
class TestD:
    def test_9(self): pass
    def test_10(self): pass
"""


class Answers:
    """A plugin that has an answer for some."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self._answers = answers

    def pytest_fkit_isolation(self, item: pytest.Item) -> Any:
        answer = self._answers.get(item.name)
        if isinstance(answer, Exception):
            raise answer
        return answer


def connected(
    pytester: pytest.Pytester, answers: dict[str, Any], keys: dict[str, ProcessKey]
) -> tuple[list[tuple[ProcessKey, str, tuple[int, ...]]], dict[int, str]]:
    items = pytester.getitems(SOURCE)
    session = items[0].session
    session.items = items
    session.config.pluginmanager.register(Answers(answers))
    found = connections(session, lambda item: keys.get(item.name, OWN))
    assert all(position in each.positions for position, each in found.of.items())
    return sorted(set(found.of.values()), key=lambda each: each[2]), dict(found.errors)


INCREMENTAL = "the mark incremental"


def test_marks_connect_the_tests_of_a_class(pytester: pytest.Pytester) -> None:
    found, _ = connected(pytester, {}, {})
    assert [each[1:] for each in found] == [(INCREMENTAL, (2, 3)), (INCREMENTAL, (6, 7))]
    assert len({key for key, *_ in found}) == 2


def test_the_hook_connects_by_scope_and_goes_before_marks(pytester: pytest.Pytester) -> None:
    answers = {
        "test_0": "module", "test_4": "module", "test_1": "class", "test_2": "function",
        "test_6": "class", "test_7": "class", "test_9": "module",
    }  # fmt: skip
    found, errors = connected(pytester, answers, {})
    assert [each[1:] for each in found] == [
        ("pytest_fkit_isolation, 'module'", (0, 4)),
        ("pytest_fkit_isolation, 'class'", (6, 7)),
    ]
    assert not errors


def test_processes_that_are_shared_anyway_are_connected_as_a_whole(
    pytester: pytest.Pytester,
) -> None:
    module = ProcessKey(scope="module", name="x")
    found, _ = connected(pytester, {}, {f"test_{number}": module for number in range(8)})
    assert found == [(module, "", tuple(range(8)))]


def test_what_is_shared_by_all_is_wide_enough(pytester: pytest.Pytester) -> None:
    found, _ = connected(pytester, {}, {"test_3": SESSION, "test_8": SESSION})
    assert found[0] == (SESSION, INCREMENTAL, (2, 3, 8))


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("package", "pytest_fkit_isolation answered 'package': expected one of function, class"),
        (ValueError("why"), "pytest_fkit_isolation raised ValueError: why (for "),
    ],
)
def test_what_makes_no_sense_is_an_error_of_its_test(
    pytester: pytest.Pytester, answer: Any, text: str
) -> None:
    found, errors = connected(pytester, {"test_0": answer}, {})
    assert len(found) == 2
    assert list(errors) == [0]
    assert errors[0].startswith(text)
    assert "test_0" in errors[0]


def test_a_connected_process_ends_with_its_last_test() -> None:
    for method in ("fork", "spawn"):
        key = ProcessKey(method, CONNECTED, "a.py::b", 4)
        assert not key.ends_before(OWN, 1)
        assert key.ends_before(OWN, 4)
        assert key.ends_before(key, 4)


@pytest.mark.parametrize(
    ("key", "ends"),
    [
        (OWN, False),
        (SESSION, False),
        (ProcessKey(scope="fkit_skip"), False),
        (ProcessKey(scope="class", name="a.py::B"), True),
        (ProcessKey(scope="module", name="a.py"), True),
        (ProcessKey("spawn", "module", "a.py"), True),
        (ProcessKey("spawn", "fkit_skip"), True),
        (ProcessKey("spawn", "session"), False),
    ],
)
def test_other_processes_end_when_a_test_of_another_one_follows(
    key: ProcessKey, ends: bool
) -> None:
    assert not key.ends_before(key, 3)
    assert not key.ends_before(key._replace(environ=(("A", "1"),)), 3)
    assert key.ends_before(ProcessKey(scope="module", name="b.py"), 3) == ends


def test_what_is_connected_is_one_unit() -> None:
    tests = [units.Test(number) for number in range(6)]
    made = connected_units(tests, {1: 1, 4: 1, 2: 2, 3: 2})
    assert [(list(unit.tests), unit.strict, unit.rank) for unit in made] == [
        ([1, 4], True, (0.0, 1)),
        ([2, 3], True, (0.0, 2)),
    ]


def test_groups_with_connected_tests_are_one() -> None:
    tests = [units.Test(number, group) for number, group in enumerate("aabbccd")]
    merged = merged_groups(tests, {0: 0, 2: 0, 3: 3, 5: 3})
    groups = [test.group for test in merged]
    assert len(set(groups[:6])) == 1
    assert groups[6] == "d"
