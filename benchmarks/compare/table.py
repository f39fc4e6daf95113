"""Medians as Markdown tables, and the ratios that the project sets bars for."""

from __future__ import annotations

import statistics
from typing import Iterator, Mapping, Sequence

from .contenders import CONTENDERS, PLAIN, PLAIN_84, RAW, Contender
from .measures import FIGURES, Measured
from .suites import Suite

Rounds = Mapping[str, Sequence[Measured]]
"""By contender, what each round gave."""

_DIGITS = {
    "per test": 2,
    "controller": 2,
    "start-up": 2,
    "memory": 0,
    "below": 0,
    "crash": 1,
    "makespan": 3,
}


def table(suite: Suite, tests: int, rounds: Rounds) -> Iterator[str]:
    """Lines of the table of a suite.

    :param tests: how many the largest run had.
    """
    names = [name for name in FIGURES if any(name in each for of in rounds.values() for each in of)]
    heads = []
    for name in names:
        heads.append(FIGURES[name].column)
        if name == "per test":
            heads += ["least", "most", "beyond plain"]
    yield f"| {tests} tests {suite.text} | {' | '.join(heads)} |"
    yield "|---" * (1 + len(heads)) + "|"
    for contender in CONTENDERS:
        if contender.name in rounds:
            yield f"| {contender.name} | {' | '.join(_cells(contender, names, rounds))} |"


def _cells(contender: Contender, names: Sequence[str], rounds: Rounds) -> Iterator[str]:
    for name in names:
        values = [each[name] for each in rounds[contender.name] if name in each]
        yield _text(name, statistics.median(values) if values else None)
        if name == "per test":
            yield _text(name, min(values, default=None))
            yield _text(name, max(values, default=None))
            yield _text(name, _beyond(contender, rounds))


def _text(name: str, value: float | None) -> str:
    return "" if value is None else f"{value:.{_DIGITS[name]}f}"


def median(rounds: Rounds, contender: str, figure: str) -> float | None:
    """Of all rounds; None if it was not measured."""
    values = [each[figure] for each in rounds.get(contender, ()) if figure in each]
    return statistics.median(values) if values else None


def _beyond(contender: Contender, rounds: Rounds) -> float | None:
    own = median(rounds, contender.name, "per test")
    plain = median(rounds, contender.plain, "per test")
    return None if own is None or plain is None else own - plain


# Title; figure; what is divided: a contender, less another one or ""; by what, the same.
_RATIOS = (
    ("isolation adds, in forked's", "per test", "fkit -n1", "xdist -n1", "forked", PLAIN_84),
    ("the same at -n0", "per test", "fkit -n0", PLAIN, "forked", PLAIN_84),
    ("a test at -n0, in fork + wait of the process", "per test", "fkit -n0", "", RAW, ""),
    ("session isolation, in xdist's, -n1", "per test", "fkit -n1, session", "", "xdist -n1", ""),
    ("session isolation, in xdist's, -n2", "per test", "fkit -n2, session", "", "xdist -n2", ""),
    ("memory of worker and below, in an xdist worker's", "below", "fkit -n1", "", "xdist -n1", ""),
)  # fmt: skip


def ratios(rounds: Rounds) -> Iterator[str]:
    """Lines: those of which everything was measured."""
    for title, figure, *names in _RATIOS:
        values = [median(rounds, name, figure) if name else 0.0 for name in names]
        if None not in values:
            one, less, other, others_less = (value or 0.0 for value in values)
            if other > others_less:
                yield f"{title}: {(one - less) / (other - others_less):.2f}"
