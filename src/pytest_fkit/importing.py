"""Imports our modules, whatever a suite makes of Python's import; their built-in names."""

from __future__ import annotations

import builtins
import gc as _collector
import os as _os
import sys
from importlib.machinery import (
    SOURCE_SUFFIXES,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
)
from typing import Any, Sequence

_builtins: dict[str, Any] = dict(vars(builtins))


def own_builtins(names: dict[str, Any]) -> None:
    """Have functions that a module defines from now on look built-in names up in a copy of ours.

    A function has the ``__builtins__`` of its globals at the moment when it is made (in Python 3.8
    and 3.9, when it is called from elsewhere).

    :param names: the module's ``globals()``.
    """
    names["__builtins__"] = _builtins


own_builtins(globals())

_HIDDEN = ("mmap", "resource")
"""What we import and pytest does not, and what may be imported again: they keep no state.

Not ctypes, of which two copies do not know each other's types; ``import ctypes`` gets ours.
"""

_LIBRARY = str(_os.__file__).rpartition("/")[0]


def standard_library_first(path: Sequence[str]) -> list[str]:
    """The same entries, those of the standard library before all others."""
    first = (_LIBRARY, f"{_LIBRARY}/lib-dynload")
    return sorted(map(str, path), key=lambda entry: entry not in first)


def hide(modules: set[str]) -> None:
    """Remove our imports but for those named in `modules`; existing references stay valid."""
    for name in _HIDDEN:
        if name not in modules:
            sys.modules.pop(name, None)


_FINDERS = [each for each in sys.meta_path if isinstance(each, type)]
"""Python's own, which are classes; before the suite could add any."""

_HOOKS = sys.path_hooks[:]

_FOLDERS: dict[str, FileFinder] = {}
"""By folder: finds what is in it."""


class _OwnModules:
    """Finds this package's modules in its folders, whatever has become of ``sys.path_hooks``.

    pytest's hook, which comes first otherwise, rewrites the assertions of plugins. It reads what
    it has rewritten at half the speed of Python's own cache, rewrites each module again in each
    process where PYTHONDONTWRITEBYTECODE or permissions keep it from writing, and we have no
    assertions that a test could see.
    """

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, *_: object) -> ModuleSpec | None:
        if path is None or not name.startswith(_PACKAGE):
            return None
        for folder in path:
            if folder not in _FOLDERS:
                loader = SourceFileLoader, SOURCE_SUFFIXES
                _FOLDERS[folder] = FileFinder(folder, loader)
            spec = _FOLDERS[folder].find_spec(name)
            if spec is not None:
                return spec
        return PathFinder.find_spec(name, path)  # in an archive, say


_PACKAGE = f"{__package__}."


class own_imports:  # noqa: N801 (a statement, like suppress)
    """Within the block, import modules of ours.

    A suite may have a module of the same name as one of the standard library's that we use, say
    resource.py beside its conftest.py. Ours comes from the standard library even so, and what a
    test imports is what it would get without us. It may also have finders and hooks that refuse
    imports, or have emptied ``sys.path``.
    """

    def __enter__(self) -> None:
        self._collects = _collector.isenabled()
        _collector.disable()  # nothing of what it would look at is garbage
        self._import, _builtins["__import__"] = _builtins["__import__"], _import_by_python
        self._modules = set(sys.modules)
        self._before = {name: vars(sys).get(name) for name in ("path", "meta_path", "path_hooks")}
        path, finders, hooks = self._before.values()
        others = [each for each in finders or () if each not in _FINDERS]
        sys.path = standard_library_first(path or [_LIBRARY])
        sys.meta_path = [_OwnModules, *_FINDERS, *others]
        sys.path_hooks = [*_HOOKS, *(each for each in hooks or () if each not in _HOOKS)]

    def __exit__(self, *raised: object) -> None:
        for name, value in self._before.items():
            setattr(sys, name, value)
        _builtins["__import__"] = self._import
        hide(self._modules)
        if self._collects:
            _collector.enable()


def _import(
    name: str,
    names: dict[str, Any] | None = None,
    local: dict[str, Any] | None = None,
    wanted: Sequence[str] | None = (),
    level: int = 0,
) -> Any:
    """``__import__`` of our modules: one of ours that is imported late finds what it imports."""
    if level and names is not None:
        above = names["__package__"].rsplit(".", level - 1)[0]
        module = sys.modules.get(f"{above}.{name}" if name else above)
        if module is None or not all(hasattr(module, each) for each in wanted or ()):
            with own_imports():
                return _import_by_python(name, names, local, wanted, level)
    return _import_by_python(name, names, local, wanted, level)


_import_by_python = _builtins["__import__"]
_builtins["__import__"] = _import
