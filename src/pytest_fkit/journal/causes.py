"""What failures have in common: a signature that other numbers, addresses and paths don't change.

``cause_of(test)`` is the cause of one test that is red, and ``grouped(met(tests))``
are the causes of many, the most frequent first.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Iterable, Iterator, Sequence

from ..named_tuple import NamedTuple
from ..own import own_builtins
from ..protocol.crash_report import PROBABLY

if TYPE_CHECKING:
    from .attempts import KeptReport
    from .history import TestHistory

own_builtins(globals())

LONGEST = 200
"""Characters of a message that tell causes apart."""

_LONGEST_LINE = 1000
"""Characters that are looked at: a message may be as long as an array."""


class Cause(NamedTuple):
    """Equal for failures that probably have one reason, on any machine and at any line.

    :param kind: how the process ended ("SIGSEGV", "exit status 3"), or the exception's class;
        "" if neither is known.
    :param message: its first line with placeholders as "<n>" and "<path>", "" if there is none.
    :param frame: the innermost frame of the user's own code, as in "src/a.py in load", "" if the
        report shows none.
    """

    kind: str
    message: str
    frame: str

    @property
    def title(self) -> str:
        what = ": ".join(filter(None, (self.kind, self.message))) or "no reason given"
        return f"{what} at {self.frame}" if self.frame else what


class Met(NamedTuple):
    """A test that met a cause, where it has its verdict from.

    :param gpus: ids of the worker's GPUs.
    """

    nodeid: str
    cause: Cause
    worker: str = ""
    gpus: Sequence[str] = ()


class Group(NamedTuple):
    """The tests that met one cause, in their order."""

    cause: Cause
    tests: Sequence[Met]

    @property
    def workers(self) -> list[str]:
        return _in_order(each.worker for each in self.tests if each.worker)

    @property
    def gpus(self) -> list[str]:
        return _in_order(gpu for each in self.tests for gpu in each.gpus)


def _in_order(names: Iterable[str]) -> list[str]:
    return sorted(set(names), key=lambda name: (len(name), name))  # gw9 before gw10


LOST = Cause("no report", "the test's call was not reported", "")
"""The cause of a test that is an error because a report on it was lost."""


def cause(reports: Sequence[KeptReport]) -> Cause | None:
    """What went wrong with a test, by the reports of its verdict; None if no report failed.

    A failure that is quarantined has a cause, too.
    """
    failed = next(
        (each for each in reports if each.get("outcome") == "failed" or "fkit_quarantined" in each),
        None,
    )
    return None if failed is None else _cause(failed)


def cause_of(test: TestHistory) -> Cause:
    """What went wrong with a test that is red."""
    return cause(test.verdict.get("reports", ())) or LOST


def met(tests: Iterable[TestHistory]) -> Iterator[Met]:
    """The failed tests and errors among these, with their causes."""
    for test in tests:
        if test.went_wrong:
            worker = str(test.verdict.get("worker", ""))
            yield Met(test.nodeid, cause_of(test), worker, tuple(test.attempt.get("gpus", ())))


def grouped(tests: Iterable[Met]) -> list[Group]:
    """Causes with their tests: the most frequent first, of equal ones that which was met first."""
    groups: dict[Cause, list[Met]] = {}
    for each in tests:
        groups.setdefault(each.cause, []).append(each)
    return sorted((Group(*each) for each in groups.items()), key=lambda group: -len(group.tests))


def _cause(report: KeptReport) -> Cause:
    death = str(report.get("fkit_death", ""))
    if death:
        return _of_death(death)
    text = str(report.get("text", ""))
    said = str(report.get("message", "")) or _said(text)
    again = _AGAIN.match(said)
    if again is not None:
        return _of_death(again[1])
    kind, message = _kind(said)
    return Cause(kind or _last_class(text), masked(message), _own_frame(text))


# --- deaths ---

_HEADLINE = re.compile(r"(.*) at (.+):\d+(?: in (\S+))?$", re.DOTALL)
_STATUS = re.compile(r"exit status \d+")

# Of a test that needs a wide fixture in whose setup the process died for another test.
_AGAIN = re.compile(r"Failed: .*? was not set up again: (.+)")


def _of_death(headline: str) -> Cause:
    found = _HEADLINE.match(headline)
    what, frame = headline, ""
    if found is not None:
        what, frame = found[1], _frame(found[2], found[3] or "")
    what = what.replace(PROBABLY, " ", 1)
    status = _STATUS.match(what)
    if status is not None:  # a number that tells one cause from another
        return Cause(status[0], masked(what[status.end() :].lstrip(": ")), frame)
    title, _, reason = what.partition(": ")
    return Cause(masked(title), masked(reason), frame)


# --- exceptions ---

_CLASS = re.compile(r"([^\W\d][\w.]*)(?:: |:?$)")
_SAID = re.compile(r"^E +(\S.*)$", re.MULTILINE)


def _kind(message: str) -> tuple[str, str]:
    """An exception's class and the first line of its message that is not empty."""
    if message.startswith("assert "):  # pytest leaves the class away
        return "AssertionError", message
    first, _, rest = message.partition("\n")
    found = _CLASS.match(first)
    if found is None:
        return "", message
    return found[1], f"{first[found.end() :]}\n{rest}"


