"""Errors as text, without ``traceback``, which reads source lines by what may be fakes."""

from __future__ import annotations

from types import CodeType, TracebackType
from typing import Iterator

from ..own import own_builtins
from .paths import read_bytes

own_builtins(globals())

_CAUSE = "The above exception was the direct cause of the following exception:"
_CONTEXT = "During handling of the above exception, another exception occurred:"


def entries(traceback: TracebackType | None) -> Iterator[TracebackType]:
    """The entries of a traceback, the innermost last."""
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def stack_text(error: BaseException) -> str:
    """What Python writes of an error that nobody handles, with those that led to it."""
    texts = [_text(error)]
    known = {id(error)}
    while True:
        before, word = error.__cause__, _CAUSE
        if before is None and not error.__suppress_context__:
            before, word = error.__context__, _CONTEXT
        if before is None or id(before) in known:
            return "\n\n".join(reversed(texts))
        texts += [word, _text(before)]
        known.add(id(before))
        error = before


def _text(error: BaseException) -> str:
    lines = ["Traceback (most recent call last):"]
    for entry in entries(error.__traceback__):
        code = entry.tb_frame.f_code
        lines.append(f'  File "{code.co_filename}", line {entry.tb_lineno}, in {code.co_name}')
        source = _source_line(code, entry.tb_lineno)
        if source:
            lines.append(f"    {source}")
    return "\n".join([*lines, _last_line(error)])


def _source_line(code: CodeType, number: int) -> str:
    try:
        lines = read_bytes(code.co_filename).split(b"\n")
    except Exception:  # noqa: BLE001 (compiled from text, or gone; or an audit hook forbids it)
        return ""
    return lines[number - 1].decode("utf-8", "replace").strip() if number <= len(lines) else ""


def _last_line(error: BaseException) -> str:
    kind = type(error)
    name = _name(kind)
    try:
        text = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 (a user's __str__ may raise anything)
        text = "<exception str() failed>"
    return f"{name}: {text}" if text else name


def _name(kind: type[BaseException]) -> str:
    try:
        name, module = kind.__qualname__, kind.__module__
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 (a user's metaclass may raise anything)
        return "<exception of an unknown class>"
    return name if module in ("builtins", "__main__") else f"{module}.{name}"
