"""The tests of a journal that went wrong, as pytest takes them on its command line."""

from __future__ import annotations

from ..system.paths import joined, relative
from .events import Event
from .history import History, ungrouped
from .rates import of_events


def failed(history: History) -> list[str]:
    """Node ids, each once, as seen from where the command of the run was given."""
    tests = [(test.nodeid, test.session) for test in history.current() if test.went_wrong]
    # Of a run that was cut off while it repeated them.
    tests += [
        (nodeid, number)
        for number, session in enumerate(history.sessions)
        for nodeid, repetitions in session.repetitions.items()
        if of_events(repetitions.values()).failed
    ]
    runs = [session.runs[-1] for session in history.sessions]
    return list(dict.fromkeys(_argument(nodeid, runs[session]) for nodeid, session in tests))


def _argument(nodeid: str, run: Event) -> str:
    nodeid = ungrouped(nodeid, run)
    rootdir, directory = run.get("rootdir"), run.get("directory")
    if isinstance(rootdir, str) and isinstance(directory, str) and rootdir != directory:
        path, separator, rest = nodeid.partition("::")
        # Node ids are relative to rootdir, arguments to the current directory.
        return relative(joined(rootdir, path), directory) + separator + rest
    return nodeid
