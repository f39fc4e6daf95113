"""Errors of the network, raised by HTTP clients against a server that breaks its connections."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import closing
from typing import Any, Iterator

import pytest

from broken_server import BrokenServer
from pytest_fkit.gpu.errors.failure import failure_of
from pytest_fkit.gpu.errors.network import network_error

# An HTTPError of urllib is an open response.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)

BROKEN = ("503", "429", "502", "reset", "close", "silence", "half")
FINE = ("404", "403")
NOWHERE = "http://nowhere.invalid/"
LIMIT = 0.5
"""Seconds that clients wait."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with closing(BrokenServer()) as found:
        yield found.address


@pytest.fixture(scope="module")
def nobody() -> Iterator[str]:
    """The address of a port at which nobody listens."""
    import socket

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/"


def _requests(address: str) -> None:
    requests = pytest.importorskip("requests")
    requests.get(address, timeout=LIMIT).raise_for_status()


def _urllib3(address: str) -> None:
    urllib3 = pytest.importorskip("urllib3")
    retry = urllib3.Retry(1, status_forcelist=[429, 502, 503], backoff_factor=0)
    answer = urllib3.PoolManager(retries=retry, timeout=LIMIT).request("GET", address)
    if answer.status >= 400:
        raise ValueError(answer.status)


def _httpx(address: str) -> None:
    httpx = pytest.importorskip("httpx")
    httpx.get(address, timeout=LIMIT).raise_for_status()


def _aiohttp(address: str) -> None:
    aiohttp = pytest.importorskip("aiohttp")

    async def get() -> None:
        limits = aiohttp.ClientTimeout(sock_read=LIMIT, sock_connect=LIMIT)
        async with aiohttp.ClientSession(timeout=limits) as session, session.get(address) as answer:
            answer.raise_for_status()
            await answer.read()

    asyncio.run(get())


def _urllib(address: str) -> None:
    import urllib.request

    with urllib.request.urlopen(address, timeout=LIMIT) as answer:
        answer.read()


CLIENTS = (_urllib, _urllib3, _requests, _httpx, _aiohttp)


def _said(client: Any, address: str) -> str | None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 (of any class)
        client(address)
    return network_error(failure_of(caught.value))


@pytest.mark.parametrize("client", CLIENTS, ids=lambda each: each.__name__.strip("_"))
def test_a_client(client: Any, server: str, nobody: str) -> None:
    for path in BROKEN:
        assert _said(client, f"{server}/{path}"), path
    assert _said(client, nobody)
    assert _said(client, NOWHERE)
    for path in FINE:
        assert _said(client, f"{server}/{path}") is None, path
    assert _said(client, "nonsense://x/") is None


def test_a_certificate_that_is_wrong(tmp_path: Any) -> None:
    """A server whose certificate nobody knows is no error that another attempt does not meet."""
    import http.server
    import ssl
    import threading

    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out",
         "certificate", "-days", "1", "-subj", "/CN=localhost"],
        cwd=tmp_path, check=False, capture_output=True,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("no openssl")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        for client in CLIENTS:
            assert _said(client, f"https://127.0.0.1:{server.server_port}/") is None, client
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


_HUB = """\
import sys
from pytest_fkit.gpu.errors.failure import failure_of
from pytest_fkit.gpu.errors.network import network_error
from huggingface_hub import HfApi, hf_hub_download

for asked in (
    lambda: HfApi(endpoint=sys.argv[1]).model_info("a/b", timeout=0.5),
    lambda: hf_hub_download("a/b", "config.json", endpoint=sys.argv[1]),
):
    try:
        asked()
    except Exception as error:
        print(network_error(failure_of(error)))
"""


@pytest.mark.parametrize(
    ("path", "offline", "expected"),
    [("503", "0", 2), ("reset", "0", 2), ("404", "0", 0), ("503", "1", 0)],
)
def test_the_hub(server: str, tmp_path: Any, path: str, offline: str, expected: int) -> None:
    """Its own classes say less than what they are raised from. It makes six attempts itself."""
    pytest.importorskip("huggingface_hub")
    environ = {
        **os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": offline,
        "HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1",
    }  # fmt: skip
    asked = [sys.executable, "-c", _HUB, f"{server}/{path}"]
    ended = subprocess.run(asked, env=environ, check=True, capture_output=True, text=True)
    said = ended.stdout.splitlines()
    assert len(said) == 2, ended
    assert sum(each != "None" for each in said) == expected, said
