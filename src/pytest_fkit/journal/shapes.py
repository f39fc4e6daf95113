"""Checks events against journal.schema.json, which is the one description of their shapes.

It understands what that file uses of JSON Schema, 2020-12, and is many times as fast as a library
that knows all: a journal has as many lines as a run has tests.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, Iterator, Mapping

from ..own import own_builtins
from ..system.paths import joined, read_text

own_builtins(globals())

Schema = Dict[str, Any]

_KNOWN = {
    "$ref", "additionalProperties", "description", "exclusiveMaximum", "exclusiveMinimum", "items",
    "maxItems", "minItems", "minimum", "prefixItems", "properties", "required", "type",
}  # fmt: skip

_TYPES: Mapping[str, str] = {
    "array": "isinstance({0}, list)",
    "boolean": "isinstance({0}, bool)",
    "null": "{0} is None",
    # JSON's true and false are no numbers, as Python's are.
    "number": "isinstance({0}, (int, float)) and {0} is not True and {0} is not False",
    "object": "isinstance({0}, dict)",
    "string": "isinstance({0}, str)",
}
"""Expressions for whether a value is of a type."""


def schema() -> Schema:
    path = joined(__file__.rpartition("/")[0], "journal.schema.json")
    found: Schema = json.loads(read_text(path))
    return found


class Shapes:
    """The shapes of all events, each compiled to a function: there are many values in a journal.

    :raises ValueError: if the schema uses what is not understood here.
    """

    def __init__(self, schema: Schema) -> None:
        self._shapes: Schema = schema["$defs"]
        self._source: dict[str, str] = {}
        prefix = "event-"
        for name, shape in self._shapes.items():
            if name.startswith(prefix):
                self._add_event(name[len(prefix) :], shape)
        self._add_function("common", self._misfits(schema))
        made: dict[str, Any] = {}
        own_builtins(made)
        exec("\n".join(self._source.values()), made)  # noqa: S102 (made of our own schema)
        self._common: Callable[[Any], str] = made[_function("common")]
        self._events: Mapping[str, Callable[[Any], str]] = {
            name[len(prefix) :]: made[_function(name)]
            for name in self._shapes
            if name.startswith(prefix)
        }

    def misfit(self, happened: Mapping[str, Any]) -> str:
        """The name of a field that is missing or has the wrong shape; "" if there is none.

        Fields and events that are not known may be anything.
        """
        of_event = self._events.get(str(happened["event"]))
        return self._common(happened) or ("" if of_event is None else of_event(happened))

    def _add_event(self, name: str, shape: Schema) -> None:
        lines = self._misfits(self._resolved(shape))
        for field, others in shape.get("dependentRequired", {}).items():
            lines += [
                f"    if {field!r} in value and {each!r} not in value: return {each!r}"
                for each in others
            ]
        self._add_function(f"event-{name}", lines)

    def _add_function(self, name: str, lines: list[str]) -> None:
        body = "\n".join([*lines, "    return ''"])
        self._source[name] = f"def {_function(name)}(value):\n{body}\n"

    def _resolved(self, shape: Schema) -> Schema:
        while "$ref" in shape:
            shape = self._shapes[shape["$ref"].rpartition("/")[2]]
        return shape

    def _misfits(self, shape: Schema) -> list[str]:
        """Statements that return the name of a field of `value` that does not fit."""
        required = shape.get("required", ())
        lines = []
        for name, each in shape.get("properties", {}).items():
            fits = self._fits(each, f"value[{name!r}]")
            if name in required:
                lines.append(f"    if {name!r} not in value or not ({fits}): return {name!r}")
            elif fits != "True":
                lines.append(f"    if {name!r} in value and not ({fits}): return {name!r}")
        return lines

    def _fits(self, shape: Schema, value: str) -> str:
        """An expression for whether that of a value has a shape."""
        if "$ref" in shape:
            return self._named(shape["$ref"].rpartition("/")[2], value)
        unknown = shape.keys() - _KNOWN
        if unknown:
            raise ValueError(f"{sorted(unknown)} in the schema of journals")
        names = shape.get("type", ())
        typed = [_TYPES[each] for each in ([names] if isinstance(names, str) else names)]
        parts = [" or ".join(each.format(value) for each in typed)] if typed else []
        parts += [
            condition if len(typed) == 1 else f"(not ({kind}) or {condition})"
            for kind, condition in (
                *_number(shape, value), *self._array(shape, value), *self._object(shape, value),
            )
        ]  # fmt: skip
        return " and ".join(f"({each})" for each in parts) or "True"

    def _named(self, name: str, value: str) -> str:
        """The same for a shape of the schema's own; one of an object is a function."""
        shape = self._resolved(self._shapes[name])
        if "properties" not in shape:
            return self._fits(shape, value)
        if name not in self._source:
            self._source[name] = ""
            self._add_function(name, self._misfits(shape))
        return f"{_TYPES['object'].format(value)} and not {_function(name)}({value})"

    def _array(self, shape: Schema, value: str) -> Iterator[tuple[str, str]]:
        kind = _TYPES["array"].format(value)
        if "minItems" in shape:
            yield kind, f"{shape['minItems']} <= len({value}) <= {shape['maxItems']}"
        for number, each in enumerate(shape.get("prefixItems", ())):
            fits = self._fits(each, f"{value}[{number}]")
            if fits != "True":
                yield kind, f"(len({value}) <= {number} or ({fits}))"
        if "items" in shape:
            yield kind, self._all(shape["items"], value)

    def _object(self, shape: Schema, value: str) -> Iterator[tuple[str, str]]:
        kind = _TYPES["object"].format(value)
        if "properties" in shape:
            name = f"inner-{len(self._source)}"
            self._source[name] = ""
            self._add_function(name, self._misfits(shape))
            yield kind, f"not {_function(name)}({value})"
        if "additionalProperties" in shape:
            yield kind, self._all(shape["additionalProperties"], f"{value}.values()")

    def _all(self, shape: Schema, values: str) -> str:
        each = f"each{values.count('each')}"
        return f"not [1 for {each} in {values} if not ({self._fits(shape, each)})]"


def _function(name: str) -> str:
    return f"misfit_{name.replace('-', '_')}"


def _number(shape: Schema, value: str) -> Iterator[tuple[str, str]]:
    kind = _TYPES["number"].format(value)
    least, above = shape.get("minimum"), shape.get("exclusiveMinimum")
    below = shape.get("exclusiveMaximum")
    # What is read has no infinite numbers.
    if least is not None:
        yield kind, f"{value} >= {least!r}"
    if above is not None:
        yield kind, f"{value} > {above!r}"
    if below is not None:
        yield kind, f"{value} < {below!r}"
