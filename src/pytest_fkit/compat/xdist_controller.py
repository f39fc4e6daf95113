"""Private names of xdist on the controller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence, cast

import pytest

from ..own import own_builtins
from .pytest_hooks import module_of

if TYPE_CHECKING:
    from execnet import Gateway, XSpec
    from xdist.dsession import DSession
    from xdist.workermanage import WorkerController

own_builtins(globals())


def end_gateway(gateway: Gateway) -> None:
    """Cut the connection to a worker, so that it ends, and its death is noticed.

    execnet ends a gateway's own process, if it has one; a socket is shut down.
    """
    io = gateway._io
    if hasattr(io, "sock"):  # SocketIO
        io.close_write()
        io.close_read()
    else:
        io.kill()


def replace_makegateway(
    config: pytest.Config, make: Callable[[XSpec], Gateway]
) -> Callable[[XSpec], Gateway]:
    """Have xdist start its workers by `make`; execnet's function, which that can call."""
    group = dist_session(config).nodemanager.group
    before: Callable[[XSpec], Gateway] = group.makegateway
    group.makegateway = make
    return before


def know_process(gateway: Gateway) -> None:
    """Ask a gateway for what xdist is going to ask it for, and waits for; execnet keeps it."""
    gateway._rinfo()


def as_remote(node: WorkerController) -> None:
    """Have a worker keep the ``sys.path`` of its own machine, from pytest_configure_node on.

    execnet says "popen" of every process that it starts by a command, and xdist gives such a one
    the path of the controller. Before the worker is replaced `popen` has to be set again.
    """
    node.gateway.spec.popen = None


def xdist_interruption() -> type[BaseException]:
    """What xdist's controller raises in place of Session.Failed and Session.Interrupted."""
    from xdist.dsession import Interrupted

    return cast("type[BaseException]", Interrupted)


def grant_restart(config: pytest.Config) -> None:
    """Don't count the worker that just died against ``--max-worker-restart``.

    Called from pytest_testnodedown, after which DSession adds one.
    """
    dist_session(config)._failed_nodes_count -= 1


def call_on_main_loop(config: pytest.Config, action: Callable[[], None]) -> None:
    """Have DSession's loop call `action` soon; from any thread."""
    session = dist_session(config)
    cast("Any", session).worker_fkit = action  # the loop calls "worker_" + the name of an event
    session.queue.put(("fkit", {}))


def all_have_collected(config: pytest.Config) -> bool:
    """Whether xdist can distribute the tests, or has."""
    return bool(dist_session(config).sched.collection_is_completed)


def dist_session(config: pytest.Config) -> DSession:
    """DSession, which handles events of workers.

    By the methods ``worker_logstart``, ``worker_testreport``, ``worker_logfinish`` and
    ``worker_runtest_protocol_complete``.
    """
    return cast("DSession", config.pluginmanager.getplugin("dsession"))


def xdist_gave_up(config: pytest.Config) -> str:
    """Why DSession ended the run while tests were left, "" if it did not, or is not there."""
    session = dist_session(config)
    return str(session._summary_report or "") if session is not None else ""


def count_crash(config: pytest.Config, report: pytest.TestReport) -> None:
    """Count a test that died with its worker for ``-x`` and ``--maxfail``, as xdist does not.

    :param report: that of xdist, after pytest_handlecrashitem.
    """
    dist_session(config)._handlefailures(report)


def on_worker_death(
    config: pytest.Config, handle: Callable[[WorkerController, object], None]
) -> None:
    """Call `handle` with a dead worker and the error, in place of DSession's method."""
    dist_session(config).worker_errordown = handle


def active_nodes(config: pytest.Config) -> set[WorkerController]:
    """The workers that run, or are about to; DSession's own set."""
    return cast("set[WorkerController]", dist_session(config)._active_nodes)


def is_stopping(config: pytest.Config) -> bool:
    """Whether DSession lets workers come to their end."""
    return bool(dist_session(config).shouldstop)


def set_tests_collected(config: pytest.Config, number: int) -> None:
    """Set the number of tests; DSession takes that of the last worker."""
    dist_session(config)._session.testscollected = number


def restart_limit(config: pytest.Config) -> int | None:
    """What ``--max-worker-restart`` says, None if nothing."""
    text = config.getoption("maxworkerrestart", None)
    return None if text is None else int(text)


def give_up_restarts(config: pytest.Config, reason: str) -> None:
    """Say in xdist's summary why workers were not replaced."""
    dist_session(config)._summary_report = reason


def replace_worker(config: pytest.Config, node: WorkerController) -> None:
    """Start another worker in the place of a dead one."""
    session = dist_session(config)
    session.shuttingdown = False
    session._clone_node(node)


def new_id(config: pytest.Config, spec: XSpec) -> None:
    """Give a specification the id of the next worker, as xdist does before it starts one again."""
    spec.id = None
    dist_session(config).nodemanager.group.allocate_id(spec)


def replace_by_opened(config: pytest.Config, spec: XSpec) -> None:
    """Start another worker, whose specification has got its :func:`new_id`."""
    session = dist_session(config)
    session.shuttingdown = False
    node = session.nodemanager.setup_node(spec, session.queue.put)
    session._active_nodes.add(node)


def stop_run(config: pytest.Config, reason: str) -> None:
    """Have DSession's loop interrupt the run, as for ``--maxfail``."""
    dist_session(config).shouldstop = reason


def end_run(config: pytest.Config) -> None:
    """Have all workers end, as when all tests are through."""
    dist_session(config).triggershutdown()


def report_line(config: pytest.Config, line: str) -> None:
    """Write a line as DSession does."""
    dist_session(config).report_line(line)


def report_crash(config: pytest.Config, nodeid: str, node: WorkerController) -> None:
    """Report the test that a worker was running when it died."""
    dist_session(config).handle_crashitem(nodeid, node)


def same_collections(
    config: pytest.Config, collections: Mapping[WorkerController, Sequence[str]]
) -> bool:
    """Whether all workers collected the same; if not, report the difference as xdist does."""
    from xdist.report import report_collection_diff

    (first, expected), *others = collections.items()
    texts = [
        (node, report_collection_diff(expected, ids, first.gateway.id, node.gateway.id))
        for node, ids in others
    ]
    for node, text in texts:
        if text:
            report = pytest.CollectReport(node.gateway.id, "failed", text, [])
            config.hook.pytest_collectreport(report=report)
    return not any(text for _, text in texts)


def other_schedulers(config: pytest.Config) -> bool:
    """Whether a plugin or a conftest.py brings a scheduler of its own."""
    made = config.hook.pytest_xdist_make_scheduler.get_hookimpls()
    modules = {module_of(each.plugin).partition(".")[0] for each in made}
    return bool(modules - {"xdist", "pytest_fkit"})
