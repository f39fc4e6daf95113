"""What plugins put into reports and no plain value stands for, where it has to cross processes.

Without workers, plugins that hear of a report expect what they put into it: in plain pytest it is
one process. Whatever pickle carries arrives, and what pytest itself has there, such as the item, is
what it is in the process that hears of it.
"""

from __future__ import annotations

import sys
from _io import BytesIO
from typing import Any

import pytest

from ..own import own_builtins, pickle

own_builtins(globals())

KEY = "fkit_objects"
"""Of the data of a report: pickles, by the names of attributes."""

_PYTESTS = frozenset(
    {
        "$report_type", "nodeid", "_id", "location", "keywords", "outcome", "longrepr", "when",
        "sections", "duration", "start", "stop", "result", "wasxfail", "_subtest.context",
    }
)  # fmt: skip
_REGISTRIES = {"pytest_bdd.reporting": "test_report_context_registry"}
"""Dictionaries by report, in which plugins keep what belongs to it: pytest-bdd, from 8.0 on."""

_PLAIN = frozenset({type(None), bool, int, float, str, bytes})


def keep_objects(session: pytest.Session, report: Any, data: dict[str, Any]) -> None:
    """Add to the data of a report what plain values do not carry."""
    found: dict[str, bytes] = {}
    for name in data.keys() - _PYTESTS:
        value = vars(report).get(name)
        if type(value) not in _PLAIN and value != []:
            _keep(session, found, name, value)
    # A subtest's report can't be hashed.
    for module in _REGISTRIES if type(report) is pytest.TestReport else ():
        registry = _registry(module)
        if report in registry:
            _keep(session, found, module, registry[report])
    if found:
        data[KEY] = found


def restore_objects(session: pytest.Session, report: Any, kept: dict[str, bytes]) -> None:
    """Put them into the report that was made from the data."""
    for name, pickled in kept.items():
        try:
            value = _Unpickler(session, BytesIO(pickled)).load()
        except Exception:  # noqa: BLE001, S112 (see above)
            continue
        if name in _REGISTRIES:
            _registry(name)[report] = value
        else:
            vars(report)[name] = value


def _keep(session: pytest.Session, found: dict[str, bytes], name: str, value: Any) -> None:
    file = BytesIO()
    try:
        _Pickler(session, file).dump(value)
    except Exception:  # noqa: BLE001 (of a class that belongs to users: the text stays)
        return
    found[name] = file.getvalue()


def _registry(module: str) -> Any:
    return getattr(sys.modules.get(module), _REGISTRIES[module], {})


class _Pickler(pickle.Pickler):
    def __init__(self, session: pytest.Session, file: BytesIO) -> None:
        super().__init__(file, 4)
        self._session = session

    def persistent_id(self, value: Any) -> tuple[Any, ...] | None:
        """A name for what the other process has, too."""
        if isinstance(value, pytest.Config):
            return ("config",)
        if not isinstance(value, (pytest.Item, pytest.Collector)):
            return None
        for position, item in enumerate(self._session.items):
            if item is value:
                return "node", position, -1
            if not isinstance(value, pytest.Item):
                for depth, node in enumerate(item.listchain()):
                    if node is value:
                        return "node", position, depth
        return None


class _Unpickler(pickle.Unpickler):
    def __init__(self, session: pytest.Session, file: BytesIO) -> None:
        super().__init__(file)
        self._session = session

    def persistent_load(self, name: tuple[Any, ...]) -> Any:
        if name[0] == "config":
            return self._session.config
        _, position, depth = name
        return self._session.items[position].listchain()[depth]

    def find_class(self, module: str, name: str) -> Any:
        if module not in sys.modules:  # nothing is imported here because a test imported it
            raise pickle.UnpicklingError(module)
        return super().find_class(module, name)
