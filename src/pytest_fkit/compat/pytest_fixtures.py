"""Private names of pytest's setup state and fixtures.

A *wide* fixture is one that lives longer than the test that requests it.
"""

from __future__ import annotations

from typing import Any, Callable, Iterator, Mapping, Sequence, cast

import _pytest.fixtures
import _pytest.logging
import _pytest.runner
import pytest
from _pytest.scope import Scope

from ..own import contextmanager, own_builtins
from ..system.stack_texts import entries
from .pytest_nodes import ancestor

own_builtins(globals())


def _stack(session: pytest.Session) -> dict[Any, Any]:
    """What is set up: finalizers and an error, by node; the session first."""
    stack: Any = session._setupstate.stack
    return stack  # type: ignore[no-any-return]


def put_back(session: pytest.Session, nodes: Mapping[Any, object]) -> None:
    """In a forked process: have these nodes count as set up again, with nothing to tear down.

    :param nodes: what :func:`leave_finalizers` put in.
    """
    stack = _stack(session)
    for node, error in nodes.items():  # what is below them, if anything, comes after all of them
        stack.setdefault(node, ([], error))


def leave_finalizers(
    session: pytest.Session,
    fixturedefs: Sequence[Any],
    begun: pytest.Item | None,
    nodes: dict[Any, object],
) -> list[Any]:
    """In a forked process: drop the finalizers of what the host set up, and will tear down.

    :param fixturedefs: whose finalizers to drop as well.
    :param begun: an item that the host began to set up, and this process is to tear down.
    :param nodes: gets the nodes that the host set up, with their errors.
    :return: what was dropped. Keep it alive: the generator of a fixture runs its ``finally``
        blocks when it is collected.
    """
    dropped: list[Any] = []
    for node, (finalizers, error) in session._setupstate.stack.items():
        if node is begun:
            continue
        nodes[node] = error
        dropped += finalizers
        del finalizers[:]
    for fixturedef in fixturedefs:
        dropped += fixturedef._finalizers
        # A list that FixtureDef.finish() pops from; bound anew by pytest before 8.1.
        del fixturedef._finalizers[:]
    return dropped


def tear_down(session: pytest.Session, nextitem: pytest.Item | None) -> None:
    """Run the finalizers of all nodes that `nextitem` does not descend from."""
    session._setupstate.teardown_exact(nextitem)


def groups_errors_of_teardown() -> bool:
    """Whether several exceptions of one teardown are raised as a group; if not, it is the first."""
    return "exceptions" in _pytest.runner.SetupState.teardown_exact.__code__.co_varnames


def skips_by_groups() -> bool:
    """Whether such a group in which all are skips is a skip."""
    make: Any = pytest.TestReport.from_item_and_call
    return "BaseExceptionGroup" in make.__func__.__code__.co_names


def needs_tear_down(session: pytest.Session, nextitem: pytest.Item | None) -> bool:
    """Whether :func:`tear_down` would run more than the empty teardown of a collector."""
    needed = nextitem.listchain() if nextitem is not None else []
    stack = session._setupstate.stack
    if list(stack) == needed[: len(stack)]:
        return False
    return any(
        len(finalizers) > 1 or type(node).teardown is not pytest.Collector.teardown
        for node, (finalizers, _) in stack.items()
        if node not in needed
    )


def shares_setup(session: pytest.Session, nextitem: pytest.Item) -> bool:
    """Whether all that is set up is what `nextitem` needs, too."""
    return set(_stack(session)) <= set(nextitem.listchain())


def missing_collector(item: pytest.Item) -> Any | None:
    """The first collector above `item` that is not set up and has a setup of its own."""
    stack = item.session._setupstate.stack
    # No generators, here and below: a fork copies the pages of each function that is called.
    for node in item.listchain()[:-1]:
        if type(node).setup is not pytest.Collector.setup and node not in stack:
            return node
    return None


