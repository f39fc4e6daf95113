"""Who implements which hook: private names of pluggy and of pytest's plugins."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Callable, Iterator, Sequence, cast

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
from _pytest.stash import StashKey

from ..own import contextmanager, own_builtins

own_builtins(globals())


def silence_hook(
    config: pytest.Config, name: str, keep: Sequence[object], foreign: bool = False
) -> None:
    """Take all implementations of hook `name` out, except those of the plugins in `keep`.

    pluggy can only unregister whole plugins; ``HookCaller._remove_plugin`` is what that calls.

    :param foreign: keep those, too, that are neither pytest's nor ours, nor a worker's own.
    """
    caller = getattr(config.hook, name)
    for implementation in caller.get_hookimpls():
        if implementation.plugin not in keep and not (foreign and is_foreign(implementation)):
            caller._remove_plugin(implementation.plugin)
            config.stash.setdefault(_SILENCED, []).append((name, implementation.plugin))


_SILENCED: StashKey[list[tuple[str, object]]] = StashKey()


def silence_pytest_forked(config: pytest.Config) -> None:
    """Keep pytest-forked, whose option and mark are satisfied, from forking once more."""
    caller = config.hook.pytest_runtest_protocol
    for implementation in caller.get_hookimpls():
        if module_of(implementation.plugin) == "pytest_forked":
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
    return is_foreign(implementation) and not any(each.name in _REPORTERS_HOOKS for each in callers)


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


def plugins_of_tests(config: pytest.Config, begun: bool) -> dict[str, Any]:
    """Plugins whose conclusions at the end are on what they saw where tests ran, by their names.

    They have a part in running tests, and hear of no reports; or they are known to be of this kind.

    :param begun: leave out those that may have begun something before any test.
    """
    elsewhere = _REPORTED | _BEGINNING if begun else _REPORTED
    plugins = config.pluginmanager
    silenced = config.stash.get(_SILENCED, [])
    found = {}
    for implementation in config.hook.pytest_sessionfinish.get_hookimpls():
        name = plugins.get_name(implementation.plugin) or ""
        hooks = {each.name for each in plugins.get_hookcallers(implementation.plugin) or ()}
        hooks.update(each for each, plugin in silenced if plugin is implementation.plugin)
        runs = hooks & _RUNNING and not hooks & elsewhere and is_foreign(implementation)
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
    """Those that are known to hear of reports for what they do at the end.

    And pytest-opentelemetry, which hears of them for the span that is open around the test, and
    pytest-nunit, whose fixtures expect that it has heard of the setup.
    """
    plugins = config.pluginmanager
    found = [plugins.get_plugin(name) for name in sorted(_COLLECTS_IN_TESTS)]
    found += [each for each in plugins.get_plugins() if module_of(each) in _HEAR_IN_TESTS]
    return [each for each in found if each is not None]


def wrap_reporters(
    config: pytest.Config, name: str, wrap: Callable[[Callable[..., object]], Callable[..., object]]
) -> None:
    """Have what is in the place of the others' implementations that are also told elsewhere.

    :param wrap: makes one of another that takes the same arguments.
    """
    for implementation in getattr(config.hook, name).get_hookimpls():
        if wraps(implementation) or not is_foreign(implementation):
            continue
        if _is_of_tests(config, implementation):
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


WORKERS_MAIN = "__channelexec__"
"""The name under which execnet runs a worker's main program, xdist's plugin of a worker with it."""

_REPORT_HOOKS = (
    "pytest_runtest_logstart",
    "pytest_runtest_logreport",
    "pytest_runtest_logfinish",
)


def others_hear_reports(config: pytest.Config) -> bool:
    """Whether a plugin that is neither pytest's nor ours, nor a worker's own, hears of reports."""
    return any(
        is_foreign(implementation) and not _is_of_tests(config, implementation)
        for name in _REPORT_HOOKS
        for implementation in getattr(config.hook, name).get_hookimpls()
    )


SERIALIZING = "pytest_report_to_serializable"
PROTOCOL = "pytest_runtest_protocol"
_PYTESTS: StashKey[dict[str, list[Any]]] = StashKey()


def note_implementers(config: pytest.Config) -> None:
    """Before tests are forked: look who implements the hooks that are asked about in each."""
    config.stash[_PYTESTS] = {}
    for name in (SERIALIZING, PROTOCOL):
        is_pytests(config, name)


def is_pytests(config: pytest.Config, name: str) -> bool:
    """Whether nobody but pytest and we implement a hook, for whatever path.

    Others may wrap how an item is run.
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


def wraps(implementation: Any) -> bool:
    """Whether it runs around the others, in the old style of pluggy or the new one."""
    return bool(implementation.hookwrapper or implementation.wrapper)


def is_foreign(implementation: Any) -> bool:
    """Whether it is neither pytest's nor ours, nor a worker's own."""
    module = module_of(implementation.plugin).partition(".")[0]
    return module not in ("_pytest", "pytest_fkit", WORKERS_MAIN)


def module_of(plugin: Any) -> str:
    """The name of the module that a plugin is, or that its class is of."""
    return str(plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__module__)


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
