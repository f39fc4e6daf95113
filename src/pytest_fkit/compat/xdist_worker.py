"""Private names of xdist in a worker, and in a process that stands for one, as at ``-n0``."""

from __future__ import annotations

import functools
import sys
import uuid
from queue import Empty
from types import FrameType
from typing import TYPE_CHECKING, Any, Callable, Dict, Sequence, cast

import _pytest.config
import pytest

from ..own import own_builtins
from .pytest_hooks import WORKERS_MAIN, is_foreign, module_of
from .pytest_nodes import set_nodeid

if TYPE_CHECKING:
    WorkerInput = Dict[str, Any]
    from pluggy import HookImpl
    from xdist.remote import WorkerInteractor

own_builtins(globals())


def apply_xdist_groups(items: Sequence[pytest.Item]) -> None:
    """Give items the node ids, with the name of their group, that xdist means to give them.

    xdist up to 3.8.0 writes an attribute that pytest from 9.2 on does not read (pytest-xdist
    issue 1386).
    """
    for item in items:
        nodeid = getattr(item, "_nodeid", item.nodeid)
        if nodeid != item.nodeid:
            set_nodeid(item, nodeid)


def runs_in_worker() -> bool:
    """Whether this process is an xdist worker, before its ``config`` says so.

    By the name under which execnet runs a worker's main program, as xdist itself does.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == WORKERS_MAIN:
            return True
        frame = frame.f_back
    return False


def worker_interactor(config: pytest.Config) -> WorkerInteractor | None:
    """Xdist's plugin object in a worker."""
    for plugin in config.pluginmanager.get_plugins():
        if type(plugin).__name__ == "WorkerInteractor":
            return cast("WorkerInteractor", plugin)
    return None


def worker_config(
    arguments: list[str],
    workerinput: WorkerInput,
    basetemp: str | None,
    plugins: Sequence[object],
) -> pytest.Config:
    """A configuration as xdist.remote makes it for a worker, in a process that xdist did not start.

    With it tests run without isolation and without workers.

    :param plugins: registered before the command line is parsed.
    """
    config = _pytest.config._prepareconfig(arguments, plugins)
    option = config.option
    option.fkit = False
    option.usepdb = False
    if hasattr(option, "dist"):  # xdist may be disabled
        option.loadgroup = option.dist == "loadgroup"
        option.looponfail = False
        option.dist = "no"
        option.distload = False
        option.numprocesses = None
        option.maxprocesses = None
        option.tx = []
    option.basetemp = basetemp
    given = config.invocation_params
    config.invocation_params = type(given)(args=given.args, plugins=None, dir=given.dir)
    config.workerinput = workerinput  # type: ignore[attr-defined]
    config.workeroutput = {}  # type: ignore[attr-defined]
    if hasattr(option, "dist"):
        config.pluginmanager.register(_Groups(), "fkit-groups")
    if workerinput["workerid"] == _ALONE:
        _hide_worker_input(config)
    return config


_WORKERS_ONLY = ("pytest_retry",)
"""Plugins that ask every worker for what they tell only those of xdist."""


def _hide_worker_input(config: pytest.Config) -> None:
    """Let plugins that could not configure themselves otherwise do so as without workers."""
    for implementation in config.hook.pytest_configure.get_hookimpls():
        if module_of(implementation.plugin).partition(".")[0] in _WORKERS_ONLY:
            replaced = cast("Any", implementation)
            replaced.function = functools.partial(_configure_alone, replaced.function)


def _configure_alone(function: Callable[..., object], config: Any) -> None:
    workerinput = config.workerinput
    del config.workerinput
    try:
        function(config)
    finally:
        config.workerinput = workerinput


class _Groups:
    """Does what xdist's plugin of a worker does at ``--dist loadgroup``, where it is not there."""

    @pytest.hookimpl
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        from xdist.remote import WorkerInteractor

        WorkerInteractor.pytest_collection_modifyitems(self, config, items)
        apply_xdist_groups(items)


_ALONE = "master"
"""What xdist's fixture ``worker_id`` answers where there are no workers."""

_NODE_INPUT: pytest.StashKey[WorkerInput] = pytest.StashKey()


def worker_input(config: pytest.Config) -> WorkerInput:
    """What xdist tells this worker; at ``-n0`` what its fixtures answer there.

    With what plugins added in :func:`configure_node`.
    """
    given: WorkerInput | None = getattr(config, "workerinput", None)
    if given is not None:
        return given
    added = config.stash.get(_NODE_INPUT, {})
    return {**added, "workerid": _ALONE, "testrunuid": uuid.uuid4().hex}


