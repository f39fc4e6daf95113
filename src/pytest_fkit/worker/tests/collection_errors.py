"""GPU errors in the collection of a worker that owns GPUs: another worker may have none."""

from __future__ import annotations

from typing import Callable, Generator

import pytest

from ...compat import pytest_session
from ...gpu.errors.classification import Classifier
from ...gpu.errors.failure import Failure, failure_of, skip_reason
from ...own import own_builtins
from ...protocol.plain_values import carriable

own_builtins(globals())


class CollectionErrors:
    """Plugin of such a worker.

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
