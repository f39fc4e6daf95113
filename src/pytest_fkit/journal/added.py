"""What plugins add to reports, as a journal has it: reporters of a resumed run rely on it."""

from __future__ import annotations

import json
from typing import Any, Dict, List

from ..own import own_builtins

own_builtins(globals())

LIMIT = 200_000
"""Longest value that is kept, in characters of JSON."""

Added = Dict[str, List[Any]]
"""By name, the type's name and the value, if it is kept."""

_KINDS = (bool, str, bytes, int, float, list, tuple, dict, set, frozenset)
_BY_NAME = {kind.__name__: kind for kind in _KINDS}
_DEEPEST = 20

_OTHERS = frozenset(
    {
        "nodeid", "_id", "location", "keywords", "outcome", "longrepr", "when", "sections",
        "duration", "start", "stop", "result", "wasxfail", "user_properties", "rerun", "context",
        "node", "worker_id", "testrun_uid", "item_index", "$report_type", "fkit",
    }
)  # fmt: skip
"""Attributes of pytest's, xdist's and pytest-rerunfailures' own."""

_encode = json.JSONEncoder(allow_nan=False).encode


class _NotKeptError(Exception):
    """JSON can't hold it."""


def added(report: object) -> Added:
    """The attributes of a report that neither pytest nor xdist nor we have set."""
    return {name: _kept(value) for name, value in vars(report).items() if name not in _OTHERS}


def restored(kept: Added) -> dict[str, Any]:
    """The attributes; what is not kept is empty: "", 0, [] and the like, or None."""
    return {name: _restored(*each[:2]) for name, each in kept.items() if each}


def _kept(value: object) -> list[Any]:
    kind = next((each for each in _KINDS if isinstance(value, each)), None)
    name = "" if kind is None else kind.__name__
    try:
        plain = _plain(value)
        if len(_encode(plain)) <= LIMIT:
            return [name, plain]
    except (_NotKeptError, ValueError, RecursionError):
        pass
    return [name]


def _plain(value: object, depth: int = 0) -> Any:
    if value is None or type(value) in (bool, str, float):
        return value
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    if depth < _DEEPEST:
        if isinstance(value, dict) and all(type(key) is str for key in value):
            return {key: _plain(each, depth + 1) for key, each in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [_plain(each, depth + 1) for each in value]
    raise _NotKeptError


def _restored(name: object, value: Any = None) -> Any:
    kind: Any = _BY_NAME.get(str(name))
    if kind is None:
        return None
    try:
        return kind() if value is None else kind(value)
    except (TypeError, ValueError):  # of a file that somebody wrote into
        return kind()
