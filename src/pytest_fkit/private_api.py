"""Every use of a private name of pytest, pluggy or xdist.

Checked against pytest 7.0.0 to 9.2.0, pluggy 1.2 to 1.7 and pytest-xdist 3.6.1 to 3.8.0;
``tests/test_private_api.py`` fails first when one of them changes.
"""

from __future__ import annotations

import functools
import io
import pdb
import sys
import uuid
from queue import Empty
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping, Sequence, TextIO, cast

import _pytest._code.code
import _pytest.config
import _pytest.debugging
import _pytest.fixtures
import _pytest.junitxml
import _pytest.main
import _pytest.runner
import _pytest.skipping
import _pytest.threadexception
import _pytest.unraisableexception
import _pytest.warnings
import pytest
from _pytest.config import create_terminal_writer
from _pytest.stash import StashKey

from .nodes import ancestor
from .own import contextmanager, no_warnings, os, own_builtins
from .stack_texts import entries

if TYPE_CHECKING:
    from pathlib import Path

own_builtins(globals())

# --- ini values (_pytest.config.Config) ---------------------------------------------------------


def ini_value(config: pytest.Config, name: str) -> Any:
    """An ini value as the file has it.

    In pytest 9's native TOML (``pytest.toml``, ``[tool.pytest]``) it may be a number, a boolean or
    a list, which ``getini`` refuses if a text was declared. ``Config._inicfg`` has what the file
    says, and what ``-o`` says instead.

    :return: "" or None where it is not given.
    :raises ValueError: if nobody declared it.
    """
    given = getattr(config, "_inicfg", {}).get(name)
    if given is not None and (given.mode == "toml" or not isinstance(given.value, str)):
        return given.value
    return config.getini(name)


# --- hooks (pluggy) -----------------------------------------------------------------------------


def silence_hook(
    config: pytest.Config, name: str, keep: Sequence[object], foreign: bool = False
) -> None:
    """Take all implementations of hook `name` out, except those of the plugins in `keep`.

    pluggy can only unregister whole plugins; ``HookCaller._remove_plugin`` is what that calls.

    :param foreign: keep those, too, that are neither pytest's nor ours, nor a worker's own.
    """
    caller = getattr(config.hook, name)
    for implementation in caller.get_hookimpls():
        if implementation.plugin not in keep and not (foreign and _is_foreign(implementation)):
            caller._remove_plugin(implementation.plugin)


def silence_pytest_forked(config: pytest.Config) -> None:
    """Keep pytest-forked, whose option and mark are satisfied, from forking once more."""
    caller = config.hook.pytest_runtest_protocol
    for implementation in caller.get_hookimpls():
        if _module(implementation.plugin) == "pytest_forked":
            cast("Any", caller)._remove_plugin(implementation.plugin)


_REPORTERS_HOOKS = frozenset(
    {
        "pytest_collectreport", "pytest_report_teststatus", "pytest_runtest_logreport",
        "pytest_sessionfinish", "pytest_terminal_summary", "pytest_unconfigure",
        "pytest_warning_recorded",
    }
)  # fmt: skip


def _is_of_tests(config: pytest.Config, implementation: Any) -> bool:
    """Whether a foreign plugin that hears when tests begin hears nothing else of their outcome.

    What it does then is for the test, such as to keep its name; so it is told in its process.
    """
    callers = config.pluginmanager.get_hookcallers(implementation.plugin) or ()
    return _is_foreign(implementation) and not any(
        each.name in _REPORTERS_HOOKS for each in callers
    )


_RUNNING = frozenset(
    {
        "pytest_fixture_post_finalizer", "pytest_fixture_setup", "pytest_pyfunc_call",
        "pytest_runtest_call", "pytest_runtest_makereport", "pytest_runtest_protocol",
        "pytest_runtest_setup", "pytest_runtest_teardown",
    }
)  # fmt: skip
_REPORTED = frozenset(
    {"pytest_report_teststatus", "pytest_runtest_logreport", "pytest_terminal_summary"}
)
_BEGINNING = frozenset({"pytest_configure", "pytest_sessionstart"})
_COLLECTS_IN_TESTS = frozenset({"inline-snapshot-plugin"})


def plugins_of_tests(config: pytest.Config, begun: bool) -> dict[str, Any]:
    """Plugins whose conclusions at the end are on what they saw where tests ran, by their names.

    They have a part in running tests, and hear of no reports; or they are known to be of this kind.

    :param begun: leave out those that may have begun something before any test.
    """
    elsewhere = _REPORTED | _BEGINNING if begun else _REPORTED
    plugins = config.pluginmanager
    found = {}
    for implementation in config.hook.pytest_sessionfinish.get_hookimpls():
        name = plugins.get_name(implementation.plugin) or ""
        hooks = {each.name for each in plugins.get_hookcallers(implementation.plugin) or ()}
        runs = hooks & _RUNNING and not hooks & elsewhere and _is_foreign(implementation)
        if name and (runs or name in _COLLECTS_IN_TESTS):
            found[name] = implementation.plugin
    return found


