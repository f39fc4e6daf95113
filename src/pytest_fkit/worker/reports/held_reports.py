"""Reports of a worker, held while the test may be run again after an error that is not its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

import pytest

from ...gpu.slices.ownership import Owned
from ...own import own_builtins
from ...protocol.border import ItemAttempt
from ...protocol.event_file import GpuError, ReportData, facts_in
from .reports import Reports, WorkerReports, name_gpus

if TYPE_CHECKING:
    from ..reports.xids_of_tests import TestXids

own_builtins(globals())


class HeldReports(Reports):
    """Holds the reports on a test until it is known whether it met a GPU or network error.

    If it did, the controller gets the error first, and the reports in the same message. Unless the
    verdict is final, the controller decides what becomes of the attempt; plugins of this process,
    which count failures for ``-x`` and ``--maxfail``, never hear of it.

    :param owned: its GPUs, if it owns any.
    :param in_doubt: called when the GPUs are to be probed before the next test.
    :param hold: called with a test and its error that counts against the GPUs, as soon as its
        process has ended: no other test may begin before the controller has heard of that.
    :param xids: the Xids of this worker's GPUs, where they can be read.
    """

    def __init__(
        self,
        reports: WorkerReports,
        owned: Owned | None,
        name: str,
        in_doubt: Callable[[], None] = lambda: None,
        hold: Callable[[pytest.Item, GpuError], None] = lambda *_: None,
        xids: TestXids | None = None,
    ) -> None:
        self._xids = xids
        self._begun: pytest.Item | None = None
        self._unexplained = ""
        self._in_doubt = in_doubt
        self._reasons: set[str] = set()
        self._hold_tests = hold
        self._reports = reports
        self._owned = owned
        self._name = name
        self._held: list[Callable[[], None]] = []
        self._settled = False
        self._error: GpuError | None = None
        self._erred: pytest.Item | None = None

    def begins(self, item: pytest.Item, position: int) -> None:
        self._settled = False
        self._begun = item
        if self._xids is not None:
            self._xids.begins(item)
        self._reports.begins(item, position)

    def log_start(self, item: pytest.Item) -> None:
        if self._xids is not None:
            self._xids.starts(item)
        self._hold(lambda: self._reports.log_start(item))

    def log_report(self, item: pytest.Item, data: ReportData) -> None:
        if self._xids is not None:
            self._xids.sees(item, facts_in(data).gpus)
        self._hold(lambda: self._log_report(item, data))

    def _log_report(self, item: pytest.Item, data: ReportData) -> None:
        if self._xids is not None:
            self._xids.add_section(item, data)
        if self._owned is not None:
            name_gpus(self._owned, self._name, data)
        self._reports.log_report(item, data)

    def log_finish(self, item: pytest.Item) -> None:
        self._hold(lambda: self._reports.log_finish(item))
        self._settled = False  # pytest-rerunfailures may have a test that died run again

    def attempt(self, item: pytest.Item, attempt: ItemAttempt) -> None:
        self._judge(item)
        if self._xids is not None:
            attempt = self._xids.add_to(item, attempt)
        self._hold(lambda: self._reports.attempt(item, attempt))

    def gpu_error(self, item: pytest.Item, error: GpuError) -> None:
        """Remember the first error; one of wide fixtures at the end of the run comes too late."""
        if self._error is None and not self._settled:
            self._error, self._erred = error, item
            if error.probe and self._is_news(error):
                self._in_doubt()

    def _is_news(self, error: GpuError) -> bool:
        """Whether a probe may find something: of skips for the same reason, after the first one.

        A suite whose libraries were built without CUDA skips all tests for one reason.
        """
        skip = error.category == "missing" and not error.poisons
        known = skip and error.text in self._reasons
        if skip:
            self._reasons.add(error.text)
        return not known

    def unexplained(self, item: pytest.Item, how: str) -> None:
        """Remember the death, which an Xid may explain as a GPU error."""
        del item
        if not self._settled:
            self._unexplained = how

    def _judge(self, item: pytest.Item) -> None:
        """Let Xids decide, once, what the test met, where the message of its failure can't."""
        if self._xids is None or self._xids.are_known(item):
            return
        now = self._xids.judge(item, self._error, self._unexplained)
        self._unexplained = ""
        if now is not None and now != self._error:
            self._error, self._erred = now, item
            if now.probe:
                self._in_doubt()

    def settle(self, over: bool = False) -> None:
        """Release the reports, those still to come too, unless the test met a GPU error.

        :param over: no test runs: reports on one that was interrupted are released anyway.
        """
        if over:
            self._error = None
        elif self._begun is not None:
            self._judge(self._begun)
        if self._error is None:
            self._tell()
            self._settled = not over
        else:
            self._hold_next_tests()

    def _hold_next_tests(self) -> None:
        """Begin no other test after one whose error counts; once for each such test."""
        erred, self._erred = self._erred, None
        if erred is not None and self._error is not None and self._error.counts:
            self.flush()
            self._hold_tests(erred, self._error)

    def complete(self, item: pytest.Item, seconds: float) -> None:
        """Release everything, after the GPU error if there was one."""
        self._judge(item)
        self._hold_next_tests()
        self._hold(lambda: self._reports.complete(item, seconds))
        error, self._error, self._settled = self._error, None, False
        if error is not None:
            self._reports.gpu_error(item, error)
        self._reports.silent = error is not None and error.retry
        self._tell()
        self._reports.silent = False
        if self._xids is not None:
            self._xids.over(item)

    def flush(self) -> None:
        """Send what was released."""
        self._reports.flush()

    def _hold(self, told: Callable[[], None]) -> None:
        self._held.append(told)
        if self._settled:
            self._tell()

    def _tell(self) -> None:
        held, self._held = self._held, []
        for told in held:
            told()
