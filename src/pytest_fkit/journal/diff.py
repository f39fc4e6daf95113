"""The command ``fkit diff``: a comparison as text, values and Markdown."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Sequence

from ..protocol.endings import count, format_size
from ..system.markdown import code, table
from .comparison import Change, Comparison, Growth, Side, State, compare, side
from .history import history
from .subcommand import Answer, Make, as_json, events_of, text

_CHANGES = {
    "new": ("new failure", "new failures"),
    "changed": ("failure with another cause", "failures with another cause"),
    "fixed": ("fixed", "fixed"),
    "excused": ("not counted any more", "not counted any more"),
    "flaky": ("passed only on a retry", "passed only on a retry"),
    "steady": ("passed on the first attempt again", "passed on the first attempt again"),
    "missing": ("without a verdict now", "without a verdict now"),
    "completed": ("with a verdict now", "with a verdict now"),
    "gone": ("gone", "gone"),
    "added": ("added", "added"),
}
_GROWTHS = ("slower", "faster", "heavier", "lighter")

_SHOWN = 50
"""Rows of a table of Markdown: a comment on a pull request has a limit."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pair", metavar="OLD NEW", nargs="*", type=Path,
                        help="two journals; - is standard input")  # fmt: skip
    for name in ("old", "new"):
        parser.add_argument(
            f"--{name}", metavar="JOURNAL", nargs="+", type=Path, default=[],
            help="several journals instead of one",
        )  # fmt: skip
    parser.set_defaults(error=parser.error)


def made(show: Callable[[Comparison, Side, Side], Iterable[bytes]]) -> Make:
    """An answer whose status is 1 if there are new failures, or failures with another cause."""

    def answer(options: argparse.Namespace) -> Answer:
        old, new = (side(history(events_of(paths))) for paths in _sets(options))
        found = compare(old, new)
        return Answer(show(found, old, new), 1 if found.new or found.changed else 0)

    return answer


def _sets(options: argparse.Namespace) -> tuple[Sequence[Path], Sequence[Path]]:
    if len(options.pair) == 2 and not options.old and not options.new:
        return options.pair[:1], options.pair[1:]
    if options.pair or not options.old or not options.new:
        options.error("give OLD and NEW, or --old JOURNAL... and --new JOURNAL...")
    return options.old, options.new


FORMATS: dict[str, Make] = {
    "text": made(lambda found, old, new: text(lines(found, old, new))),
    "json": made(lambda found, old, new: as_json(values(found, old, new))),
    "md": made(lambda found, old, new: text(markdown(found, old, new))),
}


def lines(found: Comparison, old: Side, new: Side) -> Iterator[str]:
    yield f"old: {_counts(old)}"
    yield f"new: {_counts(new)}"
    for name, titles in _CHANGES.items():
        changes: list[Change] = getattr(found, name)
        yield from _section(_title(len(changes), titles), (_line(name, it) for it in changes))
    for name in _GROWTHS:
        growths: list[Growth] = getattr(found, name)
        rows = (f"{each.test}  {_grown(name, each)}" for each in growths)
        yield from _section(f"{len(growths)} {name} than noise explains", rows)
    yield from _rest(found)


def markdown(found: Comparison, old: Side, new: Side) -> Iterator[str]:
    yield "### Tests: what has changed"
    yield from table("|  | tests |", [("old", _counts(old)), ("new", _counts(new))])
    for name, titles in _CHANGES.items():
        changes: list[Change] = getattr(found, name)
        rows = [(code(it.test), *map(code, _reasons(name, it))) for it in changes[:_SHOWN]]
        yield from table(f"| {_title(len(changes), titles)} | before | now |", rows)
        yield from _cut(len(changes))
    for name in _GROWTHS:
        growths: list[Growth] = getattr(found, name)
        cells = [(code(it.test), _grown(name, it)) for it in growths[:_SHOWN]]
        yield from table(f"| {len(growths)} {name} than noise explains |  |", cells)
        yield from _cut(len(growths))
    for line in _rest(found):
        yield from ("", line)


