"""What the fields of events look like, for those who read files that anybody may have made."""

from __future__ import annotations

from typing import Any, Callable, Mapping

from ..own import own_builtins
from .events import Event

own_builtins(globals())

Check = Callable[[Any], bool]

LATEST = 1e11
"""Seconds since the epoch: no journal is from later, and dates end in the year 9999."""

_MOST = 1e20
"""Above all figures of a machine; what exceeds floats would stop who multiplies them."""


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _MOST


def _time(value: Any) -> bool:
    return _number(value) and 0 <= value < LATEST


def _nullable(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _list(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _tuple(*checks: Check) -> Check:
    return lambda value: (
        isinstance(value, list)
        and len(value) == len(checks)
        and all(check(each) for check, each in zip(checks, value))
    )


def _map(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _fields(needed: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    return lambda value: isinstance(value, dict) and not _misfit(value, needed, optional or {})


def _misfit(
    value: Mapping[str, Any], needed: Mapping[str, Check], optional: Mapping[str, Check]
) -> str:
    for name, check in needed.items():
        if name not in value or not check(value[name]):
            return name
    return next((n for n, check in optional.items() if n in value and not check(value[n])), "")


def _anything(value: Any) -> bool:
    del value
    return True


_TEXTS = _list(_text)
_PAIRS = _list(_tuple(_text, _anything))
_PHASE = _fields({"when": _text, "start": _number, "duration": _number, "outcome": _text})
_STEP = _fields({"what": _text, "label": _text, "start": _number, "duration": _number})
_REPORT = _fields(
    {"when": _text, "outcome": _text, "duration": _number},
    {
        "start": _number, "text": _text, "message": _text, "xfail": _text, "fkit_death": _text,
        "skip": _tuple(_text, _anything, _text), "properties": _PAIRS,
        "sections": _list(_tuple(_text, _text)), "rerun": _number,
    },
)  # fmt: skip
_WORKER = {"worker": _text}
_TEST = {"test": _text, **_WORKER}
_GPUS = {"gpus": _TEXTS, "to": _text, "to_gpus": _TEXTS, "reason": _text, "category": _text}
_USED = ("user", "system", "peak_memory")
_XID = {"xid": _number, "gpus": _TEXTS}
_MORE_OF_XID = {"name": _text, "source": _text, "pid": _number, "process": _text, "message": _text}

_SHAPES: dict[str, tuple[Mapping[str, Check], Mapping[str, Check]]] = {
    "run": (
        {},
        {
            "session": _text, "arguments": _TEXTS, "machine": _map(_anything),
            "versions": _map(_text), "options": _map(_anything), "slices": _map(_TEXTS),
        },
    ),
    "worker_up": (_WORKER, _GPUS),
    "worker_down": (_WORKER, {}),
    "collection": (_WORKER, {"nodeids": _TEXTS}),
    "resume": ({}, {"gone": _TEXTS}),
    "start": (_TEST, {}),
    "report": (_TEST, {}),
    "attempt": (
        {**_TEST, "start": _number, "duration": _number},
        {
            "attempt": _number, "phases": _list(_PHASE), "wide": _list(_STEP),
            "ending": _map(_anything), "metrics": _map(_anything),
            "xids": _list(_fields(_XID, _MORE_OF_XID)),
            **dict.fromkeys(_USED, _number), **_GPUS,
        },
    ),
    "verdict": (
        _TEST,
        {
            "attempt": _number, "outcome": _text, "message": _text, "reports": _list(_REPORT),
            "location": _nullable(_tuple(_text, _nullable(_number), _text)),
        },
    ),
    "gpus": ({"used": _map(_map(_number))}, {}),
    "xid": (_XID, _MORE_OF_XID),
    "gpu_error": (_TEST, _GPUS),
    "retried": (_TEST, _GPUS),
    "probed": (_WORKER, _GPUS),
    "retired": (_WORKER, _GPUS),
    "readmitted": (_WORKER, _GPUS),
}  # fmt: skip


def misfit(happened: Event) -> str:
    """The name of a field that a journal of ours does not have so, or lacks; "" if there is none.

    Fields and events that are not known may be anything.
    """
    needed, optional = _SHAPES.get(str(happened["event"]), ({}, {}))
    return _misfit(happened, {"wall": _time, **needed}, optional)
