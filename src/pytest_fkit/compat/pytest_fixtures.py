"""Private names of pytest's setup state and fixtures."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any, Callable, Iterator, Sequence, cast

import _pytest._code.code
import _pytest.config
import _pytest.debugging
import _pytest.fixtures
import _pytest.junitxml
import _pytest.logging
import _pytest.main
import _pytest.runner
import _pytest.skipping
import _pytest.threadexception
import _pytest.unraisableexception
import _pytest.warnings
import pytest

from ..own import no_warnings, os, own_builtins
from ..system.stack_texts import entries
from .lineage import ancestor
from .pytest_hooks import PROTOCOL, is_foreign, is_pytests, wraps

own_builtins(globals())


def _stack(session: pytest.Session) -> Any:
    return cast("Any", session)._setupstate.stack


def forget_finalizers(
    session: pytest.Session, fixturedefs: Sequence[Any], begun: pytest.Item | None
) -> list[Any]:
    """In a forked process: what the host set up is the host's to tear down.

    :param fixturedefs: those whose finalizers are dropped as well.
    :param begun: an item that the host began to set up, and this process is to tear down.
    :return: what was dropped. It has to be kept alive: the generator of a fixture runs its
        ``finally`` blocks when it is collected.
    """
    dropped: list[Any] = []
    for node, (finalizers, _) in _stack(session).items():
        if node is begun:
            continue
        dropped += finalizers
        del finalizers[:]
    for fixturedef in fixturedefs:
        dropped += fixturedef._finalizers
        # A list that FixtureDef.finish() pops from; bound anew by pytest before 8.1.
        del fixturedef._finalizers[:]
    return dropped


def tear_down(session: pytest.Session, nextitem: pytest.Item | None) -> None:
    """Run the finalizers of all nodes that `nextitem` does not descend from."""
    cast("Any", session)._setupstate.teardown_exact(nextitem)


def needs_tear_down(session: pytest.Session, nextitem: pytest.Item | None) -> bool:
    """Whether :func:`tear_down` would run more than the empty teardown of a collector."""
    needed = nextitem.listchain() if nextitem is not None else []
    stack = _stack(session)
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
    """The first collector above `item` that is not set up and has more than the empty setup."""
    stack = _stack(item.session)
    return next(
        (
            node
            for node in item.listchain()[:-1]
            if type(node).setup is not pytest.Collector.setup and node not in stack
        ),
        None,
    )


def has_setup_of_file(item: pytest.Item) -> bool:
    """Whether the file above an item that is no Python function has a setup of its own."""
    node = ancestor(item, pytest.File)
    if node is None or isinstance(node, (pytest.Module, pytest.Package)):
        return False
    return type(node).setup is not pytest.Collector.setup


def is_set_up(session: pytest.Session, source: Any) -> bool:
    """Whether a collector, or a fixture by its definition, is set up now."""
    if isinstance(source, pytest.Collector):
        return source in _stack(session)
    return source.cached_result is not None


def set_up_collectors(item: pytest.Item) -> None:
    """Set the collectors above `item` up, which is what the setup of an item begins with."""
    assert item.parent is not None
    cast("Any", item.session)._setupstate.setup(item.parent)


def request_fixtures(item: pytest.Item, names: Sequence[str]) -> None:
    """Have the fixtures set up as the item's own setup would, in this order."""
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
    """Have `fill` called once, where the item's setup would ask for all of its fixtures.

    :param fill: is given what does that.
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
    """The wide fixtures for which the item's setup asks before it asks for any other."""
    wide = set(wide_fixtures(item))
    there = cast("Any", item).funcargs
    first = []
    for name in cast("Any", item).fixturenames:
        if name in there:
            continue
        if name not in wide:
            break
        first.append(name)
    return first


def fill_in(item: pytest.Item, name: str) -> None:
    """Ask for one fixture, as the item's setup does, which it is in.

    Who asks again for one that raised gets another try.
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
    if name in cast("Any", item).fixturenames:
        cast("Any", item).funcargs[name] = value


def forget_setup(fixturedef: Any) -> None:
    """Have a fixture that raised, or was not begun, set up by who asks next."""
    fixturedef.cached_result = None
    del fixturedef._finalizers[:]


def expect_log_records(item: pytest.Item) -> None:
    """Let the logging plugin tear down an item that it did not set up in this process."""
    item.stash[_pytest.logging.caplog_records_key] = {}


def take_off_stack(session: pytest.Session, item: pytest.Item) -> None:
    """Forget that the item is being set up, and what it would tear down."""
    _stack(session).pop(item, None)


def raised_in_teardown_of_fixture(error: BaseException) -> bool:
    """Whether a fixture raised this when it was torn down to be set up with another parameter."""
    finish = _pytest.fixtures.FixtureDef.finish.__code__
    return any(entry.tb_frame.f_code is finish for entry in entries(error.__traceback__))


def _request(item: pytest.Item) -> Any:
    request = getattr(item, "_request", None)
    if request is False:  # it ran before in this process
        _begin_request(item)
        request = cast("Any", item)._request
    return request


def _begin_request(item: pytest.Item) -> None:
    # Items of plugins may have a request that is made once.
    if hasattr(item, "_initrequest"):
        cast("Any", item)._initrequest()


def takes_requests(item: pytest.Item) -> bool:
    """Whether fixtures can be requested for `item` before it is set up."""
    return hasattr(item, "_request")


def set_location(item: pytest.Item, location: tuple[str, int | None, str]) -> None:
    """Give `item` the value of its cached property ``location``."""
    if isinstance(getattr(type(item), "location", None), functools.cached_property):
        item.__dict__["location"] = location


def renew_request(item: pytest.Item) -> None:
    """Give `item` back what :func:`forget_request` took: hooks may ask for ``item.funcargs``."""
    _request(item)


def forget_request(item: pytest.Item) -> None:
    """Drop what an item that ran holds, as _pytest.runner.runtestprotocol does."""
    if hasattr(item, "_request") and hasattr(item, "_initrequest"):
        cast("Any", item)._request = False
        cast("Any", item).funcargs = None
    del cast("Any", item)._report_sections[:]


def wide_fixtures(item: pytest.Item) -> list[str]:
    """The names of the fixtures in the item's closure that live longer than the item."""
    return [name for name, _ in _wide_fixtures(item)]


