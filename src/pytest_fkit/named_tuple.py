"""``typing.NamedTuple``, whose classes are made in an eighth of the time.

Each process that runs tests, and the controller, makes about 170 such classes before it does
anything: with typing's 45 ms, which compiles every annotation and one function for each class.
"""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any, Iterable

from .own import own_builtins

own_builtins(globals())

if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:
    try:
        from _collections import _tuplegetter as _getter  # in C, as collections has it
    except ImportError:
        from operator import itemgetter

        def _getter(position: int, text: str) -> property:
            return property(itemgetter(position), doc=text)

    _new = tuple.__new__

    @functools.lru_cache(maxsize=None)
    def _made_of(fields: int) -> types.CodeType:
        """The code of a ``__new__`` with so many fields, whose names are to be replaced."""
        names = "".join(f"field{number}, " for number in range(fields))
        return eval(f"lambda _cls, {names}: _new(_cls, ({names}))").__code__  # noqa: S307 (ours)

    class _Methods(tuple):
        __slots__ = ()
        _fields: tuple[str, ...] = ()

        @classmethod
        def _make(cls, values: Iterable[Any]) -> Any:
            return cls(*values)

        def _replace(self, **changes: Any) -> Any:
            changed = type(self)(*map(changes.pop, self._fields, self))
            if changes:
                raise ValueError(f"Got unexpected field names: {list(changes)!r}")
            return changed

        def _asdict(self) -> dict[str, Any]:
            return dict(zip(self._fields, self))

        def __repr__(self) -> str:
            values = ", ".join(map("{}={!r}".format, self._fields, self))
            return f"{type(self).__name__}({values})"

        def __getnewargs__(self) -> tuple[Any, ...]:
            return tuple(self)

    class _Meta(type):
        def __new__(cls, name: str, _bases: object, names: dict[str, Any]) -> type:
            fields = tuple(names.get("__annotations__", ()))
            defaults = tuple(names.pop(field) for field in fields if field in names)
            code = _made_of(len(fields)).replace(co_varnames=("_cls", *fields), co_name="__new__")
            new = types.FunctionType(code, globals(), "__new__", defaults)
            new.__qualname__ = f"{name}.__new__"
            names.update(
                __slots__=(),
                __match_args__=fields,
                _fields=fields,
                __new__=new,
                **{field: _getter(number, field) for number, field in enumerate(fields)},
            )
            return type(name, (_Methods,), names)

    NamedTuple = type.__new__(_Meta, "NamedTuple", (), {})