def finish_session(session: pytest.Session, finished: Sequence[object]) -> int | None:
    """Tell these plugins that the session is over; the exit status that they want, if another."""
    plugins = session.config.pluginmanager
    others = [each for each in plugins.get_plugins() if not any(each is one for one in finished)]
    session.exitstatus = pytest.ExitCode.TESTS_FAILED if session.testsfailed else pytest.ExitCode.OK
    if session.shouldstop or session.shouldfail:
        session.exitstatus = pytest.ExitCode.INTERRUPTED
    before = session.exitstatus
    hook = plugins.subset_hook_caller("pytest_sessionfinish", others)
    hook(session=session, exitstatus=before)
    return None if session.exitstatus == before else int(session.exitstatus)


def forget_ends(config: pytest.Config, names: Sequence[str]) -> None:
    """Don't tell these plugins that the session is over: they know, in another process."""
    caller = config.hook.pytest_sessionfinish
    for name in names:
        plugin = config.pluginmanager.get_plugin(name)
        if any(each.plugin is plugin for each in caller.get_hookimpls()):
            caller._remove_plugin(plugin)


def plugins_that_collect_in_tests(config: pytest.Config) -> list[object]:
    """Those that are known to hear of reports for what they do at the end."""
    found = map(config.pluginmanager.get_plugin, sorted(_COLLECTS_IN_TESTS))
    return [each for each in found if each is not None]


def wrap_reporters(
    config: pytest.Config, name: str, wrap: Callable[[Callable[..., object]], Callable[..., object]]
) -> None:
    """Have what is in the place of the others' implementations that are also told elsewhere.

    :param wrap: makes one of another that takes the same arguments.
    """
    for implementation in getattr(config.hook, name).get_hookimpls():
        wraps = implementation.hookwrapper or getattr(implementation, "wrapper", False)
        if wraps or not _is_foreign(implementation) or _is_of_tests(config, implementation):
            continue
        implementation.function = wrap(implementation.function)


def hears_in_tests(config: pytest.Config) -> bool:
    """Whether there is a plugin that is told in the test's process only that a test begins."""
    return any(
        _is_of_tests(config, implementation)
        for name in ("pytest_runtest_logstart", "pytest_runtest_logfinish")
        for implementation in getattr(config.hook, name).get_hookimpls()
    )


def reporters_hook(item: pytest.Item, name: str) -> Any:
    """The hook of `item`, without plugins that are told in the test's process only."""
    caller, config = getattr(item.ihook, name), item.config
    heard = [each.plugin for each in caller.get_hookimpls() if not _is_of_tests(config, each)]
    plugins = config.pluginmanager
    left = [each for each in plugins.get_plugins() if not any(each is other for other in heard)]
    return plugins.subset_hook_caller(name, left)


_WORKERS_MAIN = "__channelexec__"
"""The name under which execnet runs a worker's main program, xdist's plugin of a worker with it."""

_REPORT_HOOKS = (
    "pytest_runtest_logstart",
    "pytest_runtest_logreport",
    "pytest_runtest_logfinish",
)


def others_hear_reports(config: pytest.Config) -> bool:
    """Whether a plugin that is neither pytest's nor ours, nor a worker's own, hears of reports."""
    return any(
        _is_foreign(implementation) and not _is_of_tests(config, implementation)
        for name in _REPORT_HOOKS
        for implementation in getattr(config.hook, name).get_hookimpls()
    )


_SERIALIZING = "pytest_report_to_serializable"
_PROTOCOL = "pytest_runtest_protocol"
_PYTESTS: StashKey[dict[str, list[Any]]] = StashKey()


def note_implementers(config: pytest.Config) -> None:
    """Before tests are forked: look who implements the hooks that are asked about in each."""
    config.stash[_PYTESTS] = {}
    for name in (_SERIALIZING, _PROTOCOL):
        _is_pytests(config, name)


def _is_pytests(config: pytest.Config, name: str) -> bool:
    """Whether nobody but pytest and we implement a hook, for whatever path.

    Others may wrap how an item is run.
    """
    found = getattr(config.hook, name).get_hookimpls()
    known = config.stash.get(_PYTESTS, {})
    if known.get(name) == found:
        return True
    for each in found:
        wraps = name == _PROTOCOL and (each.hookwrapper or each.wrapper)
        if not wraps and _is_foreign(each):
            return False
    known[name] = found
    return True


def _is_foreign(implementation: Any) -> bool:
    module = _module(implementation.plugin).partition(".")[0]
    return module not in ("_pytest", "pytest_fkit", _WORKERS_MAIN)


def _module(plugin: Any) -> str:
    return str(plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__module__)


# --- warnings (_pytest.warnings) ------------------------------------------------------------------


@contextmanager
def warnings_as_of(item: pytest.Item) -> Iterator[None]:
    """Within it, what is warned of is said of the test, as within pytest_runtest_protocol."""
    if not item.config.pluginmanager.hasplugin("warnings"):  # -p no:warnings
        yield
        return
    with _pytest.warnings.catch_warnings_for_item(
        config=item.config, ihook=item.ihook, when="runtest", item=item
    ):
        yield


