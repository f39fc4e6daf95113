"""The outcomes of a suite's runs, and which of their differences are fkit's own."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

_BY_WEIGHT = ["passed", "skipped", "xpassed", "xfailed", "failed"]
_STATUS = "exit status"
_MISSING = "missing"


@dataclass(frozen=True)
class Result:
    """What one run of a suite gave.

    :param status: the exit status; that of a run that was ended after its limit is -1.
    :param outcomes: by node id ``phase:outcome``, in the order in which they were reported.
    :param errors: by node id the first line of its error.
    """

    status: int
    outcomes: dict[str, list[str]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def counts(self) -> str:
        """How many tests have which outcome, the worst of a test's phases."""
        counts = Counter(
            max((phase.partition(":")[2] for phase in phases), key=_BY_WEIGHT.index)
            for phases in self.outcomes.values()
        )
        return ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))


@dataclass(frozen=True)
class Plain:
    """Two runs with plain pytest: what they have in common is what other runs are compared with."""

    once: Result
    again: Result

    def unstable(self) -> list[str]:
        """The tests whose two outcomes differ."""
        return sorted(
            nodeid
            for nodeid in {*self.once.outcomes, *self.again.outcomes}
            if self.once.outcomes.get(nodeid) != self.again.outcomes.get(nodeid)
        )


@dataclass(frozen=True)
class Difference:
    """What a run says of something that plain pytest says otherwise.

    :param what: a node id, or "exit status".
    :param expected: what plain pytest says.
    :param got: what the run says.
    :param error: the first line of an error, where there is one.
    """

    what: str
    expected: str
    got: str
    error: str = ""

    def __str__(self) -> str:
        return f"{self.what}\n    {self.expected} -> {self.got}   {self.error}"


def differences(plain: Plain, other: Result) -> list[Difference]:
    """What `other` has that two plain runs have otherwise; unstable tests are left out."""
    before, again, after = _facts(plain.once), _facts(plain.again), _facts(other)
    found = []
    for what in [_STATUS, *sorted({*before, *after} - {_STATUS})]:
        expected, got = before.get(what, _MISSING), after.get(what, _MISSING)
        if expected == again.get(what, _MISSING) and expected != got:
            error = other.errors.get(what) or plain.once.errors.get(what, "")
            found.append(Difference(what, expected, got, error))
    return found


def _facts(result: Result) -> dict[str, str]:
    """What is compared, by its name."""
    outcomes = {nodeid: " ".join(phases) for nodeid, phases in result.outcomes.items()}
    return {_STATUS: str(result.status), **outcomes}


@dataclass(frozen=True)
class Comparison:
    """A run under fkit beside plain pytest and xdist alone.

    :param own: what differs from plain pytest and from xdist.
    :param as_xdist: what differs from plain pytest as xdist does.
    :param as_plain: what is as in plain pytest, though xdist differs.
    """

    own: list[Difference]
    as_xdist: list[Difference]
    as_plain: list[Difference]

    def __str__(self) -> str:
        parts = [f"{len(self.own)} differ" if self.own else "equal"]
        if self.as_xdist or self.as_plain:
            number = len(self.as_xdist) + len(self.as_plain)
            parts.append(
                f"xdist alone differs in {number}: here {len(self.as_xdist)} as there, "
                f"{len(self.as_plain)} as plain"
            )
        return "; ".join(parts)


def compare(plain: Plain, xdist: Result, other: Result) -> Comparison:
    """Tell what differs under fkit from what is xdist's own."""
    in_xdist = {difference.what: difference for difference in differences(plain, xdist)}
    own: list[Difference] = []
    as_xdist: list[Difference] = []
    for difference in differences(plain, other):
        its = in_xdist.pop(difference.what, None)
        (as_xdist if its is not None and its.got == difference.got else own).append(difference)
    seen = {difference.what for difference in own}
    as_plain = [its for what, its in in_xdist.items() if what not in seen]
    return Comparison(own, as_xdist, as_plain)