def has_setup_of_file(item: pytest.Item) -> bool:
    """Whether the file above an item that is no Python function has a setup of its own."""
    node = ancestor(item, pytest.File)
    python = (pytest.Module, pytest.Package)
    return node is not None and not isinstance(node, python) and _has_setup(node)


def _has_setup(node: Any) -> bool:
    return type(node).setup is not pytest.Collector.setup


def is_set_up(session: pytest.Session, source: Any) -> bool:
    """Whether a collector, or a fixture by its definition, is set up now."""
    if isinstance(source, pytest.Collector):
        return source in _stack(session)
    return source.cached_result is not None


def set_up_collectors(item: pytest.Item) -> None:
    """Set the collectors above `item` up, which is what the setup of an item begins with."""
    item.session._setupstate.setup(cast("pytest.Item", item.parent))


def request_fixtures(item: pytest.Item, names: Sequence[str]) -> None:
    """Set these fixtures up, in this order, as the item's own setup would."""
    request = _request(item) if names else None
    stack = _stack(item.session)
    # pytest 9.1 on takes requests by an item that is not on the stack for requests in teardown.
    stack[item] = ([], None)
    # Before pytest 8.2 fixtures of a unittest class ask for an instance that setup() makes.
    needs_instance = getattr(item, "_testcase", item) is None
    if needs_instance:
        cast("Any", item)._testcase = cast("Any", item.parent).obj(item.name)
    try:
        for name in names:
            cast("Any", request).getfixturevalue(name)
    except BaseException:
        # Before pytest 8, a request takes a second try for a fixture that depends on itself.
        _begin_request(item)
        raise
    finally:
        del stack[item]
        if needs_instance:
            cast("Any", item)._testcase = None


def fills_in_setup(item: pytest.Item) -> bool:
    """Whether :func:`replace_filling` works for it."""
    return isinstance(item, pytest.Function) and hasattr(_request(item), "_fillfixtures")


def replace_filling(item: pytest.Item, fill: Callable[[Callable[[], None]], None]) -> None:
    """Call `fill`, once, where the item's setup would request all of its fixtures.

    :param fill: gets the function that does so.
    """
    request = _request(item)

    def fill_once() -> None:
        __tracebackhide__ = True
        keep_filling(item)
        fill(request._fillfixtures)

    request._fillfixtures = fill_once


def keep_filling(item: pytest.Item) -> None:
    """Undo :func:`replace_filling`."""
    request = getattr(item, "_request", None)
    if request:
        vars(request).pop("_fillfixtures", None)


def first_wide_fixtures(item: pytest.Item) -> list[str]:
    """The wide fixtures that the item's setup requests before any other."""
    wide = set(wide_fixtures(item))
    there = cast("pytest.Function", item).funcargs
    first = []
    for name in cast("pytest.Function", item).fixturenames:
        if name in there:
            continue
        if name not in wide:
            break
        first.append(name)
    return first


def fill_in(item: pytest.Item, name: str) -> None:
    """Request one fixture from within the item's setup, as that does.

    One that raised can be requested again.
    """
    request = _request(item)
    # Before pytest 8, a request takes a second try for a fixture that depends on itself.
    known = [vars(request).get(each) for each in ("_arg2index", "_fixture_defs")]
    before = [(each, dict(each)) for each in known if isinstance(each, dict)]
    try:
        value = request.getfixturevalue(name)
    except BaseException:
        for each, content in before:
            each.clear()
            each.update(content)
        raise
    if name in cast("pytest.Function", item).fixturenames:
        cast("pytest.Function", item).funcargs[name] = value


def forget_setup(fixturedef: Any) -> None:
    """Let the next request set up a fixture that raised, or whose setup was not begun."""
    fixturedef.cached_result = None
    del fixturedef._finalizers[:]


@contextmanager
def setup_not_begun(fixturedef: Any) -> Iterator[None]:
    """Within the block, another fixture may request one whose setup has been begun."""
    begun = list(fixturedef._finalizers)
    forget_setup(fixturedef)
    try:
        yield
    finally:
        fixturedef._finalizers[:] = begun


