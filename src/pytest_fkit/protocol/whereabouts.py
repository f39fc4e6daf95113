"""Which test a worker runs, in memory that its processes share with the controller."""

from __future__ import annotations

import pytest

from ..own import ctypes, mmap, os, own_builtins

own_builtins(globals())

_NONE = -1
_RUNNING, _TOLD = range(2)

WHEREABOUTS: pytest.StashKey[Whereabouts] = pytest.StashKey()


class Whereabouts:
    """Positions in the worker's collection.

    A worker that is killed can't say any more what it ran, and hears late of tests that run
    together in one process. So nothing is sent: two numbers are written.

    :param descriptor: of a file of at least a page; it may be closed afterwards.
    :raises OSError: if that can't be mapped.
    """

    def __init__(self, descriptor: int) -> None:
        # Not by Python's mmap, which keeps a descriptor that tests would inherit.
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [
            ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
            ctypes.c_long,
        ]  # fmt: skip
        rights = mmap.PROT_READ | mmap.PROT_WRITE
        address = libc.mmap(None, mmap.PAGESIZE, rights, mmap.MAP_SHARED, descriptor, 0)
        if address in (None, ctypes.c_void_p(-1).value):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._slots = (ctypes.c_int64 * 2).from_address(address)

    # --- written by the processes of the worker ---

    def runs(self, position: int) -> None:
        """The host begins this test of several that run together."""
        self._slots[_RUNNING] = position

    def ran(self, position: int) -> None:
        """Nothing more comes of this test; if it was the last one, none is running."""
        if self._slots[_RUNNING] == position:
            self._slots[_RUNNING] = _NONE

    def tells(self, position: int) -> None:
        """Plugins in the worker begin to hear of this test."""
        self._slots[_TOLD] = position

    def told(self) -> None:
        """They have heard."""
        self._slots[_TOLD] = _NONE

    # --- read by the controller ---

    def clear(self) -> None:
        """Begin with no test."""
        self._slots[_RUNNING] = self._slots[_TOLD] = _NONE

    @property
    def running(self) -> int | None:
        """The test that runs, if it is one of several that run together."""
        return _or_none(self._slots[_RUNNING])

    @property
    def at(self) -> int | None:
        """The test to blame if the worker is dead, None for the last one that it named."""
        told = _or_none(self._slots[_TOLD])
        return self.running if told is None else told


def _or_none(position: int) -> int | None:
    return None if position == _NONE else position


def shared(path: str) -> Whereabouts | None:
    """The memory at the path that the controller said, None if there is none."""
    if not path:
        return None
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # no /proc, or not for us: the controller goes by what it hears
        return None
    try:
        return Whereabouts(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)