def narrower_scopes(item: pytest.Item) -> set[str]:
    """The scopes of those of these fixtures that live shorter than the session."""
    return {scope for _, scope in _wide_fixtures(item) if scope != "session"}


def missing_fixture(item: pytest.Item) -> str | None:
    """The first of these fixtures that is not set up."""
    names = wide_fixtures(item)
    return next((name for name in names if not _is_there(item, name)), None)


def _is_there(item: pytest.Item, name: str) -> bool:
    cached = cast("Any", item)._fixtureinfo.name2fixturedefs[name][-1].cached_result
    if cached is None:
        return False
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    # The key of what is cached is the parameter; its own comparison may raise, or be an array.
    return name not in parameters or cached[1] is parameters[name]


def others_run(item: pytest.Item) -> bool:
    """Whether a plugin or a conftest.py may run `item` in the place of pytest's own protocol."""
    return not is_pytests(item.config, PROTOCOL) and any(
        is_foreign(each) and not wraps(each) for each in _implementations(item, (PROTOCOL,))
    )


_RUNNING_HOOKS = ("pytest_runtest_protocol", "pytest_runtest_setup")


def set_current_test(item: pytest.Item, when: Any) -> None:
    """Have ``PYTEST_CURRENT_TEST`` name a phase of the item, or nothing.

    :param when: None for nothing.
    """
    if when is not None or "PYTEST_CURRENT_TEST" in os.environ:
        _pytest.runner._update_current_test_var(item, when)


def interacts(call: Any, report: Any) -> bool:
    """Whether pytest calls pytest_exception_interact for what was raised in a phase."""
    return bool(_pytest.runner.check_interactive_exception(call, report))


def report_for_installed(item: pytest.Item, call: Any) -> Any:
    """A report on a phase, of which no conftest.py hears."""
    plugins = item.config.pluginmanager
    others = [each for each in plugins.get_plugins() if _is_conftest(each)]
    make = plugins.subset_hook_caller(_REPORT, others)
    with no_warnings():  # pluggy's, of a plugin that misses what it did in another process
        return make(item=item, call=call)


def installed_hear_reports(item: pytest.Item) -> bool:
    """Whether :func:`report_for_installed` tells somebody who is neither pytest nor we."""
    implementations = _implementations(item, (_REPORT,))
    return any(is_foreign(each) and not _is_conftest(each.plugin) for each in implementations)


_REPORT = "pytest_runtest_makereport"


def _is_conftest(plugin: Any) -> bool:
    path = getattr(plugin, "__file__", None) if isinstance(plugin, ModuleType) else None
    return path is not None and path.endswith("conftest.py")


def starts_threads(item: pytest.Item) -> bool:
    """Whether pytest or pytest-timeout starts a thread that ends a test in time."""
    config = item.config
    has_timeout = config.pluginmanager.hasplugin("faulthandler")
    if has_timeout and float(config.getini("faulthandler_timeout") or 0.0) > 0:
        return True
    method = getattr(config, "_env_timeout_method", "")  # pytest-timeout's
    if method == "":
        return False
    marks = [mark.kwargs.get("method") for mark in item.iter_markers("timeout")]
    return "thread" in (method, *marks)


def wrappers_of_others(item: pytest.Item) -> list[Any]:
    """Wrappers of other plugins that are under way while an item is set up.

    Their attribute ``function`` is what pluggy calls for a generator.
    """
    return [
        each for each in _implementations(item, _RUNNING_HOOKS) if wraps(each) and is_foreign(each)
    ]


def teardowns_of_others(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Iterator[Callable[[], object]]:
    """What plugins do in pytest_runtest_teardown that do something in pytest_runtest_setup.

    Wrappers left out; in the order in which they are called.
    """

    def plain(name: str) -> list[Any]:
        return [
            each for each in _implementations(item, (name,)) if not wraps(each) and is_foreign(each)
        ]

    began = [each.plugin for each in plain("pytest_runtest_setup")]
    given: dict[str, Any] = {"item": item, "nextitem": nextitem}
    for each in reversed(plain("pytest_runtest_teardown")):
        if each.plugin in began:
            arguments = [given[name] for name in each.argnames]
            yield functools.partial(each.function, *arguments)


def _implementations(item: pytest.Item, names: Sequence[str]) -> Iterator[Any]:
    for name in names:
        yield from getattr(item.ihook, name).get_hookimpls()


def _wide_fixtures(item: pytest.Item) -> list[tuple[str, str]]:
    info = getattr(item, "_fixtureinfo", None)
    if info is None:
        return []
    scopes = getattr(getattr(item, "callspec", None), "_arg2scope", {})
    wide = []
    for name in cast("Any", item).fixturenames:
        fixturedefs = info.name2fixturedefs.get(name)
        if not fixturedefs:
            continue
        # What parametrize(scope=...) says wins, as in FixtureRequest._get_active_fixturedef.
        scope = scopes.get(name, fixturedefs[-1]._scope)
        if scope.value == "function":
            continue
        # Outside of a class, pytest takes a class-scoped fixture for one of the test function.
        if scope.value != "class" or ancestor(item, pytest.Class):
            wide.append((name, scope.value))
    return wide
