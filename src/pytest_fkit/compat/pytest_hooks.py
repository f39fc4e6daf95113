"""Who implements which hook: private names of pluggy and of pytest's plugins.

A *foreign* implementation is neither pytest's nor ours, nor that of xdist's plugin of a worker.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import TYPE_CHECKING, Any, Callable, Iterator, Sequence, cast

import _pytest.warnings
import pytest

from ..named_tuple import NamedTuple
from ..own import contextmanager, no_warnings, own_builtins

if TYPE_CHECKING:
    from pluggy import HookCaller, HookImpl, HookRelay

try:
    from pluggy import Result
except ImportError:  # before pluggy 1.3
    from pluggy._result import _Result as Result

own_builtins(globals())

WORKERS_MAIN = "__channelexec__"
"""The name under which execnet runs a worker's main program, xdist's plugin of a worker with it."""


def module_of(plugin: object) -> str:
    """The name of the module that a plugin is, or that its class is of."""
    return str(plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__module__)


def is_foreign(implementation: HookImpl) -> bool:
    """Whether it is neither pytest's nor ours, nor a worker's own."""
    module = module_of(implementation.plugin).partition(".")[0]
    return module not in ("_pytest", "pytest_fkit", WORKERS_MAIN)


def wraps(implementation: HookImpl) -> bool:
    """Whether it runs around the others, in the old style of pluggy or the new one."""
    return bool(implementation.hookwrapper or implementation.wrapper)


def implementations(hooks: HookRelay, *names: str) -> Iterator[HookImpl]:
    """What implements these hooks.

    :param hooks: ``config.hook``, or ``item.ihook`` without conftest files of other directories.
    """
    for name in names:
        yield from getattr(hooks, name).get_hookimpls()


def remove_implementation(caller: HookCaller, plugin: object) -> None:
    """Take what a plugin implements of one hook out; pluggy can only unregister whole plugins."""
    if any(each.plugin is plugin for each in caller.get_hookimpls()):
        caller._remove_plugin(plugin)


def silence_hook(
    config: pytest.Config, name: str, keep: Sequence[object], foreign: bool = False
) -> None:
    """Take all implementations of a hook out, except those of the plugins in `keep`.

    :param foreign: keep foreign ones, too.
    """
    caller = getattr(config.hook, name)
    for each in caller.get_hookimpls():
        if each.plugin not in keep and not (foreign and is_foreign(each)):
            remove_implementation(caller, each.plugin)
            config.stash.setdefault(_SILENCED, []).append((name, each.plugin))


_SILENCED: pytest.StashKey[list[tuple[str, object]]] = pytest.StashKey()


def silence_pytest_forked(config: pytest.Config) -> None:
    """Keep pytest-forked, whose option and mark are satisfied, from forking once more."""
    caller = config.hook.pytest_runtest_protocol
    for each in caller.get_hookimpls():
        if module_of(each.plugin) == "pytest_forked":
            remove_implementation(caller, each.plugin)


# --- who is told of tests, and in which process ---

_BEGIN_AND_END = ("pytest_runtest_logstart", "pytest_runtest_logfinish")

_REPORTERS_HOOKS = frozenset(
    {
        "pytest_collectreport", "pytest_report_teststatus", "pytest_runtest_logreport",
        "pytest_sessionfinish", "pytest_terminal_summary", "pytest_unconfigure",
        "pytest_warning_recorded",
    }
)  # fmt: skip


def _is_of_tests(config: pytest.Config, implementation: HookImpl) -> bool:
    """Whether it is of a foreign plugin that hears nothing of a test's outcome.

    What that does when a test begins is for the test, such as keeping its name; so it is told in
    the test's process only.
    """
    callers = config.pluginmanager.get_hookcallers(implementation.plugin) or ()
    return is_foreign(implementation) and not any(each.name in _REPORTERS_HOOKS for each in callers)


def others_hear_reports(config: pytest.Config) -> bool:
    """Whether a foreign plugin hears of reports, or of tests where the reports are."""
    return any(
        is_foreign(each) and not _is_of_tests(config, each)
        for each in implementations(config.hook, *_BEGIN_AND_END, "pytest_runtest_logreport")
    )


def hears_in_tests(config: pytest.Config) -> bool:
    """Whether a plugin is told in the test's process only that a test begins."""
    return any(_is_of_tests(config, each) for each in implementations(config.hook, *_BEGIN_AND_END))


