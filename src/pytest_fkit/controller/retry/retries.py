"""Attempts that met GPU errors: held until another one has ended elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Sequence

from ...gpu.errors.failure import GpuError
from ...own import own_builtins
from ...protocol.border import ItemBegins, ItemComplete, ItemGpuError, Reported, Told
from ..schedule.decisions import Retry
from ..schedule.machines import host_of
from ..schedule.units import Kind

own_builtins(globals())


@dataclass(frozen=True)
class Attempt:
    """One attempt at a test.

    :param node: the worker.
    :param gpus: those that the test was given, see :func:`physical`.
    :param told: what it told of the attempt.
    :param error: the GPU error that it met, if it did.
    """

    node: Any
    gpus: tuple[str, ...]
    told: Sequence[Told]
    error: GpuError | None

    @property
    def place(self) -> str:
        """As in "gw2 (GPU 4)"."""
        ids = ",".join(gpu.rpartition("/")[2] for gpu in self.gpus)
        return f"{self.node.gateway.id} (GPU {ids})" if ids else str(self.node.gateway.id)

    @property
    def reports(self) -> list[Any]:
        """The reports."""
        return [each.report for each in self.told if isinstance(each, Reported)]

    def section(self, number: int) -> tuple[str, str]:
        """What it adds to the report on a later one.

        :param number: the first is 1.
        """
        reason = self.reason if self.error or self.wanted_gpus else self._outcome()
        texts = [str(report.longrepr) for report in self.reports if report.failed]
        return f"attempt {number} on {self.place}: {reason}", "\n".join(texts) + "\n"

    @property
    def wanted_gpus(self) -> int:
        """How many GPUs it would have wanted, if it skipped itself for that, else 0."""
        return max((getattr(each, "fkit_wanted_gpus", 0) for each in self.reports), default=0)

    @property
    def reason(self) -> str:
        """Why there is to be another one."""
        if self.error is not None:
            return self.error.text
        return f"skipping itself for want of {self.wanted_gpus} GPUs"

    @property
    def category(self) -> str:
        """The same in a word or two."""
        return "too few GPUs" if self.error is None else self.error.category

    def _outcome(self) -> str:
        return "skipped" if self.skipped else "ended" if self.ended else "interrupted"

    @property
    def ended(self) -> bool:
        """Whether the test came to its end; else the run was stopped while it was running."""
        return any(report.when != "setup" or not report.passed for report in self.reports)

    @property
    def skipped(self) -> bool:
        """Whether the test skipped itself."""
        return any(report.skipped for report in self.reports)

    @property
    def failed(self) -> bool:
        """Whether anything failed."""
        return any(report.failed for report in self.reports)

    @property
    def passed(self) -> bool:
        """Whether nothing failed and nothing was skipped."""
        return all(report.passed for report in self.reports)


class Retries:
    """What is held, by test.

    :param most: attempts after GPU errors; one with more GPUs, for a test that skipped itself for
        want of them, is not counted.
    :param fail: whether a test that passes on a later attempt fails nevertheless.
    """

    def __init__(self, most: int, fail: bool) -> None:
        self._most = most
        self._fail = fail
        self._held: dict[int, list[Attempt]] = {}
        self.kinds: dict[int, Kind] = {}
        """What the next attempt needs, by test."""

    def __contains__(self, test: int) -> bool:
        return test in self._held

    def may_follow(self, test: int) -> bool:
        """Whether the test may have another attempt after a GPU error."""
        return len(self._erred(test)) < self._most

    def hold(self, test: int, attempt: Attempt, kind: Kind) -> None:
        """Another attempt follows this one, by a worker of this kind."""
        self._held.setdefault(test, []).append(attempt)
        self.kinds[test] = kind

    def last(self, test: int) -> Attempt:
        """The attempt that was held last."""
        return self._held[test][-1]

    def gpus(self, test: int) -> frozenset[str]:
        """The GPUs with which it met GPU errors, see :func:`physical`."""
        return frozenset(gpu for attempt in self._erred(test) for gpu in attempt.gpus)

    def workers_gpus(self, test: int) -> frozenset[str]:
        """Those of the workers that made these attempts."""
        return frozenset(gpu for attempt in self._erred(test) for gpu in physical(attempt.node))

    def _erred(self, test: int) -> list[Attempt]:
        return [attempt for attempt in self._held.get(test, ()) if attempt.error is not None]

    def conclude(self, test: int, attempt: Attempt) -> Sequence[Told]:
        """What is to be told of a test after its last attempt."""
        attempts = [*self._held.pop(test, ()), attempt]
        if len(attempts) == 1:
            return attempt.told
        # One that skipped is no verdict: it may have found no GPU at all.
        none = (attempt.skipped and not attempt.error) or not attempt.ended
        verdict = attempts[-2] if none else attempt
        return self._told(verdict, attempts)

    def release(self, test: int, reason: str) -> tuple[Any, Sequence[Told]]:
        """The worker and what is to be told of a test that gets no other attempt after all.

        :param reason: why not.
        """
        attempts = self._held.pop(test)
        told = self._told(attempts[-1], attempts)
        for report in attempts[-1].reports:
            if report.failed or report.skipped:
                report.sections.append(("pytest-fkit", f"no other attempt: {reason}\n"))
        return attempts[-1].node, told

    def release_all(self, reason: str) -> list[tuple[Any, Sequence[Told]]]:
        """The same for all that are held."""
        return [self.release(test, reason) for test in list(self._held)]

    def _told(self, verdict: Attempt, attempts: Sequence[Attempt]) -> Sequence[Told]:
        sections = [
            attempt.section(number)
            for number, attempt in enumerate(attempts, 1)
            if attempt is not verdict
        ]
        passed = verdict.passed
        before = "; ".join(title for title, _ in sections)
        met_error = any(each.error for each in attempts)
        for report in verdict.reports:
            if len(attempts) > 1 and verdict is attempts[-1]:
                vars(report).pop("fkit_wanted_gpus", None)
            report.fkit_attempts = len(attempts)
            if not report.passed or report.when == "call":
                report.sections[:0] = sections
            # What was only given more GPUs has passed as any other test.
            of_test = report.when == "call" and not hasattr(report, "context")  # of no subtest
            if report.failed and met_error and sections:
                report.fkit_failed_after = before
            if passed and of_test and met_error:
                report.fkit_passed_after = before
                if self._fail:
                    report.outcome = "failed"
                    report.longrepr = (
                        f"passed on attempt {len(attempts)} only (--fkit-fail-on-retry)\n"
                        + "\n".join(f"{title}\n{text}" for title, text in sections)
                    )
        return verdict.told


def physical(node: Any) -> list[str]:
    """The GPUs of a worker, by names that no two machines share: "host/id"."""
    return [physical_name(node, gpu) for gpu in ids(node)]


def physical_name(node: Any, gpu: str) -> str:
    """The name that no two machines share of a GPU of a worker's machine."""
    return f"{host_of(node)}/{gpu}"


