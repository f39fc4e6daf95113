"""Runs a phase of an item in a host, for wide fixtures set up or torn down outside of any test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Iterator, Literal

import pytest

from ...compat import pytest_hooks, pytest_nodes, pytest_reports
from ...own import contextmanager, own_builtins, time
from ...protocol.descriptors import slots
from ...protocol.plain_values import carriable
from .excerpts import read_ends
from .output import flush

if TYPE_CHECKING:
    from pluggy import HookCaller

own_builtins(globals())

# Plugins whose hooks wrap the setup and teardown of fixtures, by their registered names. The host
# runs a phase with these alone: the hooks of all others run once, in the child.
_SURROUNDING = (
    "_cov_contexts",
    "assertion",
    "capturemanager",
    "logging-plugin",
    "threadexception",
    "unraisableexception",
    "warnings",
)
GPU_FAILURES = "fkit-gpu-failures"
"""The name under which :class:`.gpu_failures.GpuFailures` is registered."""

_REPORTING = ("runner", "skipping", "fkit-tracebacks", GPU_FAILURES)
_INNERMOST = "fkit-innermost"


class Phases:
    """Runs phases in one test process, with the surrounding plugins only."""

    def __init__(self, session: pytest.Session) -> None:
        self._plugins = session.config.pluginmanager
        self._registered: list[tuple[str, object]] = []
        self._callers: dict[str, HookCaller] = {}
        self._innermost = _Innermost()
        self._plugins.register(self._innermost, _INNERMOST)

    def run(
        self, when: Literal["setup", "teardown"], item: pytest.Item, work: Callable[[], None]
    ) -> pytest.CallInfo[None]:
        """Call `work` as the `when` phase of `item`, with capture, logging and warnings.

        :return: pytest's CallInfo.
        :raises pytest.exit.Exception, KeyboardInterrupt: of `work`.
        """
        calls: list[pytest.CallInfo[None]] = []
        arguments: dict[str, object] = {} if when == "setup" else {"nextitem": None}
        hook = self._caller(f"pytest_runtest_{when}", _SURROUNDING)

        def protocol() -> None:
            pytest_nodes.set_current_test(item, when)
            start, began = time.time(), time.monotonic()
            call: pytest.CallInfo[None] = pytest.CallInfo.from_call(
                lambda: hook(item=item, **arguments),
                when=when,
                reraise=(pytest.exit.Exception, KeyboardInterrupt),
            )
            pytest_nodes.set_current_test(item, None)
            # By our clocks: a wide fixture may freeze those that pytest reads, or unfreeze them.
            call.start, call.duration = start, time.monotonic() - began
            calls.append(call)

        with self._innermost.instead(protocol, work):
            self._caller("pytest_runtest_protocol", _SURROUNDING)(item=item, nextitem=None)
        return calls[0]

    def report_teardown(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> pytest.TestReport | None:
        """Make the report on a teardown of wide fixtures; all plugins see it if it failed.

        Installed plugins see it in any case: they may have recorded failures themselves.

        :return: None if the teardown passed and no installed plugin wants the report.
        """
        if call.excinfo is None and not pytest_hooks.installed_hear_reports(item):
            return None
        try:
            if call.excinfo is None:
                made = pytest_hooks.report_for_installed(item, call)
            else:
                made = item.ihook.pytest_runtest_makereport(item=item, call=call)
            if pytest_reports.interacts(call, made):
                item.ihook.pytest_exception_interact(node=item, call=call, report=made)
        except Exception:  # noqa: BLE001 (a plugin may lack state that it set in the child only)
            made = self._caller("pytest_runtest_makereport", _REPORTING)(item=item, call=call)
        return made

    def _caller(self, name: str, plugins: tuple[str, ...]) -> HookCaller:
        """The hook, restricted to these plugins and the innermost one."""
        registered = self._plugins.list_name_plugin()
        if registered != self._registered:
            self._registered, self._callers = registered, {}
        if name not in self._callers:
            keep = {_INNERMOST, *plugins}
            others = [plugin for key, plugin in registered if plugin and key not in keep]
            self._callers[name] = self._plugins.subset_hook_caller(name, others)
        return self._callers[name]


class _Innermost:
    """Plugin: does the work of the phase that the host runs, within the hooks of the others."""

    def __init__(self) -> None:
        self._next: list[Callable[[], None]] = []

    @contextmanager
    def instead(self, protocol: Callable[[], None], phase: Callable[[], None]) -> Iterator[None]:
        """Within the block, call these instead of pytest's runtest protocol and phase."""
        self._next = [phase, protocol]
        try:
            yield
        finally:
            self._next = []

    # One function, as in copies.py. trylast: pytest-cov switches its context before a phase begins.
    @pytest.hookimpl(trylast=True)
    def _do_next(self) -> bool | None:
        if not self._next:
            return None
        self._next.pop()()
        return True

    pytest_runtest_protocol = _do_next
    pytest_runtest_setup = _do_next
    pytest_runtest_teardown = _do_next


def sections(item: pytest.Item) -> tuple[tuple[str, str], ...]:
    """The sections captured for `item`, in the form of a report's."""
    return tuple(
        (f"Captured {key} {when}", carriable(content))
        for when, key, content in item._report_sections
    )


def captured_so_far() -> tuple[tuple[str, str], ...]:
    """The sections captured so far in the current setup, in the form of a report's."""
    flush()
    return tuple(
        (f"Captured {name} setup", read_ends(descriptor).decode("utf-8", "replace"))
        for name, descriptor in (("stdout", slots.out), ("stderr", slots.err))
    )
