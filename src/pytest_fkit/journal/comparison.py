"""What is different between two sets of journals, test by test."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median
from typing import Callable, Dict, Iterator, Mapping, Sequence

from ..named_tuple import NamedTuple
from ..own import own_builtins
from .causes import Cause, cause_of
from .events import Event
from .history import History, TestHistory, ungrouped

own_builtins(globals())


@dataclass(frozen=True)
class State:
    """A test in one set of journals.

    :param outcome: its verdict, the worst if it has several; "" if it was to run and has none.
    :param cause: for which it is red, None if it is not.
    :param flaky: whether it passed on another attempt.
    :param figures: by the name of a measure, what its runs that passed took.
    """

    outcome: str
    cause: Cause | None = None
    flaky: bool = False
    figures: Mapping[str, Sequence[float]] = field(default_factory=dict)


class Change(NamedTuple):
    """A test in both sets; None where it is not in one."""

    test: str
    old: State | None
    new: State | None


class Growth(NamedTuple):
    """A test that takes more than noise explains.

    :param measure: a name in MEASURES.
    :param small: the lower of the two medians; `large`: the other.
    """

    test: str
    measure: str
    small: float
    large: float


@dataclass(frozen=True)
class Comparison:
    """The differences; compared the other way round, each field is that of its partner.

    Partners are added and gone, fixed with excused and new without added and completed, flaky and
    steady, missing and completed, slower and faster, heavier and lighter; changed and still are
    their own.

    :param new: red, and was not, also those that are added or have a verdict only now.
    :param changed: red for another cause.
    :param fixed: was red, and passed; `excused`: was red, and was skipped, quarantined or the like.
    :param still: red for the same cause, which is no difference.
    :param flaky: passed on another attempt, and did not before; `steady`: the reverse.
    :param missing: had a verdict, was to run, and has none; `completed`: the reverse.
    :param overall: by measure, how many times as much the tests take in the middle.
    """

    new: list[Change] = field(default_factory=list)
    changed: list[Change] = field(default_factory=list)
    fixed: list[Change] = field(default_factory=list)
    excused: list[Change] = field(default_factory=list)
    still: list[Change] = field(default_factory=list)
    flaky: list[Change] = field(default_factory=list)
    steady: list[Change] = field(default_factory=list)
    added: list[Change] = field(default_factory=list)
    gone: list[Change] = field(default_factory=list)
    missing: list[Change] = field(default_factory=list)
    completed: list[Change] = field(default_factory=list)
    slower: list[Growth] = field(default_factory=list)
    faster: list[Growth] = field(default_factory=list)
    heavier: list[Growth] = field(default_factory=list)
    lighter: list[Growth] = field(default_factory=list)
    overall: dict[str, float] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        own = ("still", "overall")
        return not any(value for name, value in vars(self).items() if name not in own)


Side = Dict[str, State]
"""Tests by node id."""


def side(history: History) -> Side:
    runs = [session.runs[-1] for session in history.sessions]
    found: dict[str, list[TestHistory]] = {}
    for test in history.current():
        found.setdefault(ungrouped(test.nodeid, runs[test.session]), []).append(test)
    states = {nodeid: _state(tests) for nodeid, tests in found.items()}
    for number, nodeid in history.not_run():
        states.setdefault(ungrouped(nodeid, runs[number]), State(""))
    return states


def _state(tests: Sequence[TestHistory]) -> State:
    red = next((test for test in tests if test.went_wrong), None)
    if red is not None:
        return State(red.outcome, cause_of(red))
    passed = [test for test in tests if test.outcome in _RAN]
    figures = {
        name: tuple(value for test in passed for value in measure.values(test.attempt))
        for name, measure in MEASURES.items()
    }
    return State(
        (passed or tests)[0].outcome,
        flaky=any(test.verdict.get("attempt", 1) > 1 for test in passed),
        figures={name: values for name, values in figures.items() if values},
    )


def compare(old: Side, new: Side) -> Comparison:
    """The differences, in the order of the tests' names."""
    found = Comparison(overall=_overall(old, new))
    for test in sorted(old.keys() | new.keys()):
        _classify(found, Change(test, old.get(test), new.get(test)))
    for name, measure in MEASURES.items():
        more, less = (
            (found.slower, found.faster) if measure.is_time else (found.heavier, found.lighter)
        )
        noise = _noise(name, old, new)
        more += _growths(name, old, new, noise)
        less += _growths(name, new, old, noise.reverse())
    return found


