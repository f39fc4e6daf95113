"""Private names of pytest's reports, and how reports cross processes."""

from __future__ import annotations

import sys
from _io import BytesIO, StringIO
from typing import Any, Sequence, cast

import _pytest._code.code
import _pytest._io.terminalwriter
import _pytest.runner
import _pytest.skipping
import pytest

from ..own import os, own_builtins, pickle, suppress
from ..protocol.event_file import Report, ReportData, add_facts, facts_of
from ..protocol.plain_values import carriable
from ..system.stack_texts import stack_text
from .pytest_hooks import SERIALIZING, is_pytests

own_builtins(globals())

_code = _pytest._code.code

# Their fields; dataclasses, or attrs' classes before pytest 7.3.
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
    """A report has a part of a class that is not pytest's."""


def report_to_data(config: pytest.Config, report: pytest.TestReport) -> ReportData:
    """The answer of pytest_report_to_serializable, by our code where it would be pytest's.

    pytest's calls ``os.fspath``, ``copy`` and ``dataclasses``, which the test may have patched, and
    takes several times as long. The hook is left with reports of other classes, and with all where
    a plugin or a conftest.py implements it.
    """
    if type(report) is pytest.TestReport and is_pytests(config, SERIALIZING):
        try:
            return _report_data(report)
        except _ForeignPartError:
            pass
    hooks = config.hook
    return cast("ReportData", hooks.pytest_report_to_serializable(config=config, report=report))


def report_from(config: pytest.Config, data: ReportData) -> pytest.TestReport:
    """The report that pytest_report_to_serializable turned into `data`."""
    hooks, longrepr = config.hook, data.get("longrepr")
    if isinstance(longrepr, str) and "reprcrash" in longrepr:
        # pytest would take a text with the names of its own parts for these.
        read = report_from(config, {**data, "longrepr": None})
        read.longrepr = longrepr
        return read
    try:
        report: pytest.TestReport = hooks.pytest_report_from_serializable(config=config, data=data)
    except Exception as error:
        if not isinstance(longrepr, dict):
            raise
        # A hook of the suite has put something of its own among pytest's parts.
        text = f"pytest-fkit: pytest's text on this can't be read: {stack_text(error)}"
        return report_from(config, {**data, "longrepr": text})
    context = vars(report).get("context") if _SUBTEST in data else None
    if hasattr(context, "kwargs"):
        # pytest takes the repr of its values once more; it is frozen.
        object.__setattr__(context, "kwargs", data[_SUBTEST]["kwargs"])
    return report


def report_message(config: pytest.Config, report: pytest.TestReport) -> Report:
    """The same in values that cross a process border."""
    data = carriable(report_to_data(config, report))
    return Report(data, data.pop("fkit", None))


_GIVEN = frozenset(
    {"location", "keywords", "outcome", "longrepr", "when", "user_properties", "sections"}
)
_COMMON = frozenset({type(None), str, int, float, bool, tuple, list, dict})


def _report_data(report: pytest.TestReport) -> ReportData:
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
    if isinstance(longrepr, (str, tuple)):
        return longrepr
    if not hasattr(longrepr, "toterminal"):
        return str(longrepr)  # as pytest does to show it
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

    :raises _ForeignPartError: if it is not a class of pytest's.
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


def expected_failure(item: pytest.Item) -> str | None:
    """The reason for which a death of `item` is expected: an xfail mark without ``raises``."""
    config = item.config
    if config.getoption("runxfail", False) or not config.pluginmanager.hasplugin("skipping"):
        return None
    xfail = _pytest.skipping.evaluate_xfail_marks(item)
    if xfail is None or xfail.raises is not None:
        return None
    return xfail.reason


def fail_for_subtests(config: pytest.Config, report: pytest.TestReport) -> None:
    """Have pytest make a failure of a test that passed, if subtests of it failed.

    In plain pytest the terminal calls this hook, after the session has counted failures.
    """
    passed = report.outcome == "passed"
    config.hook.pytest_report_teststatus(config=config, report=report)
    if passed and report.outcome == "failed":
        failed = _failed_subtests(config)
        number = 0 if failed is None else failed[_id(report)]
        add_facts(vars(report), failed_subtests=number)


def pass_until_shown(config: pytest.Config, report: pytest.TestReport) -> None:
    """Undo :func:`fail_for_subtests`, where this process's terminal is going to do it again."""
    number = facts_of(report).failed_subtests
    failed = _failed_subtests(config) if number else None
    if failed is not None:
        failed[_id(report)] = number
        report.outcome, report.longrepr = "passed", None


def _failed_subtests(config: pytest.Config) -> dict[Any, int] | None:
    """How many subtests failed, by test; None before pytest 9."""
    key = getattr(sys.modules.get("_pytest.subtests"), "failed_subtests_key", None)
    found: dict[Any, int] | None = None if key is None else config.stash.get(key, None)
    return found


def _id(report: pytest.TestReport) -> object:
    return getattr(report, "id", report.nodeid)  # pytest 9.1 on has objects


def has_xfail(item: pytest.Item) -> bool:
    """Whether a mark that the item has in this process expects it to fail."""
    try:
        return _pytest.skipping.evaluate_xfail_marks(item) is not None
    except pytest.fail.Exception:  # a condition is wrong
        return False


