"""Hosts that are fresh interpreters, where a forked copy of the worker would not do.

One is warmed up in the background, for the next test that needs one.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any, Callable, NoReturn, cast

import pytest

from ... import system
from ...compat import pytest_session, xdist_worker
from ...compat.pytest_nodes import lineage
from ...config.first_environment import environment
from ...config.settings import STARTUP_PATH
from ...gpu.slices.ownership import KEY, TOLD
from ...own import marshal, os, own_builtins, standard_library_first, subprocess, suppress
from ...protocol.descriptors import slots, write_all
from ...protocol.messages import Finish, Ready, Run
from ...protocol.plain_values import carriable
from ...protocol.process_names import SPAWNED, SPAWNED_SESSION
from ...system.limits import room, status_of
from ..process.coverage import arguments_for_another, input_for_another
from ..process.tree import kill_tree
from .enforcing import TERM_GRACE
from .jobs import HostProcess, Start, Ties
from .supervisor import Supervisor

own_builtins(globals())

# -m would ask an import path that may have been a worker's only. Not the path that the tests will
# see: there may be modules of the suite's own in it that have the names of those that we need.
_BOOTSTRAP = (
    "import marshal, os, sys; "
    "spec = marshal.loads(os.pread(int(sys.argv[1]), int(sys.argv[2]), 0)); "
    "os.close(int(sys.argv[1])); "
    "sys.path[:] = spec['own_path']; "
    "modules = set(sys.modules); "
    "from pytest_fkit.sandbox.spawned import main; "
    "main(spec, *map(int, sys.argv[3:5]), modules)"
)


def exec_host(session: pytest.Session, start: Start, ties: Ties, keeper: int) -> NoReturn:
    """Become a fresh interpreter that collects the file of a test and serves the keeper.

    Called in a new process.
    """
    status = 70  # EX_SOFTWARE
    try:
        os.setpgid(0, 0)
        system.die_with_parent(keeper)
        ties.files.install()
        data = marshal.dumps(_spec(session, start))
        with room():
            spec = system.anonymous_file("spec")
        write_all(spec, data)
        for descriptor in (*slots, ties.link.reader, ties.link.writer, spec):
            os.set_inheritable(descriptor, True)
        flags = cast("Any", subprocess)._args_from_interpreter_flags()
        numbers = (spec, len(data), ties.link.reader, ties.link.writer)
        command = [sys.executable, *flags, "-c", _BOOTSTRAP, *map(str, numbers)]
        # Conftest files change it there as they did here.
        os.execve(sys.executable, command, environment())
    except BaseException as error:  # noqa: BLE001 (nothing may return into the keeper's code)
        status = status_of(error, status)
        with suppress(OSError):
            os.write(slots.err, repr(error).encode("utf-8", "replace"))
    finally:
        os._exit(status)


def _spec(session: pytest.Session, start: Start) -> dict[str, Any]:
    """What the interpreter has to know, in built-in types.

    The command line stays as it is, so that the same conftest files are the initial ones, in the
    directory for which it was meant; what is collected is said apart.
    """
    config = session.config
    whole = start.share == SPAWNED_SESSION
    first = session.items[start.position]
    tests = [
        (item.nodeid, number)
        for number, item in enumerate(session.items)
        if whole or item.path == first.path
    ]
    orders = {**input_for_another(config), **xdist_worker.worker_input(config)}
    orders.pop("fkit", None)
    owned = config.stash.get(KEY, None)
    if owned is not None:
        orders[TOLD] = owned.to_wire()
    startup_path = config.stash[STARTUP_PATH]
    return {
        "own_path": standard_library_first(startup_path),
        "startup_path": startup_path,
        "path": [str(entry) for entry in sys.path],
        "argv": sys.argv,
        "writes_bytecode": not sys.dont_write_bytecode,
        "arguments": [
            *arguments_for_another(config),
            *(str(each) for each in config.invocation_params.args),
        ],
        "directory": str(config.invocation_params.dir),
        "current": os.getcwd(),
        "collect": [] if whole else _arguments(first, tests),
        "paths": [] if whole else [str(node.path) for node in lineage(first)][:-1],
        "workerinput": carriable(orders),
        "basetemp": pytest_session.basetemp(config),
        "tests": tests,
        "spare": start.spare,
        "environ": start.environ,
        "slots": slots.events,
    }


def _arguments(item: pytest.Item, tests: list[tuple[str, int]]) -> list[str]:
    """What to collect in the place of what the command line names.

    Node ids begin at what it names where that is outside of the root directory, so it is named as
    it was; see :class:`.spawned._Only` for what else it leads to.
    """
    found = pytest_session.arguments_leading_to(item.config, item.path)
    # Else a plugin collected the file, which may be named several times (--keep-duplicates).
    times = max(Counter(nodeid for nodeid, _ in tests).values())
    return found or [str(item.path)] * times


class Spare:
    """There is one at most: it takes the place of a host that dies, or is the next module's.

    :param fork: starts a host.
    """

    def __init__(self, below: Supervisor, fork: Callable[[Start], HostProcess]) -> None:
        self._below = below
        self._fork = fork

    def warm(self, run: Run) -> None:
        """While a test runs: have ready what the test after it will need, if this one dies, too."""
        waiting = self._waiting(run.next_share, run.next_environ)
        for host in self._below.spares:
            if host is not waiting:
                self._let_go(host)
        if waiting is None and run.next_share.startswith(SPAWNED):
            start = Start(run.next_share, run.next_position, spare=True, environ=run.next_environ)
            with suppress(OSError):  # a limit; where it still is one, the next test will say so
                self._below.spares.append(self._fork(start))

    def take(self, run: Run) -> HostProcess | None:
        """The spare, if it is for this test; it may still be on its way."""
        host = self._waiting(run.share, run.environ)
        if host is not None:
            self._below.spares.remove(host)
            self._below.orphans.note_daemons(host)
        return host

    def end(self) -> None:
        """Let go of it, and wait until it is gone."""
        for host in self._below.spares:
            self._let_go(host)
        if not self._below.until(lambda: not self._below.spares, TERM_GRACE):
            for host in self._below.spares:
                kill_tree(host.pid)
            self._below.until(lambda: not self._below.spares, TERM_GRACE)

    def _waiting(self, share: str, environ: tuple[tuple[str, str], ...]) -> HostProcess | None:
        found = (
            host
            for host in self._below.spares
            if not host.retire and (host.share, host.environ) == (share, environ)
        )
        return next(found, None)

    def _let_go(self, host: HostProcess) -> None:
        """End it: in order, for what its session hooks began, if it has come so far."""
        if host.retire:
            return
        host.retire = True
        if host.link.is_readable(0.0) and host.link.read():
            ready = any(isinstance(message, Ready) for message in host.link.take_messages())
            with suppress(OSError):  # it is dead
                if ready:
                    host.link.send(Finish(0.0))
                    return
        kill_tree(host.pid)
