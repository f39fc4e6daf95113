"""The bottom of the stack in every process of ours that runs tests, or forks others that do.

What a process does is a generator, its role. It yields a step where there is to be nothing of ours
on the stack: a test is run from here, as pytest's own loop runs it, so that it finds the stack that
it knows; and a forked process begins here with a role of its own. The one that its parent had is
kept and never goes on: no ``finally`` of it runs, and no second half of somebody's hook.
"""

from __future__ import annotations

import sys
from typing import Any, Generator, NamedTuple, TypeVar, Union, cast

import pytest

from ...own import os, own_builtins
from .copies import fork

own_builtins(globals())

FAILED = 70
"""Exit status of a process whose role failed: EX_SOFTWARE of sysexits.h."""


class Passage:
    """Where a process that was forked while an item runs says what it does from then on."""

    def __init__(self) -> None:
        self.role: Role | None = None
        """Begun, up to its step that runs the item; what is under way answers that."""


class RunItem(NamedTuple):
    """Have the whole pytest_runtest_protocol chain run the item.

    The answer is what was raised, or None. In a process that was forked meanwhile the role that it
    put into the passage gets it.
    """

    item: pytest.Item
    nextitem: pytest.Item | None
    passage: Passage | None = None


class Fork(NamedTuple):
    """Fork a process; the answer is its pid.

    :param role: what the new process does; what it returns is its exit status.
    :raises OSError: where it is yielded, if the kernel refuses.
    """

    role: Role


Step = Union[RunItem, Fork]
Role = Generator[Step, Any, int]
T = TypeVar("T")


def run_steps(role: Generator[Step, Any, T]) -> T:
    """Do what this process is to do, and what those that it forks are to do.

    :return: what the role returns; in forked processes this function does not return.
    :raises BaseException: what the role raises.
    """
    __tracebackhide__ = True
    left: list[Generator[Step, Any, Any]] = []  # the roles of the processes above
    now: Generator[Step, Any, Any] = role
    answer: object = None
    raised: BaseException | None = None
    while True:
        try:
            thrown, raised = raised, None
            step = now.send(answer) if thrown is None else now.throw(thrown)
            answer = None
            if isinstance(step, RunItem):
                try:
                    step.item.config.hook.pytest_runtest_protocol(
                        item=step.item, nextitem=step.nextitem
                    )
                except BaseException as error:  # noqa: BLE001 (the answer)
                    answer = error
                now = _role_after(step, now, left)
            else:
                answer = fork()
                if answer == 0:
                    left.append(now)
                    now, answer = step.role, None
        except StopIteration as end:
            if not left:
                return end.value  # type: ignore[no-any-return]
            os._exit(end.value)
        except BaseException as error:
            if (
                cast("Any", now).gi_frame is not None
            ):  # it is not the role's: a signal's, or of the fork
                raised = error
            elif left:
                sys.excepthook(*sys.exc_info())
                os._exit(FAILED)
            else:
                raise


def _role_after(
    step: RunItem, now: Generator[Step, Any, Any], left: list[Generator[Step, Any, Any]]
) -> Generator[Step, Any, Any]:
    """The role of this process after an item ran: another one if it was forked meanwhile."""
    if step.passage is None or step.passage.role is None:
        return now
    left.append(now)
    return step.passage.role
