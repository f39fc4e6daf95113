"""What may be on its way into a file, and is lost with a copy of this process that ends at once."""

from __future__ import annotations

import sys
from _io import BufferedRandom, BufferedWriter, FileIO
from typing import Any, Iterator

from ..own import gc, own_builtins, suppress

own_builtins(globals())

_BUFFERS = (BufferedWriter, BufferedRandom)


def may_buffer(descriptor: int) -> bool:
    """Whether somebody may buffer what goes into `descriptor`.

    Python may not if it has the file open without a buffer, or if all that writes is a log, which
    writes each record at once. Of a file that Python does not know nobody can tell.
    """
    buffers = [each for each in _files(_BUFFERS) if _number(each) == descriptor]
    if not buffers:
        return not any(_number(each) == descriptor for each in _files((FileIO,)))
    flushed = list(_buffers_of_logs())
    return not all(any(each is log for log in flushed) for each in buffers)


def _files(kinds: tuple[type[Any], ...]) -> Iterator[Any]:
    return (each for each in gc.get_objects() if issubclass(type(each), kinds))


def _number(file: Any) -> int:
    with suppress(Exception):  # closed, detached, or a subclass of the suite's own
        return int(file.fileno())
    return -1


def _buffers_of_logs() -> Iterator[Any]:
    logging: Any = sys.modules.get("logging")
    if logging is None:
        return
    for reference in list(logging._handlerList):
        handler = reference()
        flush = getattr(type(handler), "flush", None)
        if flush is logging.StreamHandler.flush:
            yield getattr(getattr(handler, "stream", None), "buffer", None)
