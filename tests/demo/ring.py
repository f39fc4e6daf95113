"""A ring buffer over raw memory, as small as a library can be that is able to kill Python."""

from __future__ import annotations

import ctypes


class Ring:
    """Keeps the last `size` numbers; does not check what it is asked for."""

    def __init__(self, size: int) -> None:
        self._memory = (ctypes.c_double * size)()
        self._address = ctypes.addressof(self._memory)
        self.size = size
        self.count = 0

    def push(self, value: float) -> None:
        """Add a number."""
        self._memory[self.count % self.size] = value
        self.count += 1

    def at(self, position: int) -> float:
        """The number at a position, read from memory without any check."""
        return ctypes.c_double.from_address(self._address + 8 * position).value

    def wait_for(self, count: int) -> None:
        """Wait until so many numbers were added; nobody may be there to add them."""
        while self.count < count:
            pass