def is_wide(request: Any) -> bool:
    """Whether what is requested outlives the test."""
    # Outside of a class, pytest gives a class-scoped fixture the test function as its node.
    return request.scope != "function" and not isinstance(request.node, pytest.Item)


def wide_dependents(request: Any) -> list[str]:
    """The wide fixtures for which this one is set up, the closest first."""
    names = []
    above = getattr(request, "_parent_request", None)  # the test's own request has none
    while above is not None:
        if above.fixturename is not None and is_wide(above):
            names.append(above.fixturename)
        above = getattr(above, "_parent_request", None)
    return names


def expect_log_records(item: pytest.Item) -> None:
    """Let the logging plugin tear down an item that it did not set up in this process."""
    item.stash[_pytest.logging.caplog_records_key] = {}


def take_off_stack(session: pytest.Session, item: pytest.Item) -> None:
    """Forget that the item is being set up, and its finalizers."""
    _stack(session).pop(item, None)


def raised_in_teardown_of_fixture(error: BaseException) -> bool:
    """Whether a fixture raised this in its teardown, before a setup with another parameter."""
    finish = _pytest.fixtures.FixtureDef.finish.__code__
    return any(entry.tb_frame.f_code is finish for entry in entries(error.__traceback__))


def _request(item: pytest.Item) -> Any:
    request = getattr(item, "_request", None)
    if request is False:  # it ran before in this process
        _begin_request(item)
        request = cast("pytest.Function", item)._request
    return request


def _begin_request(item: pytest.Item) -> None:
    # Items of plugins may have one request for all their life.
    if hasattr(item, "_initrequest"):
        cast("pytest.Function", item)._initrequest()


def takes_requests(item: pytest.Item) -> bool:
    """Whether fixtures can be requested for `item` before its setup."""
    return hasattr(item, "_request")


def renew_request(item: pytest.Item) -> None:
    """Undo :func:`forget_request`: hooks may ask for ``item.funcargs``."""
    _request(item)


def forget_request(item: pytest.Item) -> None:
    """Drop what an item that ran holds, as _pytest.runner.runtestprotocol does."""
    function: Any = item
    if hasattr(function, "_request") and hasattr(function, "_initrequest"):
        function._request = False
        function.funcargs = None
    del item._report_sections[:]


def wide_fixtures(item: pytest.Item) -> list[str]:
    """The names of the wide fixtures in the item's closure."""
    return [name for name, _ in _wide_fixtures(item)]


def narrower_scopes(item: pytest.Item) -> set[str]:
    """The scopes of its wide fixtures, but for session."""
    return {scope for _, scope in _wide_fixtures(item) if scope != "session"}


def missing_fixture(item: pytest.Item) -> str | None:
    """The first of its wide fixtures that is not set up."""
    for name, _ in _wide_fixtures(item):
        if not _is_there(item, name):
            return name
    return None


def _is_there(item: pytest.Item, name: str) -> bool:
    function: Any = item
    cached = function._fixtureinfo.name2fixturedefs[name][-1].cached_result
    if cached is None:
        return False
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    # The key of what is cached is the parameter; its own comparison may raise, or be an array.
    return name not in parameters or cached[1] is parameters[name]


def _wide_fixtures(item: pytest.Item) -> list[tuple[str, str]]:
    info = getattr(item, "_fixtureinfo", None)
    if info is None:
        return []
    function: Any = item
    scopes = getattr(getattr(item, "callspec", None), "_arg2scope", {})
    wide = []
    for name in function.fixturenames:
        fixturedefs = info.name2fixturedefs.get(name)
        if not fixturedefs:
            continue
        # parametrize(scope=...) wins, as in FixtureRequest._get_active_fixturedef.
        scope = scopes.get(name, fixturedefs[-1]._scope)
        if scope is Scope.Function:
            continue
        # Outside of a class, a class-scoped fixture lives as long as the test function.
        if scope.value != "class" or ancestor(item, pytest.Class):
            wide.append((name, scope.value))
    return wide
