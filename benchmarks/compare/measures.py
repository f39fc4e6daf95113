"""What is measured: one number for each round."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Callable, Mapping, NamedTuple, Sequence

from .contenders import Contender
from .runs import Line, Run, check, run
from .suites import Suite, durations, write

Measured = Mapping[str, float]


class Figure(NamedTuple):
    """Something that is measured.

    :param column: the head of its column in the table, with the unit.
    :param fits: whether it can be measured with a contender.
    """

    column: str
    fits: Callable[[Contender], bool] = lambda _: True


FIGURES = {
    "per test": Figure("ms per test"),
    "controller": Figure("pytest's own CPU, ms per test", lambda each: each.workers > 0),
    "start-up": Figure("start-up, s"),
    "memory": Figure("peak PSS, MiB", lambda each: each.slow == 1),
    "below": Figure("without pytest itself, MiB", lambda each: each.workers > 0),
    "crash": Figure("crash to next test, ms", lambda each: each.survives and each.slow == 1),
    "makespan": Figure("makespan / bound", lambda each: each.workers > 1),
}


class Course:
    """A suite in its sizes, ready to be run.

    :param base: directory for it.
    :param tests: how many the largest has.
    """

    def __init__(self, suite: Suite, base: Path, tests: int) -> None:
        self.suite = suite
        self._base = base / suite.name
        self._tests = max(5, round(tests * suite.share))

    def size(self, contender: Contender) -> int:
        """How many tests a contender runs."""
        slow = contender.slow
        if self.suite.anew and contender.apart and "fkit" not in contender.environment:
            slow = max(slow, 100)
        return max(5, self._tests // slow)

    def directory(self, tests: int) -> Path:
        """Where the suite is, with so many tests."""
        found = self._base / str(tests)
        if not found.exists():
            write(self.suite, found, tests)
        return found

    def takes(self, contender: Contender) -> bool:
        """Whether the contender can run the suite at all."""
        return any(name in FIGURES and FIGURES[name].fits(contender) for name in self.suite.figures)


def measure(course: Course, contender: Contender, python: str) -> Measured:
    """One round: all figures of the suite.

    :raises WrongRunError: if not every test ran as it is to.
    """
    suite = course.suite
    found: dict[str, float] = {}
    wanted = {name for name in suite.figures if FIGURES[name].fits(contender)}
    if wanted & {"per test", "start-up"}:
        found.update(_times(course, contender, python))
    if "memory" in wanted:
        whole, below = _run(course, contender, python, course.size(contender), True).memory
        found["memory"] = whole / 2**20
        if FIGURES["below"].fits(contender):
            found["below"] = below / 2**20
    if "crash" in wanted:
        lines = _run(course, contender, python, course.size(contender)).lines
        found["crash"] = 1000 * statistics.median(gaps(lines))
    if "makespan" in wanted:
        size = course.size(contender)
        lines = _run(course, contender, python, size).lines
        found["makespan"] = makespan(lines) / bound(durations(size), contender.workers)
    return found


def _times(course: Course, contender: Contender, python: str) -> Measured:
    size = course.size(contender)
    small, large = (_run(course, contender, python, tests) for tests in (1, size))

    def each(most: float, least: float) -> float:
        return 1000 * (most - least) / (size - 1)

    found = {"start-up": small.seconds, "per test": each(large.seconds, small.seconds)}
    if FIGURES["controller"].fits(contender):
        found["controller"] = each(large.lines[-1].at, small.lines[-1].at)
    return found


def _run(course: Course, contender: Contender, python: str, tests: int, looks: bool = False) -> Run:
    done = run(python, contender.arguments, course.directory(tests), looks)
    check(done, tests, contender.apart)
    return done


def gaps(lines: Sequence[Line]) -> list[float]:
    """Seconds from each crash to the next test that begins."""
    begun = sorted(line.at for line in lines if line.what in ("test", "crash"))
    crashes = [line.at for line in lines if line.what == "crash"]
    later = ([at for at in begun if at > crash][:1] for crash in crashes)
    return [after[0] - crash for crash, after in zip(crashes, later) if after]


def makespan(lines: Sequence[Line]) -> float:
    """Seconds from the begin of the first test to the end of the last."""
    begun = min(line.at for line in lines if line.what == "test")
    return max(line.at for line in lines if line.what == "end") - begun


def bound(seconds: Sequence[float], workers: int) -> float:
    """No schedule is shorter: the longest test, or all of them divided evenly."""
    return max(*seconds, sum(seconds) / workers)
