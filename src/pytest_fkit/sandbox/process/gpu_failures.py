"""Recognizes errors of GPUs and of the network where they are raised, and adds them to reports."""

from __future__ import annotations

from typing import Generator, Iterable

import pytest

from ...gpu.errors.classification import Classifier
from ...gpu.errors.failure import Failure, event_of, failure_of, keep_printed, skip_reason
from ...gpu.errors.wording import points
from ...own import own_builtins
from ...protocol.event_file import NETWORK, GpuError, add_facts

own_builtins(globals())


class GpuFailures:
    """Plugin of test processes whose worker owns GPUs, or whose tests may run again elsewhere.

    :param gpus: whether it owns GPUs.
    :param network: whether tests may be retried after errors of the network.
    :param machines: whether they may be retried on another machine.
    """

    def __init__(self, config: pytest.Config, gpus: bool, network: bool, machines: bool) -> None:
        self._classifier = Classifier(config, gpus, network, machines)
        self.poisoned = ""
        """The message of an error that makes this process unfit for another test, or ""."""
        self.counted = False
        """Whether an error counted, or may count, against the GPUs; hosts reset it."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Say in the report what error it is."""
        report = yield
        error = None
        if call.excinfo is not None and not hasattr(report, "wasxfail") and report.skipped:
            error = self._classifier.error(item, Failure(text=skip_reason(report), skip=True))
            error = None if error is None else error._replace(poisons=False)
        elif call.excinfo is not None:
            error = self.classify(item, call.excinfo.value, report.sections)
        if error is not None and not hasattr(report, "wasxfail"):
            add_facts(vars(report), gpu_error=error)
            self.counted = self.counted or error.counts or error.doubtful
        return report

    def classify(
        self, item: pytest.Item, error: BaseException, sections: Iterable[tuple[str, str]]
    ) -> GpuError | None:
        """Classify an exception; record the error in :attr:`poisoned` if it poisons this process.

        :param sections: what the test has printed so far, in the form of a report's sections.
        :return: None if it is neither an error of a GPU nor of the network.
        """
        failure = failure_of(error)
        if any(map(points, (failure, *failure.causes))):
            printed = "\n".join(text for name, text in sections if name.startswith("Captured std"))
            failure = failure._replace(printed=failure.printed + keep_printed(error, printed))
        found = self._classifier.error(item, failure, event_of(error))
        if found is not None and found.category == NETWORK and found.event:
            # pytest caches it with its fixture: only another process sets that up again.
            found = found._replace(poisons=True)
        if found is not None and found.poisons:
            self.poisoned = self.poisoned or found.text
        return found
