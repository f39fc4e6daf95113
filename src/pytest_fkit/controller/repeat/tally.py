"""The repetitions of one test that have ended, and the one whose reports are the verdict."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Sequence

from ...journal.attempts import kept, verdict
from ...journal.history import RED
from ...journal.rates import SKIPPED, RepeatResult
from ...named_tuple import NamedTuple
from ...own import own_builtins
from ...protocol.border import ItemComplete, Told, came_to_its_end, reports_of
from ...protocol.event_file import facts_of
from ...protocol.repetitions import is_fresh

if TYPE_CHECKING:
    import pytest
    from xdist.workermanage import WorkerController

own_builtins(globals())


class Repetition(NamedTuple):
    """One that has ended.

    :param number: from 0.
    """

    number: int
    seed: int
    node: WorkerController
    said: Sequence[Told]
    complete: ItemComplete

    @property
    def reports(self) -> list[pytest.TestReport]:
        return reports_of(self.said)

    @property
    def ended(self) -> bool:
        return came_to_its_end(self.reports)

    @property
    def outcome(self) -> str:
        reports = self.reports
        if all(report.passed and not hasattr(report, "wasxfail") for report in reports):
            return "passed" if any(report.when == "call" for report in reports) else "error"
        return verdict([kept(report) for report in reports])

    @property
    def fresh(self) -> bool:
        return any(facts_of(report).fresh for report in self.reports) or is_fresh(self.number)

    @property
    def shared(self) -> str:
        """Why it shared a process, "" if it did not."""
        causes = (facts_of(report).shared for report in self.reports)
        return next(filter(None, causes), "")


class RepeatTally:
    """Counts the repetitions of a test.

    :param wanted: how many there are to be, 0 where nobody knows.
    :param once: why there is one only, "" where there are more.
    """

    def __init__(self, nodeid: str, wanted: int, once: str = "") -> None:
        self.nodeid = nodeid
        self.wanted = 1 if once else wanted
        self.once = once
        self.is_told = False
        self._fresh = self._fresh_failed = self._shared = 0
        self._cause = ""
        self._outcomes: Counter[str] = Counter()
        self._firsts: dict[str, Repetition] = {}
        self._failed: Repetition | None = None
        self.counts = False
        """Whether one failed whose failure is not quarantined."""

    def add(self, repetition: Repetition, known: bool = False) -> str:
        """Another one has ended; its outcome.

        :param known: whether its failure is quarantined.
        """
        outcome = repetition.outcome
        self._outcomes[outcome] += 1
        self._firsts.setdefault(outcome, repetition)
        if repetition.shared:
            self._shared += 1
            self._cause = self._cause or repetition.shared
        self._fresh += repetition.fresh and outcome != SKIPPED
        if outcome in RED:
            self._fresh_failed += repetition.fresh
            if self._failed is None or not (known or self.counts):
                self._failed = repetition
            self.counts = self.counts or not known
        return outcome

    @property
    def times(self) -> int:
        return sum(self._outcomes.values())

    @property
    def failed(self) -> int:
        return sum(self._outcomes[each] for each in RED)

    @property
    def is_complete(self) -> bool:
        return 0 < self.wanted <= self.times

    @property
    def stands(self) -> Repetition:
        """The one whose reports are the verdict: the first failure, else of the usual outcome."""
        if self._failed is not None:
            return self._failed
        return self._firsts[self._outcomes.most_common(1)[0][0]]

    def result(self, stopped: str = "") -> RepeatResult:
        """All of them together.

        :param stopped: why there are no more.
        """
        stands, failed = self.stands, self._failed
        others = [
            (outcome, number)
            for outcome, number in self._outcomes.most_common()
            if outcome not in (*RED, "passed")
        ]
        return RepeatResult(
            times=self.times,
            failed=self.failed,
            wanted=self.wanted,
            fresh=self._fresh,
            fresh_failed=self._fresh_failed,
            shared=self._shared,
            cause=self._cause,
            others=tuple(others),
            first=-1 if failed is None else failed.number,
            stands=stands.number,
            seed=stands.seed,
            first_fresh=failed is not None and failed.fresh,
            stopped="" if self.is_complete else stopped,
            once=self.once,
        )