def _classify(found: Comparison, change: Change) -> None:
    _, old, new = change
    if new is None:
        found.gone.append(change)
        return
    if old is None:
        found.added.append(change)
    elif old.outcome and not new.outcome:
        found.missing.append(change)
    elif new.outcome and not old.outcome:
        found.completed.append(change)
    before = None if old is None else old.cause
    if new.cause is not None:
        which = found.new if before is None else found.changed
        (found.still if before == new.cause else which).append(change)
    elif before is not None and new.outcome:
        (found.fixed if new.outcome in _RAN else found.excused).append(change)
    if old is not None and old.flaky != new.flaky:
        (found.flaky if new.flaky else found.steady).append(change)


# --- slower and heavier ---

_RAN = ("passed", "xpassed")

_ENOUGH = 20
"""Tests from which on their middle says how much faster one machine is than the other."""

_SPREADS = 4
"""Standard deviations, as estimated from the median of deviations, that are noise."""


class Measure(NamedTuple):
    """What tests take of something.

    :param values: reads it from an attempt; none if that does not say.
    :param factor: less than this many times as much is noise.
    :param least: a difference of less is noise, too.
    """

    values: Callable[[Event], Iterator[float]]
    factor: float
    least: float
    is_time: bool = False


def _seconds(attempt: Event) -> Iterator[float]:
    """Without wide fixtures, which are set up for whichever test comes first."""
    if "duration" not in attempt:
        return
    begin, seconds = attempt.get("start", 0.0), attempt["duration"]
    for step in attempt.get("wide", ()):
        if begin <= step["start"] and step["start"] + step["duration"] <= begin + seconds:
            seconds -= step["duration"]
    yield max(0.0, seconds)


def _field(name: str) -> Callable[[Event], Iterator[float]]:
    return lambda attempt: (float(attempt[each]) for each in (name,) if each in attempt)


MEASURES: Mapping[str, Measure] = {
    "time": Measure(_seconds, 1.5, 0.1, is_time=True),
    "memory": Measure(_field("peak_memory"), 1.25, 64 * 2.0**20),
    "GPU memory": Measure(_field("gpu_peak_memory"), 1.25, 256 * 2.0**20),
}


class _Noise(NamedTuple):
    """What is no difference between tests.

    :param shift: logarithm of how many times as much the tests in the middle take.
    :param spread: standard deviation of those logarithms.
    """

    shift: float
    spread: float

    def reverse(self) -> _Noise:
        """The same with old and new exchanged."""
        return _Noise(-self.shift, self.spread)


def _logarithms(name: str, old: Side, new: Side) -> list[float]:
    """By how much each test grew, as logarithms; of tests that take enough to tell."""
    least = MEASURES[name].least
    found = []
    for test in old.keys() & new.keys():
        before, after = (each[test].figures.get(name) for each in (old, new))
        if before and after and min(median(before), median(after)) > least / 10:
            found.append(math.log(median(after)) - math.log(median(before)))
    return found


def _noise(name: str, old: Side, new: Side) -> _Noise:
    found = _logarithms(name, old, new)
    if len(found) < _ENOUGH:
        return _Noise(0.0, 0.0)
    shift = median(found)
    return _Noise(shift, 1.4826 * median(abs(each - shift) for each in found))


def _overall(old: Side, new: Side) -> dict[str, float]:
    factors = {name: math.exp(_noise(name, old, new).shift) for name in MEASURES}
    return {name: round(factor, 3) for name, factor in factors.items() if factor != 1.0}


def _growths(name: str, old: Side, new: Side, noise: _Noise) -> Iterator[Growth]:
    """The tests that take more than before: the stated rule, see docs/ci/compare.md."""
    measure = MEASURES[name]
    ratio = max(math.log(measure.factor), _SPREADS * noise.spread)
    # Half of the shift on each side, so that it is the same rule both ways.
    half = math.exp(noise.shift / 2)
    for test in sorted(old.keys() & new.keys()):
        before, after = (each[test].figures.get(name) for each in (old, new))
        if not before or not after or min(after) <= max(before):
            continue
        small, large = median(before), median(after)
        grown = math.log(large) - math.log(small) - noise.shift if small > 0 else math.inf
        if grown > ratio and large / half - small * half > measure.least:
            yield Growth(test, name, small, large)
