"""The data of the report as texts that fit between two tags: JSON, compressed, in base64.

The *index* is what lists, filters and the timeline need, in columns. *Chunks* have the details of
neighbouring tests; the page unpacks one when somebody opens a test in it.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Iterable, Iterator, Sequence

from ...named_tuple import NamedTuple
from ...own import own_builtins, zlib
from .content import OUTCOMES, ReportContent, ReportedTest
from .timeline import GpuMemoryLine

own_builtins(globals())

SIZE_LIMIT = 38_000_000
"""Most characters of packed data: with the rest the file stays below 40 MB."""

_CHUNK = 400_000
"""Characters of JSON in a chunk; unpacking it takes some milliseconds."""

# ASCII only: lone surrogates are escaped, and a compressed byte is a character of it.
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=str).encode


class Packed(NamedTuple):
    """What goes into the file.

    :param lists: the index, packed.
    :param left_out: how many tests have no details, since they would not fit.
    """

    lists: str
    chunks: tuple[str, ...]
    left_out: int


def packed(content: ReportContent, limit: int = SIZE_LIMIT) -> Packed:
    """The data of a report.

    :param limit: characters, above which details of the last tests, which passed, are left out.
    """
    index = _index(content)
    head = _encode(index)
    # Compressed, it is smaller: it is packed only if that decides.
    room, is_known = limit - len(head), False
    chunks: list[str] = []
    firsts: list[int] = []
    told = 0
    for first, texts in _chunked(content.details()):
        chunk = pack(f"[{','.join(texts)}]")
        room -= len(chunk) + 100  # and its tag
        if room < 0 and not is_known:
            room, is_known = room + len(head) - len(pack(head)), True
        if room < 0:
            break
        chunks.append(chunk)
        firsts.append(first)
        told = first + len(texts)
    rest = _encode({"chunks": firsts, "told": told})
    return Packed(pack(f"{head[:-1]},{rest[1:]}"), tuple(chunks), len(content.tests) - told)


def pack(text: str) -> str:
    """Compressed (RFC 1950), in base64."""
    return base64.b64encode(zlib.compress(text.encode("ascii"), 6)).decode("ascii")


def _chunked(details: Iterable[Any]) -> Iterator[tuple[int, list[str]]]:
    """Texts of tests, with the number of the first."""
    first, texts, size = 0, [], 0
    for number, each in enumerate(details):
        text = _encode(each)
        texts.append(text)
        size += len(text)
        if size >= _CHUNK:
            yield first, texts
            first, texts, size = number + 1, [], 0
    if texts:
        yield first, texts


def _index(content: ReportContent) -> dict[str, Any]:
    timeline = content.timeline
    others = sorted({test.outcome for test in content.tests} - set(OUTCOMES))
    outcomes = {name: number for number, name in enumerate((*OUTCOMES, *others))}
    numbers = {(test.session, test.nodeid): at for at, test in enumerate(content.tests)}
    moments = _Moments()
    attempts, counted = _attempts(content.tests, outcomes)
    lanes = content.lane_names()
    return {
        "sessions": [
            {"end": _ms(end), "runs": [[_ms(at), round(wall * 1000)] for at, wall in starts]}
            for end, starts in zip(timeline.ends, timeline.starts)
        ],
        "lanes": [
            {"session": lane.session, "worker": lane.worker, "gpus": lane.gpus, "name": name}
            for lane, name in zip(timeline.lanes, lanes)
        ],
        "outcomes": list(outcomes),
        "causes": [cause.title for cause in content.causes],
        "tests": _tests(content.tests, outcomes, counted),
        "attempts": attempts,
        "wide": _columns(
            ("lane", "start", "duration", "label"),
            ((each.lane, _ms(each.start), _ms(each.duration), each.label)
             for each in timeline.wide),
        ),
        "marks": _columns(
            ("session", "lane", "at", "kind", "text", "test"),
            (
                (each.session, each.lane, _ms(each.at), each.kind, each.text,
                 numbers.get((each.session, each.nodeid), -1))
                for each in timeline.marks
            ),
        ),
        "gpus": [
            {
                "session": each.session,
                "gpu": each.gpu,
                "at": moments.number(each),
                "memory": [round(value / 2**20) for _, value in each.samples],
            }
            for each in timeline.memory
        ],
        "moments": moments.lists,
    }  # fmt: skip


def _columns(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> dict[str, list[Any]]:
    columns: list[list[Any]] = [list(column) for column in zip(*rows)]
    return dict(zip(names, columns or [[] for _ in names]))


_TEST = (
    "name", "session", "outcome", "lane", "start", "duration", "cpu", "memory", "gpuMemory",
    "attempts", "cause", "message",
)  # fmt: skip


def _tests(
    tests: Sequence[ReportedTest], outcomes: dict[str, int], counted: Sequence[Sequence[Any]]
) -> dict[str, list[Any]]:
    rows = zip(tests, counted)
    return _columns(_TEST, (_test(test, outcomes[test.outcome], row) for test, row in rows))


def _test(test: ReportedTest, outcome: int, row: Sequence[Any]) -> tuple[Any, ...]:
    """The row of a test; -1 stands for what is not known.

    :param row: of the attempt that counts, as :func:`_attempt` makes it.
    """
    attempt = test.counted
    gpu_peak = None if attempt is None else attempt.attempt.event.get("gpu_peak_memory")
    _, lane, start, duration, *_, cpu, memory = row
    return (
        test.name, test.session, outcome, lane, start, duration, cpu, memory, _mib(gpu_peak),
        test.number, test.cause, test.message,
    )  # fmt: skip


def _cpu(event: dict[str, Any]) -> float:
    return _ms(event["user"] + event.get("system", 0.0)) if "user" in event else -1


def _mib(size: Any) -> float:
    return round(size / 2**20, 1) if isinstance(size, (int, float)) else -1


_NO_ATTEMPT = (-1,) * 9
_ATTEMPT = ("test", "lane", "start", "duration", "setup", "teardown", "outcome", "cpu", "memory")


def _attempts(
    tests: Sequence[ReportedTest], outcomes: dict[str, int]
) -> tuple[dict[str, list[Any]], list[tuple[Any, ...]]]:
    """All attempts, and the row of each test's that counts."""
    rows: list[tuple[Any, ...]] = []
    counted = []
    for at, test in enumerate(tests):
        first = len(rows)
        rows += (_attempt(at, test, number, outcomes) for number in range(len(test.attempts)))
        counted.append(rows[first + test.attempt] if test.attempt >= 0 else _NO_ATTEMPT)
    rows.sort(key=lambda row: (row[1], row[2]))
    return _columns(_ATTEMPT, rows), counted


