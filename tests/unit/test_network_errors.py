"""Errors of the network: raised, not quoted. tests/network has those of other clients."""

from __future__ import annotations

import http.client
import socket
import ssl
import urllib.error
import urllib.request
from contextlib import closing
from typing import Any

import pytest

from broken_server import BrokenServer
from pytest_fkit.gpu.errors.failure import Failure, failure_of
from pytest_fkit.gpu.errors.network import network_error

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)


def test_what_the_standard_library_raises() -> None:
    with closing(BrokenServer()) as server:
        said = {}
        for path in ("503", "429", "404", "reset", "close", "silence", "half"):
            with pytest.raises(Exception) as caught:  # noqa: PT011 (of any class)
                urllib.request.urlopen(f"{server.address}/{path}", timeout=0.2).read()
            said[path] = network_error(failure_of(caught.value))
    silence = said.pop("silence")
    assert silence in ("TimeoutError: timed out", "timeout: timed out")  # before Python 3.10
    assert said == {
        "503": "HTTPError: HTTP Error 503: Service Unavailable",
        "429": "HTTPError: HTTP Error 429: Too Many Requests",
        "404": None,
        "reset": "ConnectionResetError: [Errno 104] Connection reset by peer",
        "close": "RemoteDisconnected: Remote end closed connection without response",
        "half": "IncompleteRead: IncompleteRead(4 bytes read, 996 more expected)",
    }
    with pytest.raises(urllib.error.URLError) as refused:
        urllib.request.urlopen(server.address)
    assert network_error(failure_of(refused.value)) == (
        "ConnectionRefusedError: [Errno 111] Connection refused"
    )
    with pytest.raises(socket.gaierror) as unknown:
        socket.getaddrinfo("127.0.0.1", "no-such-service")
    assert network_error(failure_of(unknown.value))


class _Response:
    def __init__(self, status: Any) -> None:
        self.status_code = status


class _StatusError(Exception):
    def __init__(self, status: Any) -> None:
        super().__init__("the server said so")
        self.response = None if status is None else _Response(status)


@pytest.mark.parametrize(
    ("status", "counts"),
    [(500, True), (429, True), (599, True), (404, False), (301, False), (True, False),
     ("503", False), (None, False)],
)  # fmt: skip
def test_an_exception_that_has_a_response(status: Any, counts: bool) -> None:
    assert (network_error(failure_of(_StatusError(status))) is not None) == counts


POOL = "HTTPConnectionPool(host='h', port=80): "
TRIED = f"{POOL}Max retries exceeded with url: / (Caused by "

CLIENTS = (
    # requests 2.34, urllib3 2.8
    ("requests.exceptions.ReadTimeout", f"{POOL}Read timed out. (read timeout=1)"),
    (
        "requests.exceptions.RetryError urllib3.exceptions.MaxRetryError",
        f"{TRIED}ResponseError('too many 503 error responses'))",
    ),
    (
        "urllib3.exceptions.NameResolutionError",
        f"{POOL}Failed to resolve 'h' ([Errno -3] Temporary failure in name resolution)",
    ),
    # httpx 0.28, and httpx2 of huggingface_hub 2
    ("httpx.ReadError", "[Errno 104] Connection reset by peer"),
    ("httpx2.ReadTimeout", "timed out"),
    ("httpcore.RemoteProtocolError", "Server disconnected without sending a response."),
    ("httpx.ProxyError", "503 Service Unavailable"),
    # aiohttp 3.14
    ("aiohttp.client_exceptions.ClientConnectionError", "Server disconnected"),
    # Python 3.11
    ("builtins.TimeoutError", "_ssl.c:989: The handshake operation timed out"),
    ("builtins.OSError", "[Errno 101] Network is unreachable"),
    ("builtins.OSError", "Tunnel connection failed: 502 Bad Gateway"),
)


@pytest.mark.parametrize(("types", "text"), CLIENTS)
def test_what_clients_raise(types: str, text: str) -> None:
    name = types.partition(" ")[0].rpartition(".")[2]
    assert network_error(Failure(tuple(types.split()), text)) == f"{name}: {text}"
    cause = Failure(tuple(types.split()), text)
    assert network_error(Failure(("builtins.OSError",), "no model", causes=(cause,)))


UNKNOWN = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate"
OTHERS = (
    ("builtins.AssertionError", "HTTP Error 503: Service Unavailable"),
    ("builtins.RuntimeError", "ConnectionResetError: [Errno 104] Connection reset by peer"),
    ("builtins.KeyError", "'requests.exceptions.ReadTimeout'"),
    ("mine.ConnectError", "[Errno 111] Connection refused"),
    ("builtins.TimeoutError", ""),  # asyncio's, concurrent.futures'
    ("builtins.TimeoutError", "the training has not timed out"),
    ("builtins.BrokenPipeError builtins.ConnectionError", "[Errno 32] Broken pipe"),
    ("builtins.OSError", "[Errno 28] No space left on device"),
    (
        "requests.exceptions.SSLError requests.exceptions.ConnectionError",
        f"{TRIED}SSLError(SSLCertVerificationError(1, '{UNKNOWN} (_ssl.c:992)')))",
    ),
    ("httpx.ConnectError", UNKNOWN),
    (
        "requests.exceptions.ProxyError requests.exceptions.ConnectionError",
        f"{TRIED}ProxyError('', OSError('Tunnel connection failed: 407 Proxy Authentication')))",
    ),
    (
        "huggingface_hub.errors.OfflineModeIsEnabled builtins.ConnectionError",
        "Cannot reach https://huggingface.co: offline mode is enabled.",
    ),
)


@pytest.mark.parametrize(("types", "text"), OTHERS)
def test_what_is_none(types: str, text: str) -> None:
    assert network_error(Failure(tuple(types.split()), text)) is None


def test_names_are_those_of_the_classes() -> None:
    """Of this Python; tests/network looks at other clients'."""
    for error in (http.client.RemoteDisconnected(""), ssl.SSLEOFError(8, "EOF occurred")):
        assert network_error(failure_of(error))
    bad = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate")
    assert network_error(failure_of(bad)) is None
