"""A block of free ports for each worker.

Imports nothing of ours: it is sent to workers on other machines as source.
"""

from __future__ import annotations

import random
import socket
import sys

SIZE = 16
"""Ports in a block."""

# MASTER_PORT in PyTorch's documentation, which tests use that know nothing of blocks.
_TAKEN = 29500

_LOWEST, _END = 10000, 65536


class NoPortsError(Exception):
    """There are no free blocks."""


class Block:
    """Ports `base` to `base` + 15, reserved until released, or until this process ends."""

    def __init__(self, base: int, lock: socket.socket | None) -> None:
        self.base = base
        self._lock = lock

    def release(self) -> None:
        """Make the ports available to others."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def claim() -> Block:
    """Reserve a block that is not in use.

    :raises NoPortsError: if there is none.
    """
    bases = candidates(_ephemeral_range())
    # Not the global generator, whose state is the tests' business.
    start = random.SystemRandom().randrange(len(bases))
    for base in bases[start:] + bases[:start]:
        block = _try(base)
        if block is not None:
            return block
    raise NoPortsError(f"no {SIZE} ports in a row are free")


def candidates(ephemeral: tuple[int, int]) -> list[int]:
    """First ports of the blocks outside of the system's range for outgoing connections.

    :param ephemeral: the lowest and the highest port of that range.
    """
    low, high = ephemeral
    bases = [
        base for base in range(_LOWEST, _END - SIZE + 1, SIZE) if not base <= _TAKEN < base + SIZE
    ]
    outside = [base for base in bases if base + SIZE <= low or base > high]
    return outside or bases


def _ephemeral_range() -> tuple[int, int]:
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as file:  # noqa: PTH123 (stands alone)
            low, high = file.read().split()
        return int(low), int(high)
    except (OSError, ValueError):
        return 49152, 65535  # RFC 6335, section 6


def _try(base: int) -> Block | None:
    lock = None
    if sys.platform.startswith("linux"):
        # An abstract name (unix(7)) belongs to the network namespace, as ports do, is visible to
        # all users, and vanishes with the process.
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            lock.bind(f"\0pytest-fkit/ports/{base}")
        except OSError:
            lock.close()
            return None
    if all(_is_free(port) for port in range(base, base + SIZE)):
        return Block(base, lock)
    if lock is not None:
        lock.close()
    return None


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True


if __name__ == "__channelexec__":  # execnet runs it on another machine
    # Held until the process ends or, in a socket server's, until its next run.
    _held: list[Block] = sys.__dict__.setdefault("_fkit_ports", [])
    while _held:
        _held.pop().release()
    try:
        _held.append(claim())
    except NoPortsError:
        globals()["channel"].send(0)
    else:
        globals()["channel"].send(_held[0].base)
