"""The ways to run a suite that are compared."""

from __future__ import annotations

from typing import NamedTuple


class Contender(NamedTuple):
    """One way to run a suite.

    :param environment: name of the virtual environment.
    :param plain: what runs the same tests in the same environment without isolation, "" for itself.
    :param workers: number of worker processes; 0 where pytest itself runs the tests.
    :param apart: whether each test has a process of its own.
    :param survives: whether the run goes on after a test that dies.
    :param slow: by how much its suites are smaller than the others'.
    """

    name: str
    environment: str
    arguments: tuple[str, ...]
    plain: str = "plain"
    workers: int = 0
    apart: bool = False
    survives: bool = True
    slow: int = 1


PLAIN, PLAIN_84, RAW = "plain", "plain, pytest 8.4", "raw fork + wait"
_ALONE = ("-p", "no:fkit")


def _ours(workers: int, scope: str) -> Contender:
    name = f"fkit -n{workers}" if scope == "function" else f"fkit -n{workers}, {scope}"
    arguments = ("--fkit", f"-n{workers}", f"--fkit-isolation={scope}")
    return Contender(name, "fkit", arguments, workers=workers, apart=scope == "function")


CONTENDERS = (
    Contender(PLAIN, "fkit", (*_ALONE, "-p", "no:xdist"), plain="", survives=False),
    Contender(RAW, "fkit", (*_ALONE, "-p", "no:xdist", "-p", "raw_fork"), apart=True),
    Contender("xdist -n1", "fkit", (*_ALONE, "-n1"), workers=1),
    Contender("xdist -n2", "fkit", (*_ALONE, "-n2"), workers=2),
    _ours(0, "function"),
    _ours(1, "function"),
    _ours(2, "function"),
    _ours(1, "class"),
    _ours(1, "module"),
    _ours(0, "session"),
    _ours(1, "session"),
    _ours(2, "session"),
    Contender(PLAIN_84, "forked", (), plain="", survives=False),
    Contender("forked", "forked", ("--forked",), plain=PLAIN_84, apart=True),
    Contender("isolate", "isolate", ("--isolate",), plain=PLAIN_84, apart=True),
    Contender("public fkit 0.2.0", "public-fkit", ("--fkit",), apart=True, slow=100),
    Contender("public fkit 0.11.0", "public-fkit-0.11", ("--fkit",), apart=True, slow=100),
)
