"""Where the reports on a worker's tests go: to plugins in this process, to the controller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Protocol

import pytest

from .. import private_api
from ..carriable import carriable
from ..own import marshal, own_builtins
from ..settings import ALONE
from ..wire import MARSHAL_VERSION

if TYPE_CHECKING:
    from ..journal.recorder import Recorder

own_builtins(globals())


class Reports(Protocol):
    """What is said of tests, in the order in which plugins are to hear it."""

    def are_awaited(self, config: pytest.Config) -> bool:
        """Whether no test may begin before the reports on the one before it were told."""

    def begins(self, item: pytest.Item) -> None:
        """The test is about to begin; until it is complete, its process may end this one."""

    def log_start(self, item: pytest.Item) -> None:
        """The test begins."""

    def log_report(self, item: pytest.Item, data: dict[str, Any]) -> None:
        """A report, as pytest_report_to_serializable gives it."""

    def log_finish(self, item: pytest.Item) -> None:
        """The test is over."""

    def attempt(
        self, item: pytest.Item, facts: dict[str, Any], left: int, again: bool = False
    ) -> None:
        """What a journal says of the test, see Attempt.facts.

        :param left: how many reports on it are still to come.
        :param again: whether the test is run once more.
        """

    def gpu_error(self, item: pytest.Item, error: dict[str, Any]) -> None:
        """The test met a GPU error: a :class:`~pytest_fkit.gpu.errors.GpuError`, to_wire()."""

    def settle(self, over: bool = False) -> None:
        """All is known by which it is decided whether the test is to run again elsewhere.

        :param over: no test is left.
        """

    def complete(self, item: pytest.Item, seconds: float) -> None:
        """The test has its verdict; it took so long."""

    def flush(self) -> None:
        """Nothing may be held back any longer."""


def report_from(config: pytest.Config, data: dict[str, Any]) -> Any:
    """The report that pytest_report_to_serializable turned into `data`."""
    return config.hook.pytest_report_from_serializable(config=config, data=data)


class LocalReports:
    """At ``-n0``: all plugins are in this process, and no other worker could run a test again.

    :param recorder: hears everything before they do, if there is one.
    """

    def __init__(self, recorder: Recorder | None = None) -> None:
        self._recorder = recorder

    def are_awaited(self, config: pytest.Config) -> bool:
        """Who counts failures may stop; pytest's own plugins, but for two, only write them down."""
        return bool(
            config.getoption("maxfail")
            or config.pluginmanager.hasplugin("stepwiseplugin")
            or private_api.others_hear_reports(config)
        )

    def begins(self, item: pytest.Item) -> None:
        """Nobody asks."""

    def log_start(self, item: pytest.Item) -> None:
        """Tell them."""
        if self._recorder is not None:
            self._recorder.begin(ALONE, item.nodeid, item.location)
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)

    def log_report(self, item: pytest.Item, data: dict[str, Any]) -> None:
        """Tell them."""
        report = report_from(item.config, data)
        if self._recorder is not None:
            self._recorder.report(ALONE, report)
            self._recorder.commit()
        item.ihook.pytest_runtest_logreport(report=report)

    def log_finish(self, item: pytest.Item) -> None:
        """Tell them."""
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)

    def attempt(
        self, item: pytest.Item, facts: dict[str, Any], left: int, again: bool = False
    ) -> None:
        """For the journal only."""
        if self._recorder is not None:
            self._recorder.attempt(ALONE, item.nodeid, facts, left, again)
            self._recorder.commit()

    def gpu_error(self, item: pytest.Item, error: dict[str, Any]) -> None:
        """It is the test's failure."""

    def settle(self, over: bool = False) -> None:
        """Nothing is held back."""

    def complete(self, item: pytest.Item, seconds: float) -> None:
        """Nobody waits for it."""

    def flush(self) -> None:
        """For the journal only: a test that has begun may take a while."""
        if self._recorder is not None:
            self._recorder.commit()


class WorkerReports:
    """In a worker: reports go to the controller, many in one message of bytes.

    Plugins of the worker that listen hear them first.

    :param send: sends bytes to the controller, see :func:`unpacked`.
    :param extra: what every report names, by xdist's names: ``worker_id``, ``testrun_uid``.
    :param index: of an item in the worker's collection.
    """

    def __init__(
        self,
        config: pytest.Config,
        send: Callable[[bytes], None],
        extra: dict[str, Any],
        index: Callable[[pytest.Item], int],
    ) -> None:
        self._config = config
        self._send = send
        self._extra = extra
        self._index = index
        self._events: list[tuple[Any, ...]] = []
        self._local = LocalReports()
        self._others_hear = private_api.others_hear_reports(config)
        self.silent = False
        """Whether plugins of this process are not told."""

    @property
    def _heard(self) -> bool:
        return self._others_hear and not self.silent

    def are_awaited(self, config: pytest.Config) -> bool:
        """If a test kills the worker, xdist blames the first whose reports have not arrived."""
        del config
        return True

    def begins(self, item: pytest.Item) -> None:
        """Tell."""
        self._events.append(("begins", self._index(item)))

    def log_start(self, item: pytest.Item) -> None:
        """Tell."""
        if self._heard:
            self._local.log_start(item)
        self._events.append(("logstart", item.nodeid, carriable(item.location)))

    def log_report(self, item: pytest.Item, data: dict[str, Any]) -> None:
        """Tell."""
        if not self.silent and (self._others_hear or data.get("outcome") == "failed"):
            report = report_from(self._config, data)
            item.ihook.pytest_runtest_logreport(report=report)
            # What plugins changed, too.
            data = carriable(private_api.report_to_data(self._config, report))
        data.update(self._extra, item_index=self._index(item))
        self._events.append(("testreport", data))

    def log_finish(self, item: pytest.Item) -> None:
        """Tell."""
        if self._heard:
            self._local.log_finish(item)
        self._events.append(("logfinish", item.nodeid, carriable(item.location)))

    def attempt(
        self, item: pytest.Item, facts: dict[str, Any], left: int, again: bool = False
    ) -> None:
        """Tell."""
        self._events.append(("attempt", item.nodeid, facts, left, again))

    def gpu_error(self, item: pytest.Item, error: dict[str, Any]) -> None:
        """Tell."""
        self._events.append(("gpu_error", item.nodeid, error))

    def settle(self, over: bool = False) -> None:
        """Nothing is held back."""

    def complete(self, item: pytest.Item, seconds: float) -> None:
        """Tell."""
        self._events.append(("runtest_protocol_complete", self._index(item), seconds))

    def flush(self) -> None:
        """Send what was told since the last time."""
        if self._events:
            events, self._events = self._events, []
            self._send(marshal.dumps(events, MARSHAL_VERSION))