def values(found: Comparison, old: Side, new: Side) -> dict[str, Any]:
    changes = (*_CHANGES, "still")
    return {
        "outcomes": {"old": _outcomes(old), "new": _outcomes(new)},
        **{name: [_change(each) for each in getattr(found, name)] for name in changes},
        **{name: [_growth(name, each) for each in getattr(found, name)] for name in _GROWTHS},
        "overall": found.overall,
    }


def _change(change: Change) -> dict[str, Any]:
    return {"test": change.test, "old": _state(change.old), "new": _state(change.new)}


def _state(state: State | None) -> dict[str, Any] | None:
    if state is None:
        return None
    found = {"outcome": state.outcome or None, "flaky": state.flaky}
    return found if state.cause is None else {**found, "cause": state.cause.title}


def _growth(name: str, growth: Growth) -> dict[str, Any]:
    old, new = _order(name, growth)
    return {"test": growth.test, "measure": growth.measure, "old": old, "new": new}


def _order(name: str, growth: Growth) -> tuple[float, float]:
    """What it took in the old and in the new journals."""
    grows = name in ("slower", "heavier")
    small, large = round(growth.small, 6), round(growth.large, 6)
    return (small, large) if grows else (large, small)


def _outcomes(tests: Side) -> dict[str, int]:
    return dict(Counter(state.outcome or "no verdict" for state in tests.values()))


def _counts(tests: Side) -> str:
    found = ", ".join(f"{number} {name}" for name, number in sorted(_outcomes(tests).items()))
    return f"{count(len(tests), 'test')}: {found}" if found else "no tests"


def _title(number: int, titles: tuple[str, str]) -> str:
    return f"{number} {titles[number != 1]}"


def _section(title: str, rows: Iterable[str]) -> Iterator[str]:
    shown = list(rows)
    if shown:
        yield f"{title}:"
        yield from (f"  {row}" for row in shown)


def _line(name: str, change: Change) -> str:
    before, now = _reasons(name, change)
    return "  ".join(filter(None, (change.test, " -> ".join(filter(None, (before, now))))))


def _reasons(name: str, change: Change) -> tuple[str, str]:
    """What there is to say of a test before and now; "" for what its list says."""
    old, new = (_reason(state) for state in change[1:])
    if name in ("new", "added", "completed"):
        return "", new if name == "new" or (change.new and change.new.cause) else ""
    if name in ("fixed", "excused"):
        return old, "" if new == "passed" else new
    if name in ("gone", "missing"):
        return old if change.old and change.old.cause else "", ""
    return (old, new) if name == "changed" else ("", "")


def _reason(state: State | None) -> str:
    if state is None:
        return ""
    return state.cause.title if state.cause is not None else state.outcome


def _grown(name: str, growth: Growth) -> str:
    old, new = map(_AS_TEXT[growth.measure], _order(name, growth))
    what = "" if growth.measure == "time" else f"{growth.measure} "
    return f"{what}{old} -> {new}"


_AS_TEXT: dict[str, Callable[[float], str]] = {
    "time": "{:.3f} s".format,
    "memory": format_size,
    "GPU memory": format_size,
}


def _cut(number: int) -> Iterator[str]:
    if number > _SHOWN:
        yield from ("", f"and {number - _SHOWN} more")


def _rest(found: Comparison) -> Iterator[str]:
    if found.is_empty:
        yield "no difference"
    if found.still:
        yield f"{len(found.still)} still failing"
    for measure, factor in found.overall.items():
        if not 1 / _TOLD < factor < _TOLD:
            yield f"a typical test took {factor:.2f} times {_AS_MUCH[measure]} as before"


_AS_MUCH = {"time": "as long", "memory": "as much memory", "GPU memory": "as much GPU memory"}

_TOLD = 1.1
"""How many times as much, by the median of all tests, is worth a line."""
