"""A server of HTTP that answers wrongly, or not at all: what it does is in the path."""

from __future__ import annotations

import socket
import struct
import threading
from http import HTTPStatus


class BrokenServer:
    """Answers ``/503`` with that status, resets the connection at ``/reset``, and so on."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._silent: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def close(self) -> None:
        """End it."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for each in (self._listening, *self._silent):
            each.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:  # it is shut down
                return
            self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        path = _path(connection)
        if "silence" in path:
            self._silent.append(connection)
            return
        with connection:
            if "reset" in path:
                at_once = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            elif "half" in path:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
            elif "close" not in path:
                status = HTTPStatus(next((int(part) for part in path if part.isdigit()), 200))
                head = f"HTTP/1.1 {status.value} {status.phrase}\r\n"
                connection.sendall(
                    f"{head}Content-Length: 2\r\nConnection: close\r\n\r\nno".encode()
                )


def _path(connection: socket.socket) -> list[str]:
    """The parts of the path that is asked for; none of a connection that ends before."""
    asked = b""
    while b"\r\n\r\n" not in asked:
        received = connection.recv(65536)
        if not received:
            return ["close"]
        asked += received
    return asked.split()[1].decode().split("/")
