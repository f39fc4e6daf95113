"""The tests of a journal that went wrong, as pytest takes them on its command line."""

from __future__ import annotations

from ..system.paths import joined, relative
from .events import Event
from .history import History


def failed(history: History) -> list[str]:
    """Node ids, each once, as seen from where the command of the run was given."""
    tests = [test for test in history.current() if test.went_wrong]
    runs = [session.runs[-1] for session in history.sessions]
    return list(dict.fromkeys(_argument(test.nodeid, runs[test.session]) for test in tests))


def _argument(nodeid: str, run: Event) -> str:
    if run.get("options", {}).get("dist") == "loadgroup":
        nodeid = _without_group(nodeid)
    rootdir, directory = run.get("rootdir"), run.get("directory")
    if isinstance(rootdir, str) and isinstance(directory, str) and rootdir != directory:
        path, separator, rest = nodeid.partition("::")
        # Node ids are relative to rootdir, arguments to the current directory.
        return relative(joined(rootdir, path), directory) + separator + rest
    return nodeid


def _without_group(nodeid: str) -> str:
    """Without what xdist adds, as in "test_a.py::test_b@group"."""
    name, _, group = nodeid.rpartition("@")
    return name if name and "]" not in group else nodeid
