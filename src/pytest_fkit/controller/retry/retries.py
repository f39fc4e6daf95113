"""Attempts that met errors of GPUs or the network: held back until another attempt has ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable, Iterable, Iterator, Sequence

from ...compat.pytest_reports import shown_text
from ...gpu.errors.wording import is_rather_the_machines
from ...named_tuple import NamedTuple
from ...own import own_builtins
from ...protocol.border import (
    ItemBegins,
    ItemComplete,
    ItemGpuError,
    Reported,
    Told,
    came_to_its_end,
    reports_of,
)
from ...protocol.event_file import NETWORK, OF_MACHINE, GpuError, add_facts, facts_of
from ..schedule.machines import id_of, machine_of, physical, with_gpus
from ..schedule.units import Kind

if TYPE_CHECKING:
    import pytest
    from xdist.workermanage import WorkerController

own_builtins(globals())


class Attempt(NamedTuple):
    """One attempt at a test.

    :param gpus: those that the test was given, by :func:`.machines.physical_name`.
    :param error: of a GPU or the network that it met, if any.
    """

    node: WorkerController
    gpus: tuple[str, ...]
    said: Sequence[Told]
    complete: ItemComplete
    error: GpuError | None

    @property
    def told(self) -> Sequence[Told]:
        return [*self.said, self.complete]

    @property
    def place(self) -> str:
        """As in "gw2 (GPU 4)"."""
        return with_gpus(self.node.gateway.id, map(id_of, self.gpus), machine_of(self.node))

    @property
    def reports(self) -> list[pytest.TestReport]:
        return reports_of(self.said)

    def section(self, number: int) -> tuple[str, str]:
        """The section on it in the report on a later attempt.

        :param number: the first is 1.
        """
        texts = [shown_text(report.longrepr) for report in self.reports if report.failed]
        return self.title(number), "\n".join(texts) + "\n"

    def title(self, number: int) -> str:
        """As in "attempt 1 on gw2 (GPU 4): out of memory"."""
        return f"attempt {number} on {self.place}: {self.outcome}"

    @property
    def wanted_gpus(self) -> int:
        """How many GPUs the test wanted, if it skipped itself because it saw fewer, else 0."""
        return max((facts_of(each).wanted_gpus for each in self.reports), default=0)

    @property
    def outcome(self) -> str:
        if self.error is not None:
            return self.error.text
        if self.wanted_gpus:
            return f"skipped itself for want of {self.wanted_gpus} GPUs"
        return "skipped" if self.skipped else "ended" if self.ended else "interrupted"

    @property
    def category(self) -> str:
        return "too few GPUs" if self.error is None else self.error.category

    @property
    def met_network(self) -> bool:
        return self.error is not None and self.error.category == NETWORK

    @property
    def ended(self) -> bool:
        return came_to_its_end(self.reports)

    @property
    def skipped(self) -> bool:
        """Whether the test was skipped: none of its subtests, and no expected failure."""
        return any(map(_is_skip, self.reports))

    @property
    def failed_before(self) -> bool:
        """Whether it had failed by itself when it met the error."""
        failed = [facts_of(report).gpu_error for report in self.reports if report.failed]
        return any(failed) and not failed[0]

    @property
    def failed(self) -> bool:
        return any(report.failed for report in self.reports)

    @property
    def passed(self) -> bool:
        return all(
            report.passed or (report.skipped and hasattr(report, "context"))
            for report in self.reports
        )


def _is_skip(report: pytest.TestReport) -> bool:
    xfail_or_subtest = hasattr(report, "wasxfail") or hasattr(report, "context")
    return report.skipped and not xfail_or_subtest


class Verdict(NamedTuple):
    """There is no other attempt.

    :param stands: the one that decides.
    """

    attempts: Sequence[Attempt]
    stands: Attempt


class Retry(NamedTuple):
    """The test has to be run again: after a GPU error elsewhere.

    :param position: of the test in the collection of the worker that made the last attempt.
    :param seconds: that it took there.
    :param kind: what the next attempt needs.
    :param pause: seconds to wait before it.
    """

    position: int
    seconds: float
    kind: Kind
    pause: float = 0.0


class Before(NamedTuple):
    """What there was of a test before its last attempt.

    :param needs: what the test needs of itself.
    :param given: what its last attempt was to have.
    """

    needs: Kind
    given: Kind
    attempts: Sequence[Attempt] = ()

    @property
    def erred(self) -> list[Attempt]:
        """The attempts that met GPU errors."""
        return [each for each in self.attempts if each.error and not each.met_network]

    @property
    def disconnected(self) -> list[Attempt]:
        """The attempts that met errors of the network."""
        return [each for each in self.attempts if each.met_network]


class Rules(NamedTuple):
    """What the user has set.

    :param most: further attempts after GPU errors; one with more GPUs, for a test that skipped
        itself because it saw too few, is not counted.
    :param widens: whether there is such a one.
    :param network: further attempts after errors of the network.
    """

    most: int
    widens: bool
    network: int = 0

    def allow(self, before: Before, error: GpuError) -> bool:
        if error.category == NETWORK:
            return len(before.disconnected) < self.network
        return len(before.erred) < self.most


def decide(
    attempt: Attempt,
    before: Before,
    rules: Rules,
    able: Callable[[Kind], bool],
    shared: bool,
    there: frozenset[str] = frozenset(),
) -> Verdict | Retry:
    """What becomes of a test after an attempt.

    :param able: whether somebody can run a test that needs this.
    :param shared: whether other workers may have used the memory that it lacked; never with a gang.
    :param there: its machine, and all GPUs of that.
    """
    kind = _next_kind(attempt, before, rules, able, shared)
    error = attempt.error
    if kind is not None and error is not None and error.category == OF_MACHINE:
        # Whoever runs on that machine lacks the same; nor on one where it was lacking before.
        kind = kind._replace(avoid=kind.avoid | before.given.avoid | there)
    elif kind is not None and error is not None and is_rather_the_machines(error):
        elsewhere = kind._replace(avoid=kind.avoid | there)
        kind = elsewhere if able(elsewhere) else kind
    if kind is not None and able(kind):
        pause = min(2.0 ** len(before.disconnected), _PAUSE) if attempt.met_network else 0.0
        return Retry(attempt.complete.position, attempt.complete.seconds, kind, pause)
    return verdict(attempt, before.attempts)


_PAUSE = 60.0
"""Longest time before another attempt, in seconds."""


def verdict(attempt: Attempt, earlier: Sequence[Attempt]) -> Verdict:
    """The verdict if this attempt is the last one."""
    # A skip is no verdict: the attempt may have found no GPU at all.
    after_gpus = bool(earlier) and not earlier[-1].met_network
    undecided = (attempt.skipped and not attempt.error and after_gpus) or not attempt.ended
    return Verdict([*earlier, attempt], earlier[-1] if earlier and undecided else attempt)


def _next_kind(
    attempt: Attempt, before: Before, rules: Rules, able: Callable[[Kind], bool], shared: bool
) -> Kind | None:
    """What another attempt needs, None if there is to be none."""
    error = attempt.error
    if error is None:
        wanted = attempt.wanted_gpus if rules.widens and not before.attempts else 0
        # A failed teardown of wide fixtures after it is the failure of others.
        return before.needs._replace(gpus=wanted) if wanted and not attempt.failed else None
    if not error.retry or not rules.allow(before, error):
        return None
    if attempt.met_network:
        return None if attempt.failed_before else before.given
    # With as many GPUs as this one had.
    kind = before.given._replace(alone=error.alone)
    erred, never = [*before.erred, attempt], before.needs.avoid
    avoiding = kind._replace(avoid=never.union(*(each.gpus for each in erred)))
    if able(avoiding):
        return avoiding
    # Where there are few GPUs, a gang can't be made of others only.
    elsewhere = kind._replace(avoid=never.union(*(physical(each.node) for each in erred)))
    if error.alone and not before.given.alone and shared and not able(elsewhere):
        return kind._replace(avoid=never)
    return elsewhere


class Retries:
    """The attempts that are held, by test.

    :param fail: whether a test that passes on a later attempt fails nevertheless.
    """

    def __init__(self, fail: bool) -> None:
        self._fail = fail
        self._held: dict[int, list[Attempt]] = {}
        self.kinds: dict[int, Kind] = {}
        """What the next attempt needs, by test."""

    def __contains__(self, test: int) -> bool:
        return test in self._held

    def before(self, test: int, needs: Kind) -> Before:
        return Before(needs, self.kinds.get(test, needs), self._held.get(test, ()))

    def hold(self, test: int, attempt: Attempt, kind: Kind) -> None:
        self._held.setdefault(test, []).append(attempt)
        self.kinds[test] = kind

    def conclude(self, test: int, verdict: Verdict) -> Sequence[Told]:
        """What plugins are to hear of a test after its last attempt."""
        self._held.pop(test, None)
        self.kinds.pop(test, None)
        alone = len(verdict.attempts) == 1
        return verdict.stands.told if alone else self._told(verdict.stands, verdict.attempts)

    def release(self, test: int, reason: str) -> tuple[WorkerController, Sequence[Told]]:
        """The worker and what plugins are to hear of a test that gets no other attempt."""
        attempts = self._held.pop(test)
        del self.kinds[test]
        told = self._told(attempts[-1], attempts)
        for report in attempts[-1].reports:
            if report.failed or report.skipped:
                report.sections.append(("pytest-fkit", f"no other attempt: {reason}\n"))
        return attempts[-1].node, told

    def release_all(self) -> list[tuple[WorkerController, Sequence[Told]]]:
        return [self.release(test, "the run ended before it") for test in list(self._held)]

    def _told(self, verdict: Attempt, attempts: Sequence[Attempt]) -> Sequence[Told]:
        """What was told of the attempt that is the verdict; its reports name all others."""
        sections = [
            attempt.section(number)
            for number, attempt in enumerate(attempts, 1)
            if attempt is not verdict
        ]
        passed = verdict.passed
        before = "; ".join(title for title, _ in sections)
        met_error = any(each.error for each in attempts[:-1])
        for report in verdict.reports:
            about = vars(report)
            if len(attempts) > 1 and verdict is attempts[-1]:
                add_facts(about, wanted_gpus=0)
            add_facts(about, attempts=len(attempts))
            if not report.passed or report.when == "call":
                report.sections[:0] = sections
            # What was only given more GPUs has passed as any other test.
            of_test = report.when == "call" and not hasattr(report, "context")  # of no subtest
            if report.failed and met_error and sections:
                add_facts(about, failed_after=before)
            if passed and of_test and met_error:
                add_facts(about, passed_after=before)
                if self._fail:
                    report.outcome = "failed"
                    report.longrepr = (
                        f"passed on attempt {len(attempts)} only (--fkit-fail-on-retry)\n"
                        + "\n".join(f"{title}\n{text}" for title, text in sections)
                    )
        return verdict.told


@dataclass
class _Open:
    told: list[Told] = field(default_factory=list)
    error: GpuError | None = None


class OpenAttempts:
    """Collects what workers say of attempts that may have to be held.

    Those are attempts that met errors of GPUs or the network, and any at a test of which others are
    held.

    :param again: hears of each test that a worker begins, by its position in the collection of the
        worker; whether others are held.
    :param over: called with a worker and its attempt; returns what plugins are to hear of it, or
        what is to be done instead.
    """

    def __init__(
        self,
        again: Callable[[WorkerController, int], bool],
        over: Callable[[WorkerController, Attempt], Sequence[Told] | Retry],
    ) -> None:
        self._again = again
        self._over = over
        self._open: dict[WorkerController, _Open] = {}
        self._skips: dict[WorkerController, set[int]] = {}

    def decided(
        self, node: WorkerController, told: Iterable[Told]
    ) -> Iterator[Sequence[Told] | Retry]:
        """What plugins are to hear of this now, and the retries that follow from it."""
        now: list[Told] = []
        for each in told:
            if isinstance(each, Reported) and _is_skip(each.report):
                self._skips.setdefault(node, set()).add(each.position)
            if isinstance(each, ItemBegins):
                self._open.pop(node, None)
                self._skips.get(node, set()).discard(each.position)
                if self._again(node, each.position):
                    self._open[node] = _Open()
                now.append(each)
            elif isinstance(each, ItemGpuError):
                self._open.setdefault(node, _Open()).error = each.error
            elif node not in self._open:
                now.append(each)
            elif isinstance(each, ItemComplete):
                opened = self._open.pop(node)
                gpus = tuple(physical(node))
                attempt = Attempt(node, gpus, opened.told, each, opened.error)
                over = self._over(node, attempt)
                if isinstance(over, Retry):
                    yield now
                    yield over
                    now = []
                else:
                    now += over
            else:
                self._open[node].told.append(each)
        yield now

    def skipped(self, node: WorkerController, position: int) -> bool:
        """Whether a test that is over was skipped there; asked once."""
        skips = self._skips.get(node, set())
        found = position in skips
        skips.discard(position)
        return found

    def forget(self, node: WorkerController) -> None:
        self._open.pop(node, None)
        self._skips.pop(node, None)
