"""Spawned hosts: fresh interpreters, for tests that can't run in a fork of the worker.

One is started ahead, in the background, for the next test that needs one.
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
from ...config.settings import FOR_FRESH, STARTUP_PATH
from ...gpu.slices.ownership import GPUS_TOLD, OWNED
from ...own import os, own_builtins, subprocess, suppress
from ...protocol.descriptors import slots, write_all
from ...protocol.fresh_start import FreshStart
from ...protocol.messages import Finish, Ready, Run
from ...protocol.plain_values import carriable
from ...protocol.process_keys import ProcessKey
from ...protocol.repetitions import item_at
from ...system.limits import room, status_of
from ..process.coverage import arguments_for_another, input_for_another
from ..process.crash_wait import TRACER, WAITS
from ..process.tree import kill_tree
from . import wrapped
from .enforcing import TERM_GRACE
from .jobs import HostConnection, HostProcess, HostStart
from .supervisor import Supervisor

own_builtins(globals())

# Not -m, which would search an import path that may differ from the worker's. Not the tests'
# sys.path either: modules of the suite in it may shadow those that this needs.
_BOOTSTRAP = (
    "import marshal, os, sys; "
    "file = os.fdopen(int(sys.argv[1]), 'rb'); "
    "sys.path[:] = marshal.load(file); "
    "modules = set(sys.modules); "
    "from pytest_fkit.sandbox.spawned import main; "
    "main(file, *map(int, sys.argv[2:4]), modules)"
)


def exec_host(
    session: pytest.Session, start: HostStart, connection: HostConnection, keeper: int
) -> NoReturn:
    """Exec a fresh interpreter that collects the test's file and serves the keeper.

    Called in a newly forked process; never returns.
    """
    status = 70  # EX_SOFTWARE
    try:
        os.setpgid(0, 0)
        system.die_with_parent(keeper)
        connection.files.install()
        with room():
            told = system.anonymous_file("start")
        write_all(told, _fresh_start(session, start).written())
        os.lseek(told, 0, os.SEEK_SET)
        numbers = (told, connection.link.reader, connection.link.writer)
        for descriptor in (*slots, *numbers):
            os.set_inheritable(descriptor, True)
        flags = cast("Any", subprocess)._args_from_interpreter_flags()
        command = [sys.executable, *flags, "-c", _BOOTSTRAP, *map(str, numbers)]
        # The environment before conftest files changed it, since they will change it again there.
        environ = environment()
        program = sys.executable
        if start.key.wrapper:
            directory = str(session.config.invocation_params.dir)
            path = environ.get("PATH", os.defpath)
            program, *command = wrapped.command(start, command, directory, path)
            os.dup2(slots.out, 1)
            os.dup2(slots.err, 2)
        os.execve(program, command, environ)
    except BaseException as error:  # noqa: BLE001 (nothing may return into the keeper's code)
        status = status_of(error, status)
        with suppress(OSError):
            os.write(slots.err, repr(error).encode("utf-8", "replace"))
    finally:
        os._exit(status)


def _fresh_start(session: pytest.Session, start: HostStart) -> FreshStart:
    config = session.config
    tests, collect, paths = _collection(session, start)
    return FreshStart(
        startup_path=config.stash[STARTUP_PATH],
        path=[str(entry) for entry in sys.path],
        argv=sys.argv,
        writes_bytecode=not sys.dont_write_bytecode,
        arguments=[*arguments_for_another(config), *map(str, config.invocation_params.args)],
        directory=str(config.invocation_params.dir),
        collect=collect,
        paths=paths,
        tests=tests,
        current=os.getcwd(),
        workerinput=carriable(_workerinput(config)),
        basetemp=pytest_session.basetemp(config),
        maxfail=config.option.maxfail,
        force_reruns=getattr(config.option, "force_reruns", None),
        environ=start.key.environ,
        spare=start.spare,
        slots=slots.events,
        waits=config.stash.get(WAITS, False) and not start.key.wrapper,
        tracer=config.stash.get(TRACER, 0),
        wrapped=bool(start.key.wrapper),
    )


def _workerinput(config: pytest.Config) -> dict[str, Any]:
    told: dict[str, Any] = config.stash.get(FOR_FRESH, {})
    found = {**input_for_another(config), **told, **xdist_worker.worker_input(config)}
    found.pop("fkit", None)
    owned = config.stash.get(OWNED, None)
    if owned is not None:
        found[GPUS_TOLD] = owned.to_wire()
    return found


def _collection(
    session: pytest.Session, start: HostStart
) -> tuple[list[tuple[str, int]], list[str], list[str]]:
    """The tests that it is to find, arguments and paths for that; no arguments for everything."""
    items = enumerate(session.items)
    if start.key.collects_all:
        tests = [(item.nodeid, number) for number, item in items]
        return tests, [], []
    first = item_at(session.items, start.position)
    tests = [(item.nodeid, number) for number, item in items if item.path == first.path]
    paths = [str(node.path) for node in lineage(first)][:-1]
    return tests, _collection_arguments(first, tests), paths


def _collection_arguments(item: pytest.Item, tests: list[tuple[str, int]]) -> list[str]:
    """The arguments that replace those of the command line, to collect the file of a test.

    Arguments of the command line that lead to the file are kept: outside of the root directory,
    node ids are relative to them. :class:`.spawned._OnlyFiles` ignores what else they lead to.
    """
    found = pytest_session.arguments_leading_to(item.config, item.path)
    # Else a plugin collected the file. With --keep-duplicates it may be there several times.
    times = max(Counter(nodeid for nodeid, _ in tests).values())
    return found or [str(item.path)] * times


class Spare:
    """At most one spawned host, started ahead: for the next module, or if the current host dies."""

    def __init__(self, supervisor: Supervisor, fork: Callable[[HostStart], HostProcess]) -> None:
        self._supervisor = supervisor
        self._fork = fork

    def warm(self, run: Run) -> None:
        """Called when a test starts: start the host that the next test needs if this one dies.

        Spares for any other process are dismissed.
        """
        waiting = self._find(run.next_key)
        for host in self._supervisor.spares:
            if host is not waiting:
                self._dismiss(host)
        # A wrapper's process is made for its test alone: the folder is that test's.
        if waiting is None and run.next_key.is_spawned and not run.next_key.wrapper:
            start = HostStart(run.next_key, run.next_position, spare=True)
            with suppress(OSError):  # a limit; if it persists, the next test reports it
                self._supervisor.spares.append(self._fork(start))

    def claim(self, run: Run) -> HostProcess | None:
        """Hand out the spare if it fits a test; it may still be collecting."""
        host = self._find(run.key)
        if host is not None:
            self._supervisor.spares.remove(host)
            self._supervisor.orphans.record_daemons(host)
        return host

    def end(self) -> None:
        """Dismiss the spare, and wait until it has ended."""
        for host in self._supervisor.spares:
            self._dismiss(host)
        if not self._supervisor.until(lambda: not self._supervisor.spares, TERM_GRACE):
            for host in self._supervisor.spares:
                kill_tree(host.pid)
            self._supervisor.until(lambda: not self._supervisor.spares, TERM_GRACE)

    def _find(self, key: ProcessKey) -> HostProcess | None:
        found = (host for host in self._supervisor.spares if not host.retire and host.key == key)
        return next(found, None)

    def _dismiss(self, host: HostProcess) -> None:
        """End a spare: by Finish, to run its session hooks, if it is ready, else by SIGKILL."""
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
