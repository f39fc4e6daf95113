"""Blocks of ports."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_fkit.gpu.slices import ports


def test_a_block_is_free_and_nobody_elses() -> None:
    blocks = [ports.claim() for _ in range(20)]
    try:
        assert len({block.base for block in blocks}) == 20
        for block in blocks:
            for port in range(block.base, block.base + ports.SIZE):
                with socket.socket() as bound:
                    bound.bind(("127.0.0.1", port))
    finally:
        for block in blocks:
            block.release()


@pytest.fixture
def only_two(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    block = ports.claim()
    bases = [block.base, next(b for b in ports.candidates((0, 0)) if b != block.base)]
    block.release()
    monkeypatch.setattr(ports, "candidates", lambda ephemeral: bases)
    return bases


def test_a_block_with_a_port_in_use_is_passed_over(only_two: list[int]) -> None:
    with socket.socket() as used:
        used.bind(("", only_two[0] + 7))
        used.listen()
        block = ports.claim()
        try:
            assert block.base == only_two[1]
            with pytest.raises(ports.NoPortsError):
                ports.claim()
        finally:
            block.release()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="abstract names are Linux's")
def test_what_another_process_claimed_is_passed_over_until_that_ends(only_two: list[int]) -> None:
    source = Path(ports.__file__).read_text(encoding="utf-8")
    # As execnet runs it on another machine.
    runner = (
        "import sys\n"
        "class Channel:\n"
        "    def send(self, item): print(item, flush=True)\n"
        "names = {'__name__': '__channelexec__', 'channel': Channel()}\n"
        "source = sys.argv[1].replace('candidates(_ephemeral_range())', sys.argv[2])\n"
        "exec(compile(source, 'ports', 'exec'), names)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", runner, source, repr(only_two)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        theirs = int(other.stdout.readline())
        ours = ports.claim()
        try:
            assert {theirs, ours.base} == set(only_two)
            with pytest.raises(ports.NoPortsError):
                ports.claim()
            other.communicate("\n", timeout=10)
            freed = ports.claim()
            assert freed.base == theirs
            freed.release()
        finally:
            ours.release()


@pytest.mark.parametrize("ephemeral", [(32768, 60999), (49152, 65535), (15000, 64000)])
def test_blocks_are_outside_of_the_ephemeral_range(ephemeral: tuple[int, int]) -> None:
    low, high = ephemeral
    found = ports.candidates(ephemeral)
    taken = {port for base in found for port in range(base, base + ports.SIZE)}
    assert len(taken) == len(found) * ports.SIZE > 1000
    assert not taken & set(range(low, high + 1))
    assert 29500 not in taken
    assert min(taken) >= 1024
    assert max(taken) < 65536


def test_where_all_ports_are_ephemeral_any_block_will_do() -> None:
    assert len(ports.candidates((1024, 65535))) > 3000
