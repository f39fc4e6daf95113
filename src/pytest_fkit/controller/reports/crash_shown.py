"""The report on a crash as an object that pytest shows: reads sources, writes to the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Sequence

from ...compat import pytest_reports
from ...own import own_builtins
from ...protocol.crash_report import CrashReport
from ...protocol.event_file import add_facts, facts_of
from ...protocol.stacks import Frame
from ...system.paths import below, joined, relative
from ...system.source_lines import Excerpt, Sources, showable
from .crash_view import FrameLocation, Part, Source, parts_of

if TYPE_CHECKING:
    import pytest

own_builtins(globals())


class ShownCrash:
    """Takes the place of a report's ``longrepr``.

    On the terminal it is as long as ``--tb``, ``-v`` and ``--full-trace`` say; as text, which JUnit
    files have, it is whole.

    :param longrepr: what pytest made of the report, from which plugins take the rest.
    """

    def __init__(self, longrepr: Any, brief: Sequence[Part], whole: Sequence[Part]) -> None:
        self._longrepr = longrepr
        self._brief = brief
        self._whole = whole

    def __getattr__(self, name: str) -> Any:
        if name == "_longrepr":  # not there yet: the object is being copied
            raise AttributeError(name)
        return getattr(self._longrepr, name)

    def toterminal(self, tw: Any) -> None:
        for part in self._brief:
            _write(part, tw)

    def __str__(self) -> str:
        return "\n".join(map(_text, self._whole))

    # xdist counts errors of collection by their text.

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShownCrash) and str(other) == str(self)

    def __hash__(self) -> int:
        return hash(str(self))


def show_crash(config: pytest.Config, report: Any, began: float) -> None:
    """Put a :class:`ShownCrash` into the report on one, unless a plugin has changed what it says.

    :param began: when the run did, in seconds since the epoch.
    """
    data, longrepr = facts_of(report).crash, report.longrepr
    if not data or longrepr is None or isinstance(longrepr, tuple):
        return
    add_facts(vars(report), crash=())
    try:
        crash = CrashReport.from_wire(data)
    except (TypeError, ValueError):  # a plugin has changed it
        return
    if str(longrepr).rstrip("\n") != crash.text.rstrip("\n"):
        return
    place: Any = getattr(longrepr, "reprcrash", None)
    headline = crash.what
    if hasattr(place, "path"):
        headline = f"{place.path}:{place.lineno}: {place.message}"
    style = config.getoption("tbstyle", "auto")
    full = bool(config.getoption("fulltrace", False)) or config.getoption("verbose", 0) > 1
    read = _Reader(config, crash, began)
    brief = parts_of(crash, headline, style, full, read)
    whole = parts_of(crash, headline, "long", True, read)
    placed = [[read.placed(part) for part in parts] for parts in (brief, whole)]
    report.longrepr = ShownCrash(longrepr, *placed)


def text_lines(config: pytest.Config, crash: CrashReport, began: float) -> list[str]:
    """The same in pytest's style "short", as lines of text."""
    read = _Reader(config, crash, began)
    parts = parts_of(crash, "", "short", False, read)
    return "\n".join(_text(read.placed(part)) for part in parts).splitlines()


class _Reader:
    """Reads sources, and says where they are.

    :param began: when the run did, in seconds since the epoch.
    """

    def __init__(self, config: pytest.Config, crash: CrashReport, began: float) -> None:
        self._there = crash.origins.rootdir
        self._rootdir = str(config.rootpath)
        self._directory = str(config.invocation_params.dir)
        self._began = began
        self._sources = Sources()
        self._changed: set[str] = set()

    def __call__(self, frame: Frame, around: int) -> Excerpt:
        path = self._path(frame.path)
        excerpt = self._sources.around(path, frame.line, around)
        # What lies elsewhere may have been written by the test.
        if excerpt.changed > self._began and below(path, self._rootdir) is not None:
            self._changed.add(path)
        return excerpt

    def _path(self, path: str) -> str:
        """The path on this machine: a worker on another one has a root directory of its own."""
        if path.startswith("<"):
            return path
        path = joined(self._there, path)
        inside = below(path, self._there)
        return path if inside is None else joined(self._rootdir, inside)

    def placed(self, part: Part) -> Part:
        """With the path as pytest writes it: the shorter one of its two forms."""
        if not isinstance(part, FrameLocation) or part.path.startswith("<"):
            return part
        path = self._path(part.path)
        text = part.text
        if path in self._changed:
            text += " (the file was changed after this run began)"
        shorter = min(path, relative(path, self._directory), key=len)
        return part._replace(path=showable(shorter), text=text)


def _write(part: Part, tw: Any) -> None:
    if isinstance(part, Source):
        pytest_reports.write_source(tw, part.lines, part.indents)
    elif isinstance(part, FrameLocation):
        tw.write(part.path, bold=True, red=True)
        tw.line(f":{part.line or '?'}: {part.text}")
    elif part.red:
        tw.line(part.text, bold=True, red=True)
    else:
        tw.line(part.text)


def _text(part: Part) -> str:
    if isinstance(part, Source):
        return "\n".join(map("".join, zip(part.indents, part.lines)))
    if isinstance(part, FrameLocation):
        return f"{part.path}:{part.line or '?'}: {part.text}"
    return part.text