def evaluate_xfail(item: pytest.Item) -> None:
    """Evaluate the xfail marks of a test of which another process runs the setup.

    Its report on what this process tears down depends on them.
    """
    key = _pytest.skipping.xfailed_key
    with suppress(pytest.fail.Exception):  # a condition is wrong, as the setup's report says
        if item.stash.get(key, None) is None and not _pytest.skipping.evaluate_skip_marks(item):
            item.stash[key] = _pytest.skipping.evaluate_xfail_marks(item)


def write_source(terminal: Any, lines: Sequence[str], indents: Sequence[str]) -> None:
    """Write source lines to a ``TerminalWriter``, highlighted as pytest's own are."""
    terminal._write_source(lines, indents)


def shown_text(longrepr: Any) -> str:
    """What a terminal shows of it, without a line end; ``str`` takes the first line's indent."""
    if not hasattr(longrepr, "toterminal"):
        return str(longrepr)
    longrepr.toterminal(_pytest._io.terminalwriter.TerminalWriter(file := StringIO()))
    return file.getvalue().strip("\n")


def interacts(call: pytest.CallInfo[None], report: pytest.TestReport) -> bool:
    """Whether pytest calls pytest_exception_interact for what was raised in a phase."""
    return bool(_pytest.runner.check_interactive_exception(call, report))


# --- objects in reports ---
#
# Without workers, plugins that hear of a report expect the very objects that they put into it: in
# plain pytest it is one process. Whatever pickle carries arrives; what pytest has in both
# processes, such as the item, is that of the process that hears of the report.

_SUBTEST = "_subtest.context"
_FOR_THE_WAY = ("$report_type", "_report_type", _SUBTEST)
"""What reports have from pytest_report_to_serializable on, of pytest and of pytest-subtests."""

_PYTESTS = frozenset(
    {
        *_FOR_THE_WAY, "nodeid", "_id", "location", "keywords", "outcome", "longrepr", "when",
        "sections", "duration", "start", "stop", "result", "wasxfail", "fkit",
    }
)  # fmt: skip
_REGISTRIES = {"pytest_bdd.reporting": "test_report_context_registry"}
"""Dictionaries by report, in which plugins keep what belongs to it: pytest-bdd, from 8.0 on."""

_PLAIN = frozenset({type(None), bool, int, float, str, bytes})


def keep_objects(session: pytest.Session, report: pytest.TestReport, data: ReportData) -> None:
    """Add pickles of what plain values can't carry to the data of a report."""
    found: dict[str, bytes] = {}
    for name in data.keys() - _PYTESTS:
        value = vars(report).get(name)
        if type(value) not in _PLAIN and not (type(value) is list and not value):
            _keep(session, found, name, value)
    longrepr = report.longrepr
    writes = hasattr(type(longrepr), "toterminal")
    chain = type(longrepr) is _code.ExceptionChainRepr
    if writes and not chain and type(data.get("longrepr")) is str:
        # It writes to the terminal by itself, and the short summary has no message of it. Of one of
        # pytest's, text remains only where a test kept pytest from completing it.
        _keep(session, found, "longrepr", report.longrepr)
    # A subtest's report can't be hashed.
    for module in _REGISTRIES if type(report) is pytest.TestReport else ():
        registry = _registry(module)
        if report in registry:
            _keep(session, found, module, registry[report])
    if found:
        add_facts(data, objects=tuple(found.items()))


def restore_objects(session: pytest.Session, report: pytest.TestReport) -> None:
    """Put the objects back into the report that was made from the data, and nothing else."""
    for name in _FOR_THE_WAY:
        vars(report).pop(name, None)
    objects = facts_of(report).objects
    if objects:
        add_facts(vars(report), objects=())
    for name, pickled in objects:
        try:
            value = _Unpickler(session, BytesIO(pickled)).load()
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001, S112 (see above)
            continue
        if name in _REGISTRIES:
            _registry(name)[report] = value
        else:
            vars(report)[name] = value


def _keep(session: pytest.Session, found: dict[str, bytes], name: str, value: object) -> None:
    file = BytesIO()
    try:
        _Pickler(session, file).dump(value)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 (of a class that belongs to users: the text stays)
        return
    found[name] = file.getvalue()


def _registry(module: str) -> Any:
    return getattr(sys.modules.get(module), _REGISTRIES[module], {})


class _Pickler(pickle.Pickler):
    def __init__(self, session: pytest.Session, file: BytesIO) -> None:
        super().__init__(file, 4)
        self._session = session

    def persistent_id(self, value: object) -> tuple[str | int, ...] | None:
        """Name what the other process has, too, instead of pickling it."""
        if isinstance(value, pytest.Config):
            return ("config",)
        if not isinstance(value, (pytest.Item, pytest.Collector)):
            return None
        for position, item in enumerate(self._session.items):
            if item is value:
                return "node", position, -1
            if not isinstance(value, pytest.Item):
                for depth, node in enumerate(item.listchain()):
                    if node is value:
                        return "node", position, depth
        return None


class _Unpickler(pickle.Unpickler):
    def __init__(self, session: pytest.Session, file: BytesIO) -> None:
        super().__init__(file)
        self._session = session

    def persistent_load(self, name: tuple[Any, ...]) -> Any:
        if name[0] == "config":
            return self._session.config
        _, position, depth = name
        return self._session.items[position].listchain()[depth]

    def find_class(self, module: str, name: str) -> Any:
        if module not in sys.modules:  # import nothing here because a test did
            raise pickle.UnpicklingError(module)
        return super().find_class(module, name)
