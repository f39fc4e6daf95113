"""What children wrote to decides what later ones copy while they wait."""

from __future__ import annotations

import pytest

from pytest_fkit.sandbox.child.working_set import WorkingSet
from pytest_fkit.system import pages

pytestmark = pytest.mark.skipif(not pages.can_copy(), reason="no child is asked here")

_OWN = frozenset(range(8))
_PAGE = pages.ranges([1])[0].length


def _asked(working_set: WorkingSet, children: int) -> list[int]:
    """The numbers of those that are asked; they do not answer."""
    asked = []
    for number in range(children):
        if working_set.is_wanted:
            asked.append(number)
        working_set.ended()
    return asked


def test_what_two_children_wrote_to_is_copied_ahead() -> None:
    working_set = WorkingSet(_OWN.intersection)
    assert _asked(working_set, 1) == []
    working_set.tell((1, 2, 3, 7, 9))
    working_set.ended()
    assert not working_set.common.ranges
    working_set.tell((2, 3, 7, 9))
    working_set.ended()
    assert list(working_set.common.ranges) == [
        pages.Range(2 * _PAGE, 2 * _PAGE),
        pages.Range(7 * _PAGE, _PAGE),
    ]


def test_no_child_is_forked_ahead_that_is_to_tell_or_while_another_does() -> None:
    working_set = WorkingSet(_OWN.intersection)
    assert not working_set.allows_ahead
    for written in ((), (1,), (1,)):
        assert not working_set.allows_ahead
        working_set.tell(written)
        working_set.ended()
    assert working_set.allows_ahead


def test_the_first_child_is_not_typical_and_those_that_do_not_answer_are_given_up() -> None:
    assert _asked(WorkingSet(_OWN.intersection), 900) == [1, 2, 3, 4]


def test_it_is_learned_anew() -> None:
    working_set = WorkingSet(_OWN.intersection)
    for written in ((), (1,), (1,)):
        working_set.tell(written)
        working_set.ended()
    assert _asked(working_set, 1010) == [999, 1000, 1001, 1002]
    # Those did not answer.
    assert working_set.common.ranges == (pages.Range(_PAGE, _PAGE),)
