"""The local ends of connections to other machines, and what is waited for there: within limits."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Callable, TypeVar

import execnet

from ... import system
from ...compat import xdist_controller
from ...named_tuple import NamedTuple
from ...own import os, own_builtins, signal, suppress, threading
from ...system import paths
from .engines import Target, specification

if TYPE_CHECKING:
    from execnet import Gateway

own_builtins(globals())

T = TypeVar("T")

_KILL_WAIT = 5.0
"""Seconds in which a local end has to be gone after SIGKILL."""

_LINES = 3
"""Last lines of a command's output that are shown."""


class NotReachedError(Exception):
    """A machine does not do what is waited for; the text says why."""


class Client(NamedTuple):
    """A command that reaches a machine, and the files that it writes.

    :param python: the command of the Python there.
    :param note: path of the file with its pid.
    :param errors: path of the file with what it says, "" if that goes to standard error.
    """

    machine: Target
    python: tuple[str, ...]
    note: str
    errors: str = ""

    @property
    def specification(self) -> str:
        return specification(self.machine, self.python, self.note, self.errors)

    def kill(self) -> None:
        """End it, with what it has started here."""
        with suppress(OSError, ValueError):
            pid = int(paths.read_text(self.note))
            # Of a process that is not ours any more the number may be somebody else's.
            if pid in system.descendants(os.getpid()):
                os.killpg(pid, signal.SIGKILL)  # it leads a group

    def said(self) -> str:
        """What it said last, "" if nothing."""
        try:
            lines = [each.strip() for each in paths.read_lines(self.errors)] if self.errors else []
        except OSError:
            return ""
        return " | ".join(list(filter(None, lines))[-_LINES:])


def open_within(seconds: float, client: Client, open_it: Callable[[], Gateway]) -> Gateway:
    """The gateway to a machine, once the Python there has answered.

    :raises NotReachedError: if it does not.
    """
    found: list[Any] = []

    def attempt() -> None:
        gateway = None
        try:
            gateway = open_it()
            # execnet returns one even if there is nobody; and xdist asks without a limit.
            xdist_controller.know_process(gateway)
            found.append(gateway)
        except BaseException as error:  # noqa: BLE001 (in a thread, where nobody would hear of it)
            if gateway is not None:
                gateway.exit()
            found.append(error)

    with suppress(OSError):
        os.unlink(client.note)  # of the one before it
    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    in_time = bool(found)
    if not in_time:
        client.kill()
        thread.join(_KILL_WAIT)
    if in_time and not isinstance(found[0], BaseException):
        gateway: Gateway = found[0]
        return gateway
    if found and not isinstance(found[0], BaseException):
        found[0].exit()
    raise NotReachedError(_trouble(client, found[0] if in_time else None, seconds))


def asked(seconds: float, client: Client, ask: Callable[[], T]) -> T:
    """The answer to a question by a channel.

    :param seconds: within which `ask` has it, or raises execnet.TimeoutError.
    :raises NotReachedError: if there is none.
    """
    try:
        return ask()
    except execnet.TimeoutError:
        raise NotReachedError(_trouble(client, None, seconds)) from None
    except (execnet.RemoteError, EOFError, OSError) as error:
        raise NotReachedError(_trouble(client, error, seconds)) from None


def _trouble(client: Client, error: BaseException | None, seconds: float) -> str:
    """Why a machine was not reached.

    :param error: None if it has not answered in time.
    """
    said = client.said()
    if error is None:
        text = f"no answer within {seconds:g} s"
        return f"{text}: {said}" if said else text
    if isinstance(error, AssertionError):  # execnet's, about the first byte
        return (
            "something other than Python writes to its standard output, such as a greeting in a "
            "start-up file of the shell"
        )
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{error.strerror} on this machine; raise the limit with `ulimit -n`"
    if said:
        return said
    if isinstance(error, (EOFError, OSError)):
        return "the connection was closed"
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def temporary_folder() -> str:
    """A new folder that nobody else can read.

    :raises OSError: if none can be made.
    """
    place = os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 (with a name that nobody knows)
    path = f"{place.rstrip('/')}/pytest-fkit-{os.getpid()}-{os.urandom(8).hex()}"
    os.mkdir(path, 0o700)
    return path