# --- the end of the session (_pytest.config, _pytest.unraisableexception and threadexception) -----


def forget_cleanups(config: pytest.Config) -> object:
    """In a forked process: what was given to ``config.add_cleanup`` is not to run here.

    :return: what was dropped. It has to be kept alive: the generator of a context manager, such as
        that of pytest's warning filters, runs its ``finally`` blocks when it is collected.
    """
    stack = getattr(config, "_cleanup_stack", None)  # pytest 8.4 on
    if stack is not None:
        return stack.pop_all()
    dropped = list(cast("Any", config)._cleanup)
    del cast("Any", config)._cleanup[:]
    return dropped


def run_cleanups(config: pytest.Config) -> None:
    """Run what was given to ``config.add_cleanup``, the last first.

    :raises BaseException: what one of them raised.
    """
    stack = getattr(config, "_cleanup_stack", None)
    if stack is not None:
        stack.close()
        return
    cleanups = cast("Any", config)._cleanup
    while cleanups:
        cleanups.pop()()


def unraisable_errors_count(config: pytest.Config) -> bool:
    """Whether pytest, from 8.4 on, fails at its end for what nobody could raise before.

    It does where its warnings of that are errors; the filters are those of the configuration.
    """
    if not config.pluginmanager.hasplugin("unraisableexception"):
        return False
    if not hasattr(_pytest.unraisableexception, "collect_unraisable"):
        return False
    filters: Any = cast("Any", sys.modules["warnings"]).filters
    return any(
        each[0] == "error" and issubclass(pytest.PytestUnraisableExceptionWarning, each[2])
        for each in filters
    )


def raise_unraisable(config: pytest.Config) -> None:
    """Warn of what was raised in destructors and threads, and is not reported yet.

    :raises Exception: such a warning, or several, where they are errors.
    """
    _pytest.unraisableexception.collect_unraisable(config)
    if config.pluginmanager.hasplugin("threadexception"):
        _pytest.threadexception.collect_thread_exception(config)


# --- setup state and fixtures (_pytest.runner.SetupState, _pytest.fixtures) ---------------------


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
    return not _is_pytests(item.config, _PROTOCOL) and any(
        _is_foreign(each) and not (each.hookwrapper or each.wrapper)
        for each in _implementations(item, (_PROTOCOL,))
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
    make = plugins.subset_hook_caller("pytest_runtest_makereport", others)
    with no_warnings():  # pluggy's, of a plugin that misses what it did in another process
        return make(item=item, call=call)


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
        each
        for each in _implementations(item, _RUNNING_HOOKS)
        if (each.hookwrapper or each.wrapper) and _is_foreign(each)
    ]


