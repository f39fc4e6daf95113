"""What a process holds that a forked copy could not use, looked at in a process that holds it."""

from __future__ import annotations

import _ctypes
import ctypes
import os
import re
import select
import shutil
import socket
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from pytest_fkit.system import holdings
from pytest_fkit.system.linux import threads
from pytest_fkit.system.native_threads import native_threads
from pytest_fkit.system.unforkable import loaded

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_names_what_is_new_and_can_not_be_shared(tmp_path: Path) -> None:
    before = holdings.take()
    read = tmp_path / "read"
    read.write_text("")
    listening, connected, peer = socket.socket(), *socket.socketpair()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    memory = os.memfd_create("memory")
    with open(tmp_path / "written", "w") as written, open(read) as _, tempfile.TemporaryFile(
        dir=tmp_path
    ) as deleted, listening, connected, peer, select.epoll() as poller:
        found = holdings.take().beyond(before)
        deleted_path = os.readlink(f"/proc/self/fd/{deleted.fileno()}")
        expected = [
            f"descriptor {written.fileno()}: {written.name}, open for writing",
            f"descriptor {deleted.fileno()}: {deleted_path}, open for writing",
            f"descriptor {listening.fileno()}: listening socket",
            f"descriptor {connected.fileno()}: connected socket",
            f"descriptor {peer.fileno()}: connected socket",
            f"descriptor {poller.fileno()}: event loop",
        ]
    os.close(memory)
    assert sorted(found) == sorted(expected)


def test_the_threads_of_a_pool_are_named_together() -> None:
    before = holdings.take()
    over = threading.Event()
    names = ["Pool-1 worker-2", "Pool-1 worker-10", "Pool-12 worker-1", "monitor"]
    started = [threading.Thread(target=over.wait, name=each, daemon=True) for each in names]
    for each in started:
        each.start()
    found = holdings.take().beyond(before)
    over.set()
    for each in started:
        each.join()
    assert found == ["3 threads such as 'Pool-1 worker-10'", "thread 'monitor'"]


def test_a_copy_of_a_file_that_was_open_counts_only_with_a_buffer(tmp_path: Path) -> None:
    with tempfile.TemporaryFile(dir=tmp_path) as open_before:
        before = holdings.take()
        copy = os.dup(open_before.fileno())
        forgotten = holdings.take().beyond(before)
        with open(copy, "w") as buffered:
            (counted,) = holdings.take().beyond(before)
            assert counted.startswith(f"descriptor {buffered.fileno()}: ")
    assert forgotten == []


def test_a_second_memory_file_is_known_by_its_device() -> None:
    numbers = [os.memfd_create("memory") for _ in range(2)]
    holdings.take()
    found = holdings.take()
    for number in numbers:
        os.close(number)
    assert not [each for each in found.descriptors if "memory" in each.text]


def test_a_socket_that_is_connected_later_is_new(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "s"))
        server.listen()
        before = holdings.take()
        client.connect(str(tmp_path / "s"))
        assert holdings.take().beyond(before) == [f"descriptor {client.fileno()}: connected socket"]


def test_the_threads_of_one_process_and_of_one_that_has_more() -> None:
    assert threads(os.getpid()) == [int(each) for each in os.listdir("/proc/self/task")]
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    try:
        assert other.native_id in threads(os.getpid())
        assert other.native_id not in native_threads()
    finally:
        done.set()
        other.join()
    assert threads(2**22 + 1) == []  # PID_MAX_LIMIT, include/linux/threads.h


def test_a_library_is_found_after_it_was_loaded(tmp_path: Path) -> None:
    copy = tmp_path / "libfkit-found.so"
    shutil.copy(_ctypes.__file__, copy)
    pattern = re.compile(r"/libfkit-found\.so$")
    assert loaded(pattern) == []
    ctypes.CDLL(str(copy))
    assert loaded(pattern) == [str(copy)]
    assert loaded(pattern) == [str(copy)]
