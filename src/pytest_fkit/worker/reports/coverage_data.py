"""What coverage.py counted in test processes, gathered and added to what it counts here."""

from __future__ import annotations

from typing import Any

from ...own import own_builtins
from ...protocol.event_file import Measured
from ...sandbox.process.coverage import quietly

own_builtins(globals())


class Gathered:
    """Lines or arcs by context and file, until they are added to a ``Coverage`` object."""

    def __init__(self) -> None:
        self._arcs = False
        self._contexts: dict[str, dict[str, set[Any]]] = {}
        self._tracers: dict[str, str] = {}

    def take(self, measured: Measured) -> None:
        """Take in what one process counted."""
        self._arcs = measured.arcs
        self._tracers.update(measured.tracers)
        for context, files in measured.contexts.items():
            known = self._contexts.setdefault(context, {})
            for path, found in files.items():
                known.setdefault(path, set()).update(found)

    def add_to(self, coverage: Any) -> None:
        """Add all to the data of `coverage`."""
        if not self._contexts:
            return
        with quietly():
            data = coverage.get_data()
        for context, files in self._contexts.items():
            data.set_context(context)
            (data.add_arcs if self._arcs else data.add_lines)(files)
        data.set_context(None)
        data.add_file_tracers(self._tracers)
        self._contexts.clear()