class _Node:
    """Stands for xdist's WorkerController where there are no workers.

    Plugins and conftest files put into ``workerinput`` what they tell workers.
    """

    class _Gateway:
        id = _ALONE

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.workerinput: WorkerInput = {"workerid": _ALONE}
        self.gateway = self._Gateway()


def configures_nodes(config: pytest.Config) -> bool:
    """Whether a plugin or a conftest.py wants to tell workers something."""
    return any(map(is_foreign, _node_hooks(config)))


def _node_hooks(config: pytest.Config) -> Sequence[HookImpl]:
    # xdist declares the hook; without it, whoever implements it declares it by that.
    caller = getattr(config.hook, "pytest_configure_node", None)
    return () if caller is None else caller.get_hookimpls()


def configure_node(config: pytest.Config) -> None:
    """At ``-n0``: ask plugins what they would tell a worker, for fresh interpreters."""
    ours = [each.plugin for each in _node_hooks(config) if not is_foreign(each)]
    node = _Node(config)
    caller = config.pluginmanager.subset_hook_caller("pytest_configure_node", ours)
    caller(node=node)
    config.stash[_NODE_INPUT] = node.workerinput


class AssignedTests:
    """The tests that xdist's controller sends; stands for ``WorkerInteractor``'s own loop."""

    def __init__(self, interactor: WorkerInteractor) -> None:
        self._interactor = interactor
        # Its module is the worker's main program, which can't be imported by name.
        self._shutdown = type(interactor).handle_command.__globals__["Marker"].SHUTDOWN
        self._following: Any = None

    def begin(self) -> None:
        """Listen to the controller."""
        interactor = self._interactor
        interactor.channel.setcallback(interactor.handle_command, endmarker=self._shutdown)
        self._following = self._wait()

    def take(self, most: int) -> tuple[list[int], int | None]:
        """Wait for a test, and for the one after it; take more tests if they are there.

        :return: positions of 1 to `most` tests, none at the end; and of the test after these, None
            if there is none.
        """
        taken: list[int] = []
        while self._following is not self._shutdown and len(taken) < most:
            # xdist's scheduler expects a worker to wait only if it can't begin a test.
            following = self._at_once() if taken else self._wait()
            if following is None:
                break
            taken.append(self._following)
            self._following = following
        return taken, None if self._following is self._shutdown else self._following

    def _wait(self) -> Any:
        # Before xdist 3.7, stealing tests replaces the queue; this waits for the new one.
        get = getattr(self._interactor, "_get_next_item_index", None) or self._interactor.torun.get
        return get()

    def _at_once(self) -> Any:
        queue = self._interactor.torun
        if hasattr(queue, "lock"):
            with queue.lock() as waiting:
                return waiting.popleft() if waiting else None
        try:
            found = queue.get_nowait()
        except Empty:
            return None
        # The marker of a replaced queue is for _wait().
        return found if isinstance(found, int) or found is self._shutdown else None


def worker_facts(interactor: WorkerInteractor) -> WorkerInput:
    """What xdist adds to every report of a worker."""
    return {"worker_id": interactor.workerid, "testrun_uid": interactor.testrunuid}


def worker_descriptors(interactor: WorkerInteractor) -> list[int]:
    """The descriptors by which a worker talks to the controller."""
    io = interactor.channel.gateway._io
    if hasattr(io, "sock"):  # SocketIO, of --tx socket=
        return [io.sock.fileno()]
    return [file.fileno() for file in (io.infile, io.outfile)]


def on_end_of_tests(interactor: WorkerInteractor, action: Callable[[], None]) -> None:
    """In a worker: call `action` when xdist says that there are no more tests, or is gone.

    In execnet's receiver thread. Whatever else xdist says from now on is lost.
    """
    end = object()

    def heard(message: Any) -> None:
        if message is end or message[0] == "shutdown":
            action()

    interactor.channel.setcallback(heard, endmarker=end)


def take_reports_of_interactor(
    config: pytest.Config, interactor: WorkerInteractor, hear: Callable[[pytest.TestReport], None]
) -> None:
    """Call `hear` with each report where xdist's plugin of a worker would send it.

    At that plugin's place among those that hear of reports.
    """
    for name in ("pytest_runtest_logstart", "pytest_runtest_logfinish"):
        getattr(config.hook, name)._remove_plugin(interactor)
    for implementation in config.hook.pytest_runtest_logreport.get_hookimpls():
        if implementation.plugin is interactor:
            replaced = cast("Any", implementation)
            replaced.function, replaced.argnames = lambda report: hear(report), ("report",)
