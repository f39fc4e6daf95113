"""The bottom frame of every process of ours that runs tests, or forks others that do.

What a process does is a generator, its role. It yields a step for whatever must not have our frames
below it on the stack: tests are run from here, as from pytest's own loop, and so find the stack
that they know; and a forked process starts here with a role of its own. Its parent's role is kept,
but never resumed: none of its ``finally`` blocks runs, and no second half of anybody's hook.
"""

from __future__ import annotations

from typing import Any, Generator, TypeVar, Union, cast

import pytest

from ...named_tuple import NamedTuple
from ...own import os, own_builtins
from ...protocol.descriptors import write_last_words
from .copies import fork
from .relay import FAILED

own_builtins(globals())


class Handover:
    """Passes the role of a process that was forked while an item ran to :func:`run_steps`."""

    def __init__(self) -> None:
        self.role: Role | None = None
        """Advanced up to its step that runs the item, which is answered by the run under way."""


class RunItem(NamedTuple):
    """Step: run the whole pytest_runtest_protocol chain for the item.

    The answer is what was raised, or None. In a process that was forked meanwhile the answer goes
    to the role that it put into the handover.
    """

    item: pytest.Item
    nextitem: pytest.Item | None
    handover: Handover | None = None


class Fork(NamedTuple):
    """Step: fork a process; the answer is its pid.

    :param role: of the new process, whose exit status is what the role returns.
    :raises OSError: where it is yielded, if the kernel refuses.
    """

    role: Role


Step = Union[RunItem, Fork]
T = TypeVar("T")
Steps = Generator[Step, Any, T]
"""Takes steps; a step is answered as it says."""

Role = Steps[int]


def run_steps(role: Steps[T]) -> T:
    """Run the role of this process, and in forked processes theirs.

    :return: what the role returns; in a forked process this function does not return.
    :raises BaseException: what the role raises.
    """
    __tracebackhide__ = True
    suspended: list[Steps[Any]] = []  # the roles of the processes above
    current: Steps[Any] = role
    answer: object = None
    raised: BaseException | None = None
    while True:
        try:
            thrown, raised = raised, None
            step = current.send(answer) if thrown is None else current.throw(thrown)
            answer = None
            if isinstance(step, RunItem):
                try:
                    step.item.config.hook.pytest_runtest_protocol(
                        item=step.item, nextitem=step.nextitem
                    )
                except BaseException as error:  # noqa: BLE001 (the answer)
                    answer = error
                current = _role_after(step, current, suspended)
            else:
                answer = fork()
                if answer == 0:
                    suspended.append(current)
                    current, answer = step.role, None
        except StopIteration as end:
            if not suspended:
                return end.value  # type: ignore[no-any-return]
            os._exit(end.value)
        except BaseException as error:
            if cast("Any", current).gi_frame is not None:
                # The role has not ended: a signal handler or the fork raised this.
                raised = error
            elif suspended:
                write_last_words(error)
                os._exit(FAILED)
            else:
                raise


def _role_after(step: RunItem, current: Steps[Any], suspended: list[Steps[Any]]) -> Steps[Any]:
    """The role of this process after an item ran: a new one if it was forked meanwhile."""
    if step.handover is None or step.handover.role is None:
        return current
    suspended.append(current)
    return step.handover.role