def _said(text: str) -> str:
    """For a report without a message: the lines that pytest marks with an E, or the first."""
    found = _SAID.search(text)
    # No class stands before it.
    return f"\n{text if found is None else found[1]}"


# --- frames ---

# In pytest's long and short styles, and in the native one, with the lines of exception groups.
_ENTRY = re.compile(
    r"^(?![E>] )(?P<path>[^\s:'\"][^:'\"\n]*):\d+: ?(?:in (?P<name>[^\n]+)|(?P<class>[\w.]*))$"
    r'|^[ |+-]*File "(?P<native>[^"\n]+)", line \d+,? in (?P<native_name>[^\n]+)$',
    re.MULTILINE,
)
_DEFINED = re.compile(r"^[> ] *(?:async +)?def +(\w+)", re.MULTILINE)
_SEPARATOR = re.compile(r"^_ (?:_ ){10,}|^=+$|^During handling|^The above exc", re.MULTILINE)
_LIBRARY = re.compile(r"(?:^|/)lib(?:64)?/(?:python|pypy)\d[\w.]*/(?!(?:site|dist)-packages/)")
_INSTALLED = re.compile(r".*(?:^|/)(?:site|dist)-packages/", re.DOTALL)


def _own_frame(text: str) -> str:
    """The innermost frame that is not of an installed package, or else that of one."""
    installed = ""
    for found in reversed(list(_ENTRY.finditer(text))):
        path = found["path"] or found["native"]
        if path.startswith("<") or _LIBRARY.search(path):
            continue
        inside = _INSTALLED.match(path)
        if inside is None:
            return _frame(path, _name(text, found))
        installed = installed or _frame(path[inside.end() :], _name(text, found))
    return installed


def _name(text: str, entry: re.Match[str]) -> str:
    name = entry["name"] or entry["native_name"]
    if name is None:  # in the long style its source stands before
        ends = [each.end() for each in _SEPARATOR.finditer(text, 0, entry.start())]
        before = [each.end() for each in _ENTRY.finditer(text, 0, entry.start())]
        source = max([0, *ends[-1:], *before[-1:]])
        defined = _DEFINED.search(text, source, entry.start())
        if defined is None and source == 0:
            # Of the first line a report loses the indentation.
            defined = re.match(r"\s*(?:async +)?def +(\w+)", text)
        name = "" if defined is None else defined[1]
    return name


def _last_class(text: str) -> str:
    """The class with which the last frame of a report ends, "" if it shows none."""
    found = list(_ENTRY.finditer(text))
    return (found[-1]["class"] or "") if found else ""


def _frame(path: str, name: str) -> str:
    if path.startswith(("/", "..")):  # machines have different directories
        path = "/".join(path.split("/")[-3:])
    shown = _shown(path)
    return f"{shown} in {_shown(name)}" if name else shown


# --- messages ---

_VARYING = re.compile(
    r"""
      (?P<kept><(?:n|id|path|size|address|time)>)
    | (?P<address>\b0x[0-9a-f]+)
    | (?P<id>\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b)
    | (?P<path>
          \b[a-z][a-z0-9+.-]{0,20}://[^\s'"<>]+
        | (?<![\w<./])(?:~|\.{1,2})?/[\w.@+-][^\s'"<>:,;()\[\]{}]*
        | \b[a-z_][\w.+-]*/(?:[\w.+-]+/)*[\w.+-]*\.[a-z]\w{0,7}\b
      )
    | (?P<time>
          \b\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?)?(?:Z|[+-]\d\d:?\d\d)?(?!\w)
        | (?<![\w.:])\d\d?:\d\d:\d\d(?:[.,]\d+)?(?![\w:])
      )
    | (?P<place>\b(?:gw|rank|gpu)\d+\b)
    | (?P<hex>\b(?=[a-f]*[0-9])(?=[0-9]*[a-f])[0-9a-f]{7,}\b)
    | (?P<took>(?<![\w.])(?:\d+(?:\.\d+)?(?:h|min|ms|m|s)){2,}\b)
    | (?P<size>(?<![\w.])\d+(?:\.\d+)?[ ]?[kmgt]?i?b(?:ytes)?\b)
    | (?P<ending>(?<=[a-z_])\d{5,})
    | (?P<n>(?<!\w)[-+]?(?:\d+(?:\.\d+)*\.?|\.\d+)(?:e[-+]?\d+)?(?:x\d+)*)
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
_INSTEAD = {"hex": "<id>", "place": "<id>", "took": "<n>", "ending": "<n>"}
_SEVERAL = re.compile(r"<n>(?:[, ]+<n>)+")


def masked(message: str) -> str:
    """The first line of a message, without what differs between failures of one cause."""
    line = next(filter(str.strip, message.split("\n")), "")[:_LONGEST_LINE]
    text = _VARYING.sub(_placeholder, _shown(" ".join(line.split())))
    text = _SEVERAL.sub("<n>, …", text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _placeholder(found: re.Match[str]) -> str:
    name = str(found.lastgroup)
    return found[0] if name == "kept" else _INSTEAD.get(name, f"<{name}>")


def _shown(text: str) -> str:
    """Without what would do something to a terminal."""
    return "".join(each if each.isprintable() else "?" for each in text)
