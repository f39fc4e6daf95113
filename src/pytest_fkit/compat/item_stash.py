"""What plugins put into the stash of items, for what hooks do with items when the session ends.

pytest-retry documents this: outcome, duration and attempts of each test.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, List, Tuple

import pytest

from ..own import own_builtins
from .pytest_hooks import module_of

own_builtins(globals())

Stashed = List[Tuple[str, str, Any]]
"""The file of a module, the name that the key has there, and the value."""

_CARRIED = frozenset({str, int, float, bool, type(None)})
_NOBODYS = ("_pytest", "pytest_fkit", "xdist", "__channelexec__")
_MISSING = object()


class ItemStash:
    """The keys that modules of plugins and ``conftest.py`` files have under a name."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self.keys: dict[tuple[str, str], Any] = {}
        """By the file of a module and the name that the key has there."""
        for plugin in config.pluginmanager.get_plugins():
            if module_of(plugin).partition(".")[0] in _NOBODYS:
                continue
            is_module = isinstance(plugin, ModuleType)
            module = plugin if is_module else sys.modules.get(module_of(plugin))
            file = str(getattr(module, "__file__", ""))
            found = {} if module is None else vars(module)
            self.keys.update(
                ((file, name), key) for name, key in found.items() if type(key) is pytest.StashKey
            )
        self._items: dict[str, pytest.Item] | None = None

    def read(self, item: pytest.Item) -> Stashed:
        """The values that are numbers, texts or None."""
        found = []
        for (file, name), key in self.keys.items():
            value = item.stash.get(key, _MISSING)
            if type(value) in _CARRIED:
                found.append((file, name, value))
        return found

    def write(self, nodeid: str, stashed: Stashed) -> None:
        """Put them into the item of this process."""
        if self._items is None:
            session: Any = self._config.pluginmanager.get_plugin("session")
            self._items = {item.nodeid: item for item in session.items}
        item = self._items.get(nodeid)
        for file, name, value in stashed if item is not None else ():
            key = self.keys.get((file, name))
            if key is not None and item is not None:
                item.stash[key] = value