def _attempt(at: int, test: ReportedTest, number: int, outcomes: dict[str, int]) -> tuple[Any, ...]:
    """`outcome` is -1 of an attempt that gave no verdict; a repetition has one of its own."""
    attempt, lane, start, duration = test.attempts[number]
    event = attempt.event
    phases = {each["when"]: each["duration"] for each in event.get("phases", ())}
    said = test.outcome if number == test.attempt else ""
    outcome = outcomes.get(attempt.repetition.get("outcome", said), -1)
    return (
        at, lane, _ms(start), _ms(duration),
        _ms(phases.get("setup", 0.0)), _ms(phases.get("teardown", 0.0)),
        outcome, _cpu(event), _mib(event.get("peak_memory")),
    )  # fmt: skip


class _Moments:
    """When samples were taken, as lists of milliseconds: most GPUs have one in common."""

    def __init__(self) -> None:
        self.lists: list[list[float]] = []
        self._numbers: dict[tuple[float, ...], int] = {}

    def number(self, line: GpuMemoryLine) -> int:
        """The number of a GPU's list."""
        moments = tuple(at for at, _ in line.samples)
        if moments not in self._numbers:
            self._numbers[moments] = len(self.lists)
            self.lists.append([_ms(at) for at in moments])
        return self._numbers[moments]


def _ms(seconds: float) -> float:
    milliseconds = round(seconds * 1000, 1)
    return int(milliseconds) if milliseconds == int(milliseconds) else milliseconds
