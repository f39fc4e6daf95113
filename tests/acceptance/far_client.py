"""Reaches a machine that is a file, with a delay: ``python far_client.py FILE SECONDS COMMAND…``.

What its standard input and output carry is late by so many seconds, each.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time

_AT_ONCE = 1 << 16


def carry(source: int, target: int, seconds: float) -> threading.Thread:
    """Carry bytes from one descriptor to another, in a thread that is returned."""
    waiting: queue.Queue[tuple[float, bytes]] = queue.Queue()

    def read() -> None:
        data = b"x"
        while data:
            try:
                data = os.read(source, _AT_ONCE)
            except OSError:
                data = b""
            waiting.put((time.monotonic() + seconds, data))

    def write() -> None:
        while True:
            due, data = waiting.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if not data:
                os.close(target)
                return
            while data:
                try:
                    data = data[os.write(target, data) :]
                except OSError:
                    return

    threading.Thread(target=read, daemon=True).start()
    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


def main() -> int:
    machine, seconds, *command = sys.argv[1:]
    if not os.path.exists(machine):
        print(f"there is no machine {os.path.basename(machine)}", file=sys.stderr)
        return 1
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        carry(0, os.dup(process.stdin.fileno()), float(seconds))
        process.stdin.close()
        carry(process.stdout.fileno(), 1, float(seconds)).join()
        return process.wait()


if __name__ == "__main__":
    sys.exit(main())
