"""What hears of the tests of a run, whoever runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

import pytest

from ...named_tuple import NamedTuple
from ...own import own_builtins

if TYPE_CHECKING:
    from ...config.deadline import Deadline
    from ...journal.recorder import Recorder
    from .accounting import Accounting
    from .resume import Resuming
    from .running import RunningTests

own_builtins(globals())


class RunServices(NamedTuple):
    """For those who run tests: workers, or the process itself that the user starts.

    :param resuming: reports the verdicts of the resumed run, if there is one.
    :param show: writes a line to the terminal.
    :param screen: changes reports on failures that are quarantined, where there is a quarantine.
    """

    recorder: Recorder | None
    resuming: Resuming | None
    accounting: Accounting
    show: Callable[[str], None]
    running: RunningTests
    deadline: Deadline | None
    screen: Callable[[pytest.TestReport], None] | None
