"""Checks events against journal.schema.json, which is the one description of their shapes.

It understands what that file uses of JSON Schema, 2020-12, and is many times as fast as a library
that knows all: a journal has as many lines as a run has tests.
"""

from __future__ import annotations

import json
import math
from typing import Any, Callable, Dict, Iterator, Mapping

from ..own import own_builtins
from ..system.paths import joined, read_text

own_builtins(globals())

Schema = Dict[str, Any]

Fits = Callable[[Any], bool]
"""Whether a value has a shape."""

_KNOWN = {
    "$ref", "additionalProperties", "description", "exclusiveMaximum", "exclusiveMinimum", "items",
    "maxItems", "minItems", "minimum", "prefixItems", "properties", "required", "type",
}  # fmt: skip

_TYPES: Mapping[str, tuple[type[Any], ...]] = {
    "array": (list,),
    "boolean": (bool,),
    "null": (type(None),),
    "number": (int, float),
    "object": (dict,),
    "string": (str,),
}


def schema() -> Schema:
    """The schema of an event."""
    path = joined(__file__.rpartition("/")[0], "journal.schema.json")
    found: Schema = json.loads(read_text(path))
    return found


class Shapes:
    """The shapes of all events.

    :raises ValueError: if the schema uses what is not understood here.
    """

    def __init__(self, schema: Schema) -> None:
        self._shapes: Schema = schema["$defs"]
        prefix = "event-"
        events = (name[len(prefix) :] for name in self._shapes if name.startswith(prefix))
        self._common = self._fields(schema)
        self._events = {name: self._fields(self._shapes[prefix + name]) for name in events}
        self._together: dict[str, dict[str, list[str]]] = {
            name: self._shapes[prefix + name].get("dependentRequired", {}) for name in self._events
        }

    def misfit(self, happened: Mapping[str, Any]) -> str:
        """The name of a field that is missing or has the wrong shape; "" if there is none.

        Fields and events that are not known may be anything.
        """
        name = str(happened["event"])
        fields = self._events.get(name, {})
        return (
            _misfit(happened, self._common)
            or _misfit(happened, fields)
            or next(self._lacking(happened, name), "")
        )

    def _lacking(self, happened: Mapping[str, Any], name: str) -> Iterator[str]:
        """The fields without which others mean nothing."""
        for field, others in self._together.get(name, {}).items():
            if field in happened:
                yield from (each for each in others if each not in happened)

    def _fields(self, shape: Schema) -> dict[str, tuple[bool, Fits]]:
        """Of each field whether it is a must, and its shape."""
        if "$ref" in shape:
            return self._fields(self._referred(shape))
        required = shape.get("required", ())
        return {
            name: (name in required, self._fits(each))
            for name, each in shape.get("properties", {}).items()
        }

    def _referred(self, shape: Schema) -> Schema:
        found: Schema = self._shapes[shape["$ref"].rpartition("/")[2]]
        return found

    def _fits(self, shape: Schema) -> Fits:
        unknown = shape.keys() - _KNOWN
        if unknown:
            raise ValueError(f"{sorted(unknown)} in the schema of journals")
        if "$ref" in shape:
            return self._fits(self._referred(shape))
        names = shape.get("type", ())
        types = tuple(
            kind for name in ([names] if isinstance(names, str) else names) for kind in _TYPES[name]
        )
        inside = [*_number(shape), *self._array(shape), *self._object(shape)]
        return _all([_typed(types)] if types else [], inside)

    def _array(self, shape: Schema) -> list[Fits]:
        found: list[Fits] = []
        if "minItems" in shape:
            sizes = range(shape["minItems"], shape["maxItems"] + 1)
            found.append(lambda value: not isinstance(value, list) or len(value) in sizes)
        if "prefixItems" in shape:
            each_of = [self._fits(each) for each in shape["prefixItems"]]
            found.append(
                lambda value: (
                    not isinstance(value, list) or all(each(it) for each, it in zip(each_of, value))
                )
            )
        if "items" in shape:
            item = self._fits(shape["items"])
            found.append(lambda value: not isinstance(value, list) or all(map(item, value)))
        return found

    def _object(self, shape: Schema) -> list[Fits]:
        found: list[Fits] = []
        if "properties" in shape:
            fields = self._fields(shape)
            found.append(lambda value: not isinstance(value, dict) or not _misfit(value, fields))
        if "additionalProperties" in shape:
            other = self._fits(shape["additionalProperties"])
            found.append(
                lambda value: not isinstance(value, dict) or all(map(other, value.values()))
            )
        return found


def _typed(types: tuple[type[Any], ...]) -> Fits:
    if bool in types or int not in types:
        return lambda value: isinstance(value, types)
    # JSON's true and false are no numbers, as Python's are.
    return lambda value: isinstance(value, types) and value is not True and value is not False


def _all(typed: list[Fits], inside: list[Fits]) -> Fits:
    """All of these hold; written out for few, as this is called for every value of a journal."""
    checks = typed + inside
    if not checks:
        return lambda _: True
    if len(checks) == 1:
        return checks[0]
    first, second, *rest = checks
    if not rest:
        return lambda value: first(value) and second(value)
    return lambda value: first(value) and second(value) and all(each(value) for each in rest)


def _number(shape: Schema) -> list[Fits]:
    if not {"minimum", "exclusiveMinimum", "exclusiveMaximum"} & shape.keys():
        return []
    least, above = shape.get("minimum", -math.inf), shape.get("exclusiveMinimum", -math.inf)
    below = shape.get("exclusiveMaximum", math.inf)
    # What is read has no infinite numbers.
    return [
        lambda value: (
            not isinstance(value, (int, float)) or (least <= value and above < value < below)
        )
    ]


def _misfit(value: Mapping[str, Any], fields: Mapping[str, tuple[bool, Fits]]) -> str:
    for name, (must, fits) in fields.items():
        if not fits(value[name]) if name in value else must:
            return name
    return ""
