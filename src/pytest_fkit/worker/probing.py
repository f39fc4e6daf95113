"""A worker's GPUs: probes, the first during collection, and errors that collectors meet."""

from __future__ import annotations

from typing import Callable, Generator, Mapping

import pytest

from ..compat import pytest_session
from ..config.first_environment import environment
from ..config.settings import SETTINGS
from ..gpu.devices import placed
from ..gpu.errors.classification import Classifier
from ..gpu.errors.failure import Failure, failure_of, skip_reason
from ..gpu.health.probe import PROBE_LIMIT, Health, Probe, start
from ..gpu.slices.ownership import OWNED, Owned
from ..own import own_builtins
from ..protocol.endings import count
from ..protocol.plain_values import carriable

own_builtins(globals())


class Probing:
    """Plugin of a worker that owns GPUs; starts the first probe.

    Called in the main thread: a probe ends with the thread that started it.

    :param show: writes a line to the terminal; None where the controller reports sick GPUs.
    """

    def __init__(self, owned: Owned, name: str, show: Callable[[str], None] | None) -> None:
        self._owned = owned
        self._name = name
        self._show = show
        self._ecc: dict[str, int] = {}
        self._answer: Health | None = None
        self._running = self._start()

    def first(self) -> Health:
        """Wait for the first probe; what it found."""
        if self._answer is None:
            self._answer = self._wait()
        return self._answer

    def again(self) -> Health:
        """Probe again and wait, :data:`.probe.PROBE_LIMIT` at most; what the probe found."""
        self.first()
        self._running = self._start()
        return self._wait()

    def stop(self) -> None:
        """End the probe, whose answer is "unknown" then; called in any thread."""
        self._running.stop()

    def _start(self) -> Probe:
        # The GPUs of the slice, whichever a conftest.py shows the tests.
        environ = {**environment(), **self._owned.masks}
        return start(self._owned.vendor, environ, PROBE_LIMIT, self._owned.shown)

    def _wait(self) -> Health:
        health = self._running.result()
        grown = new_errors(self._ecc, self._running.ecc)
        self._ecc = {**self._ecc, **self._running.ecc}
        return Health("sick", grown) if grown and health.state != "sick" else health

    # Before a keeper is forked: its worker must not have other children by then.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Before the first test: tell the user about a sick GPU."""
        errors = session.testsfailed and not session.config.option.continue_on_collection_errors
        if session.items and not errors:
            self._tell(self.first())
        return (yield)

    def _tell(self, health: Health) -> None:
        if health.state == "sick" and self._show is not None:
            place = placed(self._name, self._owned.ids)
            self._show(f"fkit: {place}: probe: sick: {health.reason}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_unconfigure(self) -> None:
        """End a probe that nobody waited for, as after a failed collection."""
        self.stop()
        self.first()


def new_errors(before: Mapping[str, int], now: Mapping[str, int]) -> str:
    """A line about uncorrected ECC errors that occurred between two probes, "" for none.

    :param before: by PCI address, the count at the first one.
    """
    grown = {pci: now.get(pci, 0) - number for pci, number in before.items()}
    return "; ".join(
        f"{pci}: {count(number, 'new uncorrected ECC error')}"
        for pci, number in grown.items()
        if number > 0
    )


def probe_gpus(
    config: pytest.Config, name: str, show: Callable[[str], None] | None
) -> Probing | None:
    """Start the first probe where there are GPUs, unless probes are off.

    Not at ``-n0``, where nobody else could run the tests, nor in a spawned interpreter, whose
    worker has done so.
    """
    owned = config.stash.get(OWNED, None)
    if owned is None or not config.stash[SETTINGS].probe:
        return None
    probing = Probing(owned, name, show)
    config.pluginmanager.register(probing, "fkit-probing")
    return probing


class CollectionErrors:
    """Plugin of a worker that owns GPUs: tells of errors in its collection; others may meet none.

    :param tell: called once at the end of the collection, if there was any error, with the node id
        of each collector and its category of GPU error.
    """

    def __init__(
        self, config: pytest.Config, tell: Callable[[list[tuple[str, str]]], None]
    ) -> None:
        self._classifier = Classifier(config)
        self._tell = tell
        self._found: list[tuple[str, str]] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Classify what the collection of a module or a class raised."""
        report = yield
        raised = pytest_session.collection_error(report)
        if raised is not None and not report.passed:
            self._look(collector, report, raised)
        return report

    def _look(
        self, collector: pytest.Collector, report: pytest.CollectReport, raised: BaseException
    ) -> None:
        skip = Failure(text=skip_reason(report), skip=True)
        error = self._classifier.of_collection(skip if report.skipped else failure_of(raised))
        if error is not None:
            self._found.append((carriable(collector.nodeid), error.category))

    def pytest_collection_finish(self) -> None:
        """Tell the controller what was found."""
        if self._found:
            self._tell(self._found)