def reporters_hook(item: pytest.Item, name: str) -> HookCaller:
    """The hook of `item`, without plugins that are told in the test's process only."""
    config = item.config
    told_here = [
        each.plugin for each in implementations(item.ihook, name) if not _is_of_tests(config, each)
    ]
    return _only(config, name, told_here)


def _only(config: pytest.Config, name: str, plugins: Sequence[object]) -> HookCaller:
    """A hook with these implementations."""
    manager = config.pluginmanager
    others = [each for each in manager.get_plugins() if not any(each is one for one in plugins)]
    return manager.subset_hook_caller(name, others)


def wrap_reporters(
    config: pytest.Config, name: str, wrap: Callable[[Callable[..., object]], Callable[..., object]]
) -> None:
    """Replace what foreign plugins implement of a hook if they are told outside of tests, too.

    :param wrap: makes the replacement, which takes the same arguments.
    """
    for each in implementations(config.hook, name):
        if not wraps(each) and is_foreign(each) and not _is_of_tests(config, each):
            cast("Any", each).function = wrap(each.function)


# --- the end of the session, where tests ran ---

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
_HEAR_IN_TESTS = frozenset({"pytest_nunit.plugin", "pytest_opentelemetry.instrumentation"})
_SENT_ELSEWHERE = frozenset({"pytest_accept", "pytest_insta.plugin", "pytest_mpl.plugin"})
"""Their values are sent to where they are used at the end, see kept_values.py."""


def plugins_of_tests(config: pytest.Config, begun: bool) -> dict[str, object]:
    """Plugins, by name, that conclude at the end from what they saw where tests ran.

    They have a part in running tests, and hear of no reports; or they are known to be of this kind.

    :param begun: leave out those that may have begun something before any test.
    """
    elsewhere = _REPORTED | _BEGINNING if begun else _REPORTED
    manager = config.pluginmanager
    silenced = config.stash.get(_SILENCED, [])
    found = {}
    for each in config.hook.pytest_sessionfinish.get_hookimpls():
        if module_of(each.plugin) in _SENT_ELSEWHERE:
            continue
        name = manager.get_name(each.plugin) or ""
        hooks = {caller.name for caller in manager.get_hookcallers(each.plugin) or ()}
        hooks.update(hook for hook, plugin in silenced if plugin is each.plugin)
        runs = hooks & _RUNNING and not hooks & elsewhere and is_foreign(each)
        if name and (runs or name in _COLLECTS_IN_TESTS):
            found[name] = each.plugin
    return found


def plugins_that_collect_in_tests(config: pytest.Config) -> list[object]:
    """Plugins that are known to hear of reports for what they do at the end.

    And pytest-opentelemetry, which hears of them for the span that is open around the test, and
    pytest-nunit, whose fixtures expect that it has heard of the setup.
    """
    manager = config.pluginmanager
    found = [manager.get_plugin(name) for name in sorted(_COLLECTS_IN_TESTS)]
    found += [each for each in manager.get_plugins() if module_of(each) in _HEAR_IN_TESTS]
    return [each for each in found if each is not None]


def finish_session(session: pytest.Session, plugins: Sequence[object]) -> int | None:
    """Tell these plugins that the session is over; the exit status that they want, if another."""
    session.exitstatus = pytest.ExitCode.TESTS_FAILED if session.testsfailed else pytest.ExitCode.OK
    if session.shouldstop or session.shouldfail:
        session.exitstatus = pytest.ExitCode.INTERRUPTED
    before = session.exitstatus
    hook = _only(session.config, "pytest_sessionfinish", plugins)
    hook(session=session, exitstatus=before)
    return None if session.exitstatus == before else int(session.exitstatus)


def forget_ends(config: pytest.Config, names: Sequence[str]) -> None:
    """Don't tell these plugins that the session is over: they were told in another process."""
    for name in names:
        plugin = config.pluginmanager.get_plugin(name)
        remove_implementation(config.hook.pytest_sessionfinish, plugin)


# --- which plugins there are ---

MODULES = {
    "harvest": "pytest_harvest.plugin",
    "line-profiler": "pytest_line_profiler",
    "rerunfailures": "pytest_rerunfailures",
    "subtests": "pytest_subtests.plugin",
    "timeout": "pytest_timeout",
}
"""The modules of plugins, by their entry points."""


def is_loaded(config: pytest.Config, entry_point: str) -> bool:
    """Whether a plugin is there, by its entry point or by the name of its module.

    ``-p`` takes both; without autoloading, PYTEST_PLUGINS and ``pytest_plugins`` take modules.
    """
    has = config.pluginmanager.hasplugin
    return has(entry_point) or has(MODULES[entry_point])