def teardowns_of_others(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Iterator[Callable[[], object]]:
    """What plugins do in pytest_runtest_teardown that do something in pytest_runtest_setup.

    Wrappers left out; in the order in which they are called.
    """

    def plain(name: str) -> list[Any]:
        return [
            each
            for each in _implementations(item, (name,))
            if not (each.hookwrapper or each.wrapper) and _is_foreign(each)
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


# --- reports (_pytest.reports, _pytest._code.code) ----------------------------------------------

_code = _pytest._code.code

# What these are made of; dataclasses, or attrs' classes before pytest 7.3.
_PARTS: dict[type[Any], tuple[str, ...]] = {
    _code.ReprTraceback: ("reprentries", "extraline", "style"),
    _code.ReprTracebackNative: ("reprentries", "extraline", "style"),
    _code.ReprEntry: ("lines", "reprfuncargs", "reprlocals", "reprfileloc", "style"),
    _code.ReprEntryNative: ("lines",),
    _code.ReprFileLocation: ("path", "lineno", "message"),
    _code.ReprLocals: ("lines",),
    _code.ReprFuncArgs: ("args",),
}
_ENTRIES = (_code.ReprEntry, _code.ReprEntryNative)


class _ForeignPartError(Exception):
    """A report has a part that pytest does not make."""


def report_to_data(config: pytest.Config, report: Any) -> dict[str, Any]:
    """What pytest_report_to_serializable answers, by code of ours where pytest's would answer.

    pytest's asks ``os.fspath``, ``copy`` and ``dataclasses``, which the test may have patched, and
    takes several times as long. Reports of other classes, and all where a plugin or a conftest.py
    has a part in that hook, are left to the hook.
    """
    if type(report) is pytest.TestReport and _is_pytests(config, _SERIALIZING):
        try:
            return _report_data(report)
        except _ForeignPartError:
            pass
    hooks = config.hook
    return cast("dict[str, Any]", hooks.pytest_report_to_serializable(config=config, report=report))


_GIVEN = frozenset(
    {"location", "keywords", "outcome", "longrepr", "when", "user_properties", "sections"}
)
_COMMON = frozenset({type(None), str, int, float, bool, tuple, list, dict})


def _report_data(report: pytest.TestReport) -> dict[str, Any]:
    """As pytest's ``TestReport._to_json`` and pytest_report_to_serializable."""
    data = dict(vars(report))
    if "_id" in data:  # pytest 9.2 on
        data["nodeid"] = str(data.pop("_id"))
    if report.longrepr is not None:
        data["longrepr"] = _longrepr_data(report.longrepr)
    for name, value in data.items():
        if name == "result":
            data[name] = None
        elif name not in _GIVEN and type(value) not in _COMMON and isinstance(value, os.PathLike):
            data[name] = os.fspath(value)
    data["$report_type"] = "TestReport"
    return data


def _longrepr_data(longrepr: Any) -> Any:
    if not hasattr(longrepr, "toterminal"):
        return longrepr
    if not (hasattr(longrepr, "reprtraceback") and hasattr(longrepr, "reprcrash")):
        return str(longrepr)
    last, chain = _parts(longrepr.reprtraceback), None
    if isinstance(longrepr, _code.ExceptionChainRepr):
        chain = [
            (last if each is longrepr.reprtraceback else _parts(each), _parts(place), text)
            for each, place, text in longrepr.chain
        ]
    return {
        "reprcrash": _parts(longrepr.reprcrash),
        "reprtraceback": last,
        "sections": longrepr.sections,
        "chain": chain,
    }


def _parts(found: Any) -> dict[str, Any] | None:
    """As dataclasses.asdict; None for None.

    :raises _ForeignPartError: for an object of a class that is not pytest's.
    """
    if found is None:
        return None
    names = _PARTS.get(type(found))
    if names is None:
        raise _ForeignPartError
    return {name: _plain(getattr(found, name)) for name in names}


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind is str or kind is int or value is None:
        return value
    if kind is list or kind is tuple:
        return kind(map(_plain, value))
    if kind in _ENTRIES:
        return {"type": kind.__name__, "data": _parts(value)}
    return _parts(value)


# --- collection (_pytest.main, _pytest.runner) --------------------------------------------------


def arguments_leading_to(config: pytest.Config, path: Path) -> list[str]:
    """The arguments of the command line that name this file, something in it or a directory above.

    In the words in which they were given.
    """
    found = []
    for number, argument in enumerate(config.args):
        try:
            named = _named_path(config, argument, number)
        except pytest.UsageError:  # who collected has reported it
            continue
        if named == path or named in path.parents:
            found.append(argument)
    return found


def _named_path(config: pytest.Config, argument: str, number: int) -> Path:
    resolve: Any = _pytest.main.resolve_collection_argument
    known = resolve.__code__.co_varnames
    options = {"as_pypath": config.option.pyargs}
    if "consider_namespace_packages" in known:  # pytest 9 on
        options["consider_namespace_packages"] = config.getini("consider_namespace_packages")
    numbers = (number,) if "arg_index" in known else ()
    named = resolve(config.invocation_params.dir, argument, *numbers, **options)
    return cast("Path", named[0] if isinstance(named, tuple) else named.path)


def collection_error(report: pytest.CollectReport) -> BaseException | None:
    """What was raised, in a hook around pytest_make_collect_report: pytest takes it away later."""
    call = getattr(report, "call", None)
    return None if call is None or call.excinfo is None else cast("Any", call).excinfo.value


# --- capture (_pytest.capture) ------------------------------------------------------------------


def capture_descriptors(config: pytest.Config) -> tuple[int, int] | None:
    """The descriptors of the files into which pytest captures descriptors 1 and 2.

    None if it captures in another way or not at all.
    """
    manager: Any = config.pluginmanager.getplugin("capturemanager")
    capturing = getattr(manager, "_global_capturing", None)
    if capturing is None or not hasattr(capturing.out, "targetfd"):
        return None
    return capturing.out.tmpfile.fileno(), capturing.err.tmpfile.fileno()


def captures_descriptors_now(config: pytest.Config) -> bool:
    """Whether what is written to descriptor 1 now is captured, for the test that runs."""
    manager: Any = config.pluginmanager.getplugin("capturemanager")
    capturing = getattr(manager, "_global_capturing", None)
    return capturing is not None and hasattr(capturing.out, "targetfd") and capturing.is_started()


def replace_reading(config: pytest.Config, read: Callable[[int], str | None]) -> None:
    """Have pytest take what it captured in a file from `read`, which is given its descriptor.

    Where that answers None it reads the file itself. Capturing fixtures are left alone.
    """
    manager: Any = config.pluginmanager.getplugin("capturemanager")
    capturing = getattr(manager, "_global_capturing", None)
    if capturing is not None and hasattr(capturing.out, "targetfd"):
        for file in (capturing.out.tmpfile, capturing.err.tmpfile):
            _replace_read(file, read)


def _replace_read(file: Any, read: Callable[[int], str | None]) -> None:
    read_all = file.read

    def read_or_ask(*size: int) -> str:
        text = read(file.fileno()) if not size else None
        return read_all(*size) if text is None else text

    file.read = read_or_ask


def python_level_captures(config: pytest.Config) -> list[tuple[Any, int]]:
    """Objects that collect what is written to sys.stdout (1) and sys.stderr (2) in memory only."""
    manager: Any = config.pluginmanager.getplugin("capturemanager")
    return _in_memory(getattr(manager, "_global_capturing", None))


def fixture_captures(fixture: Any) -> list[tuple[Any, int]]:
    """The same for the value of the fixtures capsys, capsysbinary and capteesys."""
    return _in_memory(getattr(fixture, "_capture", None))


def fixture_capture_descriptors(fixture: Any) -> tuple[int, int] | None:
    """As :func:`capture_descriptors`, for the value of the fixtures capfd and capfdbinary."""
    capturing = getattr(fixture, "_capture", None)
    if capturing is None or not hasattr(capturing.out, "targetfd"):
        return None
    return capturing.out.tmpfile.fileno(), capturing.err.tmpfile.fileno()


def on_fixture_capture(fixture: Any, action: Callable[[], None]) -> None:
    """Have `action` called whenever the value of capsys, capfd or the like begins to collect.

    It has begun by now, and pytest ends and begins it anew for each phase of the test. The value
    of any other fixture is left alone.
    """
    if type(fixture) is not pytest.CaptureFixture or "_start" in vars(fixture):
        return
    start = fixture._start

    def start_and_tell() -> None:
        begins = fixture._capture is None
        start()
        if begins:
            action()

    fixture._start = start_and_tell  # type: ignore[method-assign]
    action()


def _in_memory(capturing: Any) -> list[tuple[Any, int]]:
    if capturing is None or capturing.out is None or hasattr(capturing.out, "targetfd"):
        return []
    return [(capturing.out.tmpfile, 1), (capturing.err.tmpfile, 2)]


# --- log (_pytest.logging) ----------------------------------------------------------------------


def on_new_log_stream(config: pytest.Config, action: Callable[[TextIO], None]) -> None:
    """Have `action` called with every stream in which pytest collects the log of a phase."""
    handler: Any = getattr(config.pluginmanager.getplugin("logging-plugin"), "report_handler", None)
    if handler is None:  # -p no:logging
        return
    reset = handler.reset

    def reset_and_tell() -> None:
        reset()
        action(handler.stream)

    handler.reset = reset_and_tell


# --- marks (_pytest.skipping) -------------------------------------------------------------------


def expected_failure(item: pytest.Item) -> str | None:
    """The reason for which a death of `item` is expected: an xfail mark without ``raises``."""
    if item.config.getoption("runxfail", False):
        return None
    xfail = _pytest.skipping.evaluate_xfail_marks(item)
    if xfail is None or xfail.raises is not None:
        return None
    return xfail.reason


# --- the debugger (_pytest.debugging) -----------------------------------------------------------


def replace_debugger(action: Callable[..., None]) -> None:
    """Have `action` called where ``breakpoint()`` or ``pytest.set_trace()`` would start pdb."""
    pdb.set_trace = action
    _pytest.debugging.pytestPDB.set_trace = action  # type: ignore[method-assign]
    pytest.set_trace = action
    # For those who imported one of these by name before.
    _pytest.debugging.pytestPDB._init_pdb = action  # type: ignore[method-assign]


# --- temporary directories (_pytest.tmpdir) -----------------------------------------------------


def resolve_basetemp(config: pytest.Config) -> None:
    """Make the base temporary directory now: every process that first asks for it empties it."""
    factory = getattr(config, "_tmp_path_factory", None)
    if factory is not None:
        factory.getbasetemp()


def basetemp(config: pytest.Config) -> str | None:
    """A base directory for another process, below this one's; it is made there."""
    factory = getattr(config, "_tmp_path_factory", None)
    if factory is None:
        return None
    # Within a new directory: pytest removes what it is given and makes it anew, and another process
    # that looks for a free number in between would take this one.
    return str(factory.mktemp("spawned", numbered=True) / "base")


# --- the terminal (_pytest.terminal) ------------------------------------------------------------


class _Text(io.StringIO):
    """A text file that keeps nothing: its text goes to a function."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self._write = write

    def write(self, text: str) -> int:
        self._write(text)
        return len(text)


class _SilentTerminal:
    """Stands where plugins look for the terminal reporter, and reports nothing by itself."""

    def __init__(self, reporter: Any) -> None:
        self._reporter = reporter

    # pluggy takes the methods of a class for hooks; what is asked for here is none.
    def __getattr__(self, name: str) -> Any:
        return getattr(self._reporter, name)


def forget_reports_of_worker(config: pytest.Config) -> None:
    """Have the terminal reporter of a worker, which writes to /dev/null, collect no reports."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    caller = config.hook.pytest_runtest_logreport
    if reporter in [each.plugin for each in caller.get_hookimpls()]:
        caller._remove_plugin(reporter)


def redirect_terminal(config: pytest.Config, write: Callable[[str], None]) -> bool:
    """Have `write` called with what live logs, ``--setup-show`` and the like write; no reports.

    Live logs hold a reference to the reporter, so it stays, with another writer.

    :return: whether what is written to the terminal waits in a buffer, as it does where that is a
        file or a pipe: it is not captured then with what a test writes.
    """
    plugins = config.pluginmanager
    reporter: Any = plugins.getplugin("terminalreporter")
    if reporter is None:  # -p no:terminal
        return False
    file: Any = None
    if not isinstance(reporter, _SilentTerminal):
        file = reporter._tw._file
        plugins.unregister(reporter)
        plugins.register(_SilentTerminal(reporter), "terminalreporter")
    else:
        reporter = reporter._reporter
    reporter._tw = create_terminal_writer(config, _Text(write))
    through = ("line_buffering", "write_through")
    return isinstance(file, io.TextIOWrapper) and not any(getattr(file, each) for each in through)


def pytest_itself_writes() -> bool:
    """Whether it is pytest, or a log, that writes the text which is written now."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if not name.startswith(("pytest_fkit.", "_pytest.terminal", "_pytest._io")):
            return name.startswith(("_pytest.", "logging"))
        frame = frame.f_back
    return False


def terminal_writer(config: pytest.Config) -> Callable[[str], None]:
    """What writes text to the terminal as it is."""
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    if reporter is None:  # -p no:terminal
        return lambda _: None
    return functools.partial(reporter.write, flush=True)


def begin_terminal_line(reporter: Any) -> None:
    """Have what the reporter writes next stand at the beginning of a line."""
    reporter.ensure_newline()
    if reporter._tw.width_of_current_line:  # letters of tests
        reporter._tw.line()


# --- JUnit (_pytest.junitxml) -------------------------------------------------------------------


def junit_log(config: pytest.Config) -> Any | None:
    """The object that writes the JUnit file, if one is written."""
    for plugin in config.pluginmanager.get_plugins():
        if type(plugin).__module__ == "_pytest.junitxml" and type(plugin).__name__ == "LogXML":
            return plugin
    return None


def junit_errors_for_deaths(log: Any, describe: Callable[[Any], tuple[str, str] | None]) -> None:
    """Have deaths written as ``<error>``, where LogXML writes ``<failure>`` for the call phase.

    :param describe: the message and the text of a report on a death, None for other reports.
    """
    original = log.node_reporter

    def node_reporter(report: Any) -> Any:
        reporter = original(report)
        death = describe(report)
        if death is not None:
            message, text = death
            add = functools.partial(_add_junit_error, reporter, message, text)
            reporter.append_failure = reporter.append_error = add
        return reporter

    log.node_reporter = node_reporter


def junit_properties(log: Any, describe: Callable[[Any], dict[str, str]]) -> None:
    """Have properties written for each test, with what its last report says.

    :param describe: called with each report on a test.
    """
    original = log.node_reporter

    def node_reporter(report: Any) -> Any:
        reporter = original(report)
        if hasattr(report, "when"):
            properties = describe(report)
            kept = [each for each in reporter.properties if each[0] not in properties]
            reporter.properties = kept + list(properties.items())
        return reporter

    log.node_reporter = node_reporter


class JunitFixtures:
    """What pytest's fixtures that add to the JUnit file find in place of the log.

    Without it they do nothing in workers, which write no such file.

    :param recorded: called with "property" or "attribute", a name and a value.
    """

    def __init__(self, family: str, recorded: Callable[[str, str, object], None]) -> None:
        self.family = "xunit1" if family == "legacy" else family
        self._recorded = recorded

    def add_global_property(self, name: object, value: object) -> None:
        """For record_testsuite_property."""
        __tracebackhide__ = True
        if not isinstance(name, str):
            given = type(name).__name__
            raise TypeError(f"name parameter needs to be a string, but {given} given")
        self._recorded("property", name, value)

    def add_attribute(self, name: str, value: object) -> None:
        """For record_xml_attribute."""
        self._recorded("attribute", name, value)

    def node_reporter(self, nodeid: object) -> JunitFixtures:
        """The object with :meth:`add_attribute`."""
        del nodeid
        return self


def watch_junit_fixtures(
    config: pytest.Config, recorded: Callable[[str, str, object], None]
) -> None:
    """Where nothing else reaches the JUnit file: hear what fixtures add to it, if there is one."""
    if not config.getoption("xmlpath", None):
        return
    log = JunitFixtures(config.getini("junit_family"), recorded)
    config.pluginmanager.register(log)  # pytest unregisters what it finds in this place
    config.stash[_pytest.junitxml.xml_key] = cast("Any", log)


def add_junit_record(log: Any, report: Any, kind: str, name: str, value: str) -> None:
    """Add what :func:`watch_junit_fixtures` told of, while `report` was in the making."""
    if kind == "property":
        log.add_global_property(name, value)
    else:
        log.node_reporter(report).add_attribute(name, value)


def _add_junit_error(reporter: Any, message: str, text: str, report: Any) -> None:
    del report
    reporter._add_simple("error", message, text)


# --- xdist --------------------------------------------------------------------------------------


def apply_xdist_groups(items: Sequence[pytest.Item]) -> None:
    """Give items the node ids, with the name of their group, that xdist means to give them.

    xdist up to 3.8.0 writes an attribute that pytest from 9.2 on does not read (pytest-xdist
    issue 1386).
    """
    for item in items:
        nodeid = getattr(item, "_nodeid", item.nodeid)
        if nodeid != item.nodeid:
            set_nodeid(item, nodeid)


def set_nodeid(item: pytest.Item, nodeid: str) -> None:
    """Have `item` bear this node id."""
    node: Any = item
    if hasattr(node, "_id"):
        node._id = type(node._id).parse(nodeid)
    else:
        node._nodeid = nodeid


def runs_in_worker() -> bool:
    """Whether this process is an xdist worker, known before its ``config`` says so.

    By the name under which execnet runs a worker's main program, which xdist asks for, too.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == _WORKERS_MAIN:
            return True
        frame = frame.f_back
    return False


def worker_interactor(config: pytest.Config) -> Any | None:
    """Xdist's plugin object in a worker."""
    for plugin in config.pluginmanager.get_plugins():
        if type(plugin).__name__ == "WorkerInteractor":
            return plugin
    return None


def worker_config(
    arguments: list[str],
    workerinput: dict[str, Any],
    basetemp: str | None,
    plugins: Sequence[object],
) -> pytest.Config:
    """A configuration as xdist.remote makes it for a worker, in a process that xdist did not start.

    It runs its tests itself, without isolation and without workers.

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
"""Plugins that tell their workers something only where xdist has any, but ask each for it."""


def _hide_worker_input(config: pytest.Config) -> None:
    """Have plugins configure themselves as without workers that could not do so otherwise."""
    for implementation in config.hook.pytest_configure.get_hookimpls():
        if _module(implementation.plugin).partition(".")[0] in _WORKERS_ONLY:
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
    """Does at ``--dist loadgroup`` what xdist's plugin of a worker does, where there is none."""

    @pytest.hookimpl
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        from xdist.remote import WorkerInteractor

        WorkerInteractor.pytest_collection_modifyitems(self, config, items)
        apply_xdist_groups(items)


_ALONE = "master"
"""What xdist's fixture ``worker_id`` answers where there are no workers."""

_NODE_INPUT: pytest.StashKey[dict[str, Any]] = pytest.StashKey()


def worker_input(config: pytest.Config) -> dict[str, Any]:
    """What xdist tells this worker; at ``-n0`` what its fixtures would answer there.

    And what :func:`configure_node` had plugins add.
    """
    given: dict[str, Any] | None = getattr(config, "workerinput", None)
    if given is not None:
        return given
    added = config.stash.get(_NODE_INPUT, {})
    return {**added, "workerid": _ALONE, "testrunuid": uuid.uuid4().hex}


class _Node:
    """Stands for xdist's WorkerController where there are no workers.

    Plugins and conftest files take it for what they tell workers: a place for that, and where to
    find it out.
    """

    class _Gateway:
        id = _ALONE

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.workerinput: dict[str, Any] = {"workerid": _ALONE}
        self.gateway = self._Gateway()


def configures_nodes(config: pytest.Config) -> bool:
    """Whether a plugin or a conftest.py wants to tell workers something."""
    return any(map(_is_foreign, _node_hooks(config)))


def _node_hooks(config: pytest.Config) -> Sequence[Any]:
    # xdist declares the hook; without it, whoever implements it declares it by that.
    caller = getattr(config.hook, "pytest_configure_node", None)
    return () if caller is None else caller.get_hookimpls()


def configure_node(config: pytest.Config) -> None:
    """At ``-n0``: have plugins say what they would tell a worker, for fresh interpreters."""
    ours = [each.plugin for each in _node_hooks(config) if not _is_foreign(each)]
    node = _Node(config)
    caller = config.pluginmanager.subset_hook_caller("pytest_configure_node", ours)
    caller(node=node)
    config.stash[_NODE_INPUT] = node.workerinput


class AssignedTests:
    """What xdist's controller has this worker run; stands for ``WorkerInteractor``'s own loop."""

    def __init__(self, interactor: Any) -> None:
        self._interactor = interactor
        # The module is a worker's main program, which can't be imported by its name.
        self._shutdown = type(interactor).handle_command.__globals__["Marker"].SHUTDOWN
        self._following: Any = None

    def begin(self) -> None:
        """Listen to the controller."""
        interactor = self._interactor
        interactor.channel.setcallback(interactor.handle_command, endmarker=self._shutdown)
        self._following = self._wait()

    def take(self, most: int) -> tuple[list[int], int | None]:
        """Wait for a test, and for what follows it; take more tests if they are there.

        :return: positions of 1 to `most` tests, none where there are no more; and of the test
            after these, None if there is none.
        """
        taken: list[int] = []
        while self._following is not self._shutdown and len(taken) < most:
            # xdist's scheduler counts on a worker that waits only if it can't begin a test.
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
        # A marker that the queue was replaced is for who waits.
        return found if isinstance(found, int) or found is self._shutdown else None


def worker_facts(interactor: Any) -> dict[str, Any]:
    """What xdist has every report of a worker name."""
    return {"worker_id": interactor.workerid, "testrun_uid": interactor.testrunuid}


def worker_descriptors(interactor: Any) -> list[int]:
    """The descriptors by which a worker talks to the controller."""
    io = interactor.channel.gateway._io
    if hasattr(io, "sock"):  # SocketIO, of --tx socket=
        return [io.sock.fileno()]
    return [file.fileno() for file in (io.infile, io.outfile)]


def end_gateway(gateway: Any) -> None:
    """Cut the connection to a worker, so that it is seen to be gone, and ends.

    execnet knows how to end a gateway's own process, if it has one; a socket is shut down.
    """
    io = gateway._io
    if hasattr(io, "sock"):  # SocketIO
        io.close_write()
        io.close_read()
    else:
        io.kill()


def xdist_interruption() -> type[BaseException]:
    """What xdist's controller raises where pytest raises Session.Failed and Session.Interrupted."""
    from xdist.dsession import Interrupted

    return cast("type[BaseException]", Interrupted)


def grant_restart(config: pytest.Config) -> None:
    """Don't count the worker that just died against ``--max-worker-restart``.

    Called from pytest_testnodedown, after which DSession adds one.
    """
    dsession: Any = config.pluginmanager.getplugin("dsession")
    dsession._failed_nodes_count -= 1


def call_on_main_loop(config: pytest.Config, action: Callable[[], None]) -> None:
    """Have DSession's loop call `action`, soon; to be called in any thread."""
    session = dist_session(config)
    session.worker_fkit = action  # the loop calls "worker_" + the name of an event
    session.queue.put(("fkit", {}))


def all_have_collected(config: pytest.Config) -> bool:
    """Whether xdist has, or can, distribute the tests."""
    return bool(dist_session(config).sched.collection_is_completed)


def dist_session(config: pytest.Config) -> Any:
    """DSession, which handles events of workers by methods of these names.

    ``worker_logstart``, ``worker_testreport``, ``worker_logfinish`` and
    ``worker_runtest_protocol_complete``.
    """
    return config.pluginmanager.getplugin("dsession")


def xdist_gave_up(config: pytest.Config) -> str:
    """Why DSession ended the run while tests were left, "" if it did not, or is not there."""
    session = dist_session(config)
    return str(session._summary_report or "") if session is not None else ""


def count_crash(config: pytest.Config, report: Any) -> None:
    """Have ``-x`` and ``--maxfail`` count a test that died with its worker, which xdist does not.

    :param report: what xdist makes of it, after pytest_handlecrashitem.
    """
    dist_session(config)._handlefailures(report)


def on_worker_death(config: pytest.Config, handle: Callable[[Any, object], None]) -> None:
    """Have `handle` called with a dead worker and the error, in place of what DSession does."""
    dist_session(config).worker_errordown = handle


def active_nodes(config: pytest.Config) -> set[Any]:
    """The workers that run, or are about to; DSession's own set."""
    return cast("set[Any]", dist_session(config)._active_nodes)


def set_tests_collected(config: pytest.Config, number: int) -> None:
    """Say how many tests there are; DSession takes what the last worker collected."""
    dist_session(config)._session.testscollected = number


def restart_limit(config: pytest.Config) -> int | None:
    """What ``--max-worker-restart`` says, None if nothing."""
    text = config.getoption("maxworkerrestart", None)
    return None if text is None else int(text)


def give_up_restarts(config: pytest.Config, reason: str) -> None:
    """Have xdist's summary say why workers were not replaced."""
    dist_session(config)._summary_report = reason


def replace_worker(config: pytest.Config, node: Any) -> None:
    """Start another worker in the place of a dead one."""
    session = dist_session(config)
    session.shuttingdown = False
    session._clone_node(node)


def end_run(config: pytest.Config) -> None:
    """Have all workers end, as when all tests are through."""
    dist_session(config).triggershutdown()


def report_line(config: pytest.Config, line: str) -> None:
    """Write a line as DSession does."""
    dist_session(config).report_line(line)


def report_crash(config: pytest.Config, nodeid: str, node: Any) -> None:
    """Report the test that a worker was running when it died."""
    dist_session(config).handle_crashitem(nodeid, node)


def same_collections(config: pytest.Config, collections: Mapping[Any, Sequence[str]]) -> bool:
    """Whether all workers collected the same; if not, report that as xdist does."""
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
    modules = {_module(each.plugin).partition(".")[0] for each in made}
    return bool(modules - {"xdist", "pytest_fkit"})


def on_end_of_tests(interactor: Any, action: Callable[[], None]) -> None:
    """In a worker: have `action` called when xdist says that there are no more tests, or is gone.

    Called in execnet's receiver thread. Nothing else that it says is heard any more.
    """
    end = object()

    def heard(message: Any) -> None:
        if message is end or message[0] == "shutdown":
            action()

    interactor.channel.setcallback(heard, endmarker=end)


def take_reports_of_interactor(
    config: pytest.Config, interactor: Any, hear: Callable[[Any], None]
) -> None:
    """Have `hear` called with each report where xdist's plugin of a worker would have sent it.

    That stays at its place among the plugins that hear of reports.
    """
    for name in ("pytest_runtest_logstart", "pytest_runtest_logfinish"):
        getattr(config.hook, name)._remove_plugin(interactor)
    for implementation in config.hook.pytest_runtest_logreport.get_hookimpls():
        if implementation.plugin is interactor:
            replaced = cast("Any", implementation)
            replaced.function, replaced.argnames = lambda report: hear(report), ("report",)
