"""Captured output in reports: joined, shortened where it is very long, searched for sanitizers."""

from __future__ import annotations

from typing import Any, Iterable, Iterator

from ... import system
from ...compat.sound_reports import sound_sections
from ...own import os, own_builtins, own_imports
from ...protocol.endings import format_size
from ...protocol.event_file import add_facts
from ...protocol.plain_values import carriable

own_builtins(globals())

END = 16 << 20
"""Bytes, or characters, of each end of a stream that are kept: about 200,000 lines."""

_CHUNK = 1 << 20
_LINE = 1 << 12
"""Bytes that are searched for the end of a line, so that no line is cut."""


def _omission(left_out: int) -> str:
    return f"\n… {format_size(left_out)} of output left out here …\n"


def shortened(text: str) -> str:
    """The text, or its two ends if that is shorter."""
    if len(text) <= 2 * END + _LINE:
        return text
    return f"{text[:END]}{_omission(len(text) - 2 * END)}{text[-END:]}"


def read_ends(descriptor: int, offset: int = 0) -> bytes:
    """Read a file from `offset` to its end, without the middle if that is very long."""
    return b"".join(chunks(descriptor, offset, os.fstat(descriptor).st_size))


def is_long(descriptor: int) -> bool:
    """Whether :func:`read_ends` leaves something out."""
    return os.fstat(descriptor).st_size > 2 * END


def chunks(descriptor: int, begin: int, end: int) -> Iterator[bytes]:
    """Read a file from `begin` to `end` in pieces, without the middle if that is very long."""
    if end - begin <= 2 * END:
        yield from _read(descriptor, begin, end)
        return
    first, last = _line_ends(descriptor, begin + END, end - END)
    yield from _read(descriptor, begin, first)
    yield _omission(last - first).encode()
    yield from _read(descriptor, last, end)


def _line_ends(descriptor: int, first: int, last: int) -> tuple[int, int]:
    """Move both cuts outwards to the ends of lines, if there are any nearby.

    Outwards, since what lies between `first` and `last` may be freed by now.
    """
    before = os.pread(descriptor, _LINE, first - _LINE)
    after = os.pread(descriptor, _LINE, last)
    cut = before.rfind(b"\n") + 1
    return (first - len(before) + cut if cut else first), last + after.find(b"\n") + 1


def _read(descriptor: int, begin: int, end: int) -> Iterator[bytes]:
    while begin < end:
        data = os.pread(descriptor, min(_CHUNK, end - begin), begin)
        if not data:  # truncated meanwhile
            return
        begin += len(data)
        yield data


def free_middle(descriptor: int) -> None:
    """Free the memory of what :func:`read_ends` will not read; the file may still grow.

    The size of the file stays the same, so that :func:`read_ends` can say how much is left out.
    """
    size = os.fstat(descriptor).st_size
    if size > 2 * END:
        system.free_range(descriptor, END, size - END)


def free_until(descriptor: int, end: int) -> None:
    """Free the memory of a file's content up to `end`, which has been read."""
    if end > END:
        system.free_range(descriptor, 0, end)


def merged(sections: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Join captured sections of the same name.

    The user sees the host's part of a phase and the child's as one, as in plain pytest.
    """
    joined: dict[tuple[str, int], str] = {}
    for number, (name, content) in enumerate(sections, 1):
        captured = name.startswith("Captured ")
        key = (name, 0 if captured else number)
        before = joined.get(key)
        # pytest strips the log.
        newline = "\n" if before and name.startswith("Captured log") else ""
        joined[key] = (before or "") + newline + content
        log = (f"Captured log {name.rpartition(' ')[2]}", 0)
        if captured and before is None and key != log and log in joined:
            joined[log] = joined.pop(log)  # the log comes after the output, as in plain pytest
    return [(name, content) for (name, _), content in joined.items()]


_WORDS = ("Sanitizer: ", ": runtime error: ", "\n==")


def look_for_sanitizers(report: Any, fails: bool) -> None:
    """Name what sanitizers have said in the phase, on descriptor 2 as pytest captured it.

    :param fails: whether a phase fails by that which passed.
    """
    sections = sound_sections(report.sections)
    title = f"Captured stderr {report.when}"
    text = "\n".join(["", *(content for name, content in sections if name == title)])
    if not any(word in text for word in _WORDS):
        return
    try:
        with own_imports():
            from ...system.diagnostics import sanitizer_reports
    except Exception:  # noqa: BLE001 (the test has changed how modules are imported)
        return
    found = sanitizer_reports(text, os.getpid())
    if not found:
        return
    add_facts(vars(report), sanitizers=carriable(tuple(found)))
    if fails and report.outcome == "passed" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = (
            f"{'; '.join(found)}, said a sanitizer, see the captured stderr "
            "(ini value fkit_sanitizer_reports = fail)"
        )