# --- who runs a test ---

SERIALIZING = "pytest_report_to_serializable"
PROTOCOL = "pytest_runtest_protocol"
_PYTESTS: pytest.StashKey[dict[str, list[HookImpl]]] = pytest.StashKey()


def note_implementers(config: pytest.Config) -> None:
    """Before tests are forked: look who implements the hooks that are asked about in each."""
    config.stash[_PYTESTS] = {}
    for name in (SERIALIZING, PROTOCOL):
        is_pytests(config, name)


def is_pytests(config: pytest.Config, name: str) -> bool:
    """Whether no foreign plugin implements a hook, for whatever path.

    Foreign ones may wrap how an item is run.
    """
    found = getattr(config.hook, name).get_hookimpls()
    known = config.stash.get(_PYTESTS, {})
    if known.get(name) == found:
        return True
    for each in found:
        if is_foreign(each) and not (name == PROTOCOL and wraps(each)):
            return False
    known[name] = found
    return True


def others_run(item: pytest.Item) -> bool:
    """Whether a plugin or a conftest.py may run `item` in the place of pytest's own protocol."""
    return not is_pytests(item.config, PROTOCOL) and any(
        is_foreign(each) and not wraps(each) for each in implementations(item.ihook, PROTOCOL)
    )


def others_take_part(item: pytest.Item) -> bool:
    """Whether anything foreign implements a hook that begins or ends an item, or its phases."""
    hooks = (PROTOCOL, "pytest_runtest_setup", "pytest_runtest_teardown", *_BEGIN_AND_END)
    return any(is_foreign(each) for each in implementations(item.ihook, *hooks))


def wrappers_of_others(item: pytest.Item) -> list[Any]:
    """Foreign wrappers that are under way while an item is set up.

    Their attribute ``function`` is what pluggy calls for a generator.
    """
    return [
        each
        for each in implementations(item.ihook, PROTOCOL, "pytest_runtest_setup")
        if wraps(each) and is_foreign(each)
    ]


class Teardown(NamedTuple):
    """What a plugin does in pytest_runtest_teardown.

    :param call: does it; returns the generator of a wrapper.
    :param wraps: whether it is a wrapper.
    :param result: what to send to the generator if no other implementation was called.
    """

    call: Callable[[], Any]
    wraps: bool
    result: object


def teardowns_of_others(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[Teardown]:
    """What foreign plugins do whose pytest_runtest_setup begins before the item's fixtures.

    In the order in which they are called.
    """
    began = [
        each.plugin
        for each in implementations(item.ihook, "pytest_runtest_setup")
        if wraps(each) or not each.trylast  # the last ones are called after the fixtures
    ]
    given = {"item": item, "nextitem": nextitem}
    for each in reversed([*implementations(item.ihook, "pytest_runtest_teardown")]):
        if is_foreign(each) and each.plugin in began:
            call = functools.partial(each.function, *(given[name] for name in each.argnames))
            yield Teardown(call, wraps(each), Result([], None) if each.hookwrapper else [])


def report_for_installed(item: pytest.Item, call: pytest.CallInfo[None]) -> pytest.TestReport:
    """A report on a phase, of which no conftest.py hears."""
    manager = item.config.pluginmanager
    conftests = [each for each in manager.get_plugins() if _is_conftest(each)]
    make = manager.subset_hook_caller("pytest_runtest_makereport", conftests)
    with no_warnings():  # pluggy's, of a plugin that misses what it did in another process
        report: pytest.TestReport = make(item=item, call=call)
    return report


def installed_hear_reports(item: pytest.Item) -> bool:
    """Whether a plugin of others that is no conftest.py hears of reports when they are made."""
    made = item.ihook.pytest_runtest_makereport.get_hookimpls()
    return any(is_foreign(each) and not _is_conftest(each.plugin) for each in made)


def _is_conftest(plugin: object) -> bool:
    path = getattr(plugin, "__file__", None) if isinstance(plugin, ModuleType) else None
    return path is not None and path.endswith("conftest.py")


@contextmanager
def warnings_as_of(item: pytest.Item) -> Iterator[None]:
    """Within the block, attribute warnings to the test, as within pytest_runtest_protocol."""
    if not item.config.pluginmanager.hasplugin("warnings"):  # -p no:warnings
        yield
        return
    with _pytest.warnings.catch_warnings_for_item(
        config=item.config, ihook=item.ihook, when="runtest", item=item
    ):
        yield
