"""The folder of a test: named in the report and kept if the test fails, else removed."""

from __future__ import annotations

from ...own import own_builtins
from ...protocol.event_file import ReportData, add_facts
from ...protocol.plain_values import carriable
from ...system.paths import holds, remove_tree
from .reports import add_section

own_builtins(globals())


class KeptFolder:
    """The folder of one attempt at a test.

    :param path: "" if it has none yet.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._is_kept = False

    def name_in(self, data: ReportData) -> None:
        """Name it in a report that says that the test failed, if there is something in it."""
        if data["outcome"] not in ("failed", "rerun") or not holds(self.path):
            return
        self._is_kept = True
        path = carriable(self.path)
        add_facts(data, artifacts=path)
        add_section(data, "artifacts", f"{path}\n")

    def settle(self) -> None:
        """When all is reported: remove it, unless it is to be kept."""
        if self.path and not self._is_kept:
            remove_tree(self.path)
