"""Which exceptions are errors of the network: raised by the standard library or an HTTP client."""

from __future__ import annotations

import re

from ...own import own_builtins
from .failure import Failure

own_builtins(globals())

# Names of classes, as raised by Python 3.8 to 3.13, urllib3 1.26 and 2, requests 2, httpx 0.28 and
# httpx2, aiohttp 3 and huggingface_hub 0.35 and 2 against a server that breaks its connections.
# tests/network raises them. Compiled when this is imported, which is where they are looked for.
_CLASSES = re.compile(
    r"socket\.gaierror"
    r"|builtins\.Connection(?:Aborted|Refused|Reset)?Error"
    r"|http\.client\.(?:RemoteDisconnected|IncompleteRead)"
    r"|urllib\.error\.ContentTooShortError"
    r"|ssl\.SSLEOFError"
    r"|urllib3\.exceptions\.(?:ConnectTimeoutError|IncompleteRead|NameResolutionError"
    r"|NewConnectionError|ProtocolError|ReadTimeoutError)"
    r"|requests\.exceptions\.(?:ChunkedEncodingError|ConnectionError|ConnectTimeout|ReadTimeout)"
    r"|http(?:x|core)2?\.(?:ConnectError|ConnectTimeout|ReadError|ReadTimeout|RemoteProtocolError"
    r"|WriteError|WriteTimeout)"
    r"|aiohttp\.client_exceptions\.(?:ClientConnectionError|ClientPayloadError)"
)

# Other classes by their messages. A TimeoutError without one may be anybody's.
_MESSAGES = (
    (
        re.compile(r"(?:builtins\.TimeoutError|socket\.timeout)"),
        re.compile(
            r"timed out|(?:_ssl\.c:\d+: )?The (?:read|write|handshake) operation timed out"
            r"|\[Errno \d+\] Connection timed out.*"
        ),
    ),
    (
        re.compile(r"builtins\.OSError"),
        re.compile(
            r"\[Errno \d+\] (?:Network is unreachable|No route to host).*"
            r"|Tunnel connection failed: (?:429|5\d\d)\b.*"
        ),
    ),
    (
        re.compile(r"urllib3\.exceptions\.(?:MaxRetryError|ResponseError)"),
        re.compile(r".*\btoo many (?:429|5\d\d) error responses\b.*"),
    ),
    (re.compile(r"http(?:x|core)2?\.ProxyError"), re.compile(r"(?:429|5\d\d)\b.*")),
)

# Of these another attempt meets the same.
_LASTING_CLASSES = re.compile(
    r"builtins\.BrokenPipeError"  # of a subprocess as well as of a socket
    r"|ssl\.SSLCertVerificationError|aiohttp\.client_exceptions\.ClientSSLError"
    r"|huggingface_hub\.\w+\.OfflineModeIsEnabled"
)
_LASTING_MESSAGES = re.compile(
    r"\[SSL: (?!UNEXPECTED_EOF)|too many redirects|Tunnel connection failed: 4(?!29)"
)


def network_error(failure: Failure) -> str | None:
    """What the failure says if it is an error of the network, as in "ReadTimeout: timed out".

    The exception or one that it was raised from has to be one: a text is not enough.
    """
    for link in (failure, *failure.causes):
        if _is_one(link):
            name = link.types[0].rpartition(".")[2]
            first = link.text.strip().partition("\n")[0].strip()
            return f"{name}: {first}" if first else name
    return None


def _is_one(link: Failure) -> bool:
    if link.status is not None:
        return link.status == 429 or 500 <= link.status < 600
    if any(map(_LASTING_CLASSES.fullmatch, link.types)) or _LASTING_MESSAGES.search(link.text):
        return False
    if any(map(_CLASSES.fullmatch, link.types)):
        return True
    first = link.text.strip().partition("\n")[0]
    return any(
        message.fullmatch(first) and any(map(name.fullmatch, link.types))
        for name, message in _MESSAGES
    )