def ids(node: Any) -> tuple[str, ...]:
    """The GPUs of a worker, as they are shown."""
    return tuple(node.workerinput.get("fkit_gpus", {}).get("ids", ()))


@dataclass
class _Open:
    """An attempt of which more is told."""

    told: list[Told] = field(default_factory=list)
    error: GpuError | None = None


class Screen:
    """Takes out of what workers tell what is to be held.

    :param retried: whether the test at a position of a worker's collection has attempts that are
        held.
    :param over: called with a worker, a position, an attempt and the seconds that it took; answers
        what is to be told.
    """

    def __init__(
        self,
        retried: Callable[[Any, int], bool],
        over: Callable[[Any, int, Attempt, float], Sequence[Told | Retry]],
    ) -> None:
        self._retried = retried
        self._over = over
        self._open: dict[Any, _Open] = {}

    def pass_on(self, node: Any, told: Iterable[Told]) -> list[Told | Retry]:
        """What of this is to be told now, and what follows from it."""
        now: list[Told | Retry] = []
        for each in told:
            if isinstance(each, ItemBegins):
                self._open.pop(node, None)
                if self._retried(node, each.position):
                    self._open[node] = _Open()
                now.append(each)
            elif isinstance(each, ItemGpuError):
                self._open.setdefault(node, _Open()).error = GpuError.from_wire(each.error)
            elif node not in self._open:
                now.append(each)
            elif isinstance(each, ItemComplete):
                attempt = self._open.pop(node)
                now += self._over(
                    node,
                    each.position,
                    Attempt(node, tuple(physical(node)), [*attempt.told, each], attempt.error),
                    each.seconds,
                )
            else:
                self._open[node].told.append(each)
        return now

    def forget(self, node: Any) -> None:
        """A worker is gone."""
        self._open.pop(node, None)
