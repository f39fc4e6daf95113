"""Reports on phases that pytest did not run, passed through pytest_runtest_makereport."""

from __future__ import annotations

import re
from typing import Generator

import pytest

from ...compat import kept_values, pytest_fixtures, pytest_hooks, pytest_reports
from ...compat.pytest_reports import keep_objects, report_from
from ...compat.sound_reports import sound_data
from ...own import marshal, no_warnings, own_builtins, suppress
from ...protocol.event_file import ReportData, add_facts
from ...protocol.plain_values import carriable
from ...system.stack_texts import stack_text
from .reports import add_section
from .rerunfailures import ProcessDiedError

own_builtins(globals())


_IN_HOOK = re.compile(
    r'^ *File "(?![^"\n]*/(?:_pytest|pytest_fkit)/)[^"\n]*", line \d+ '
    r"in pytest_runtest_makereport$",
    re.MULTILINE,
)
"""A plugin's or a conftest.py's function in faulthandler's stacks."""


def made_by_hooks(
    item: pytest.Item, data: ReportData, text: str = "", dump: str = ""
) -> ReportData:
    """A report of ours with everything that pytest_runtest_makereport adds to it.

    Plugins that hear of the report rely on that. A hook that needs the process that died may raise:
    then the report has what was added before, and says so. One in which the process died or hung is
    not called: it might do the same here, where no other test would run after it.

    :param data: in the format of pytest_report_to_serializable, as the result is.
    :param text: what happened, "" if nothing.
    :param dump: the stacks of the process that died.
    """
    data = {**data}
    add_facts(data, made=True)
    if _IN_HOOK.search(dump):
        why = "the process died in pytest_runtest_makereport, which is not called for this report"
        add_section(data, "pytest-fkit", why)
        return data
    pytest_fixtures.renew_request(item)
    kept_values.begin_reports(item)
    with no_warnings():  # pluggy's, of hooks that raise
        made, report, error = _made(item, data, text)
        if error is not None and data["when"] != "setup":
            # A plugin that keeps something when a setup is reported did so in the dead process.
            call = pytest.CallInfo.from_call(_nothing, when="setup")
            with suppress(Exception):
                pytest_hooks.report_for_installed(item, call)
            made, report, error = _made(item, data, text)
    return made if error is None else _after_error(item, report, data, error)


def refused(item: pytest.Item, text: str, skipped: bool) -> ReportData:
    """A report on a test that is not run, in the format of pytest_report_to_serializable.

    :param skipped: whether it is skipped; else it is an error.
    """
    path, line, _ = item.location
    report = pytest.TestReport(
        item.nodeid,
        item.location,
        dict.fromkeys(item.keywords, 1),
        "skipped" if skipped else "failed",
        (path, (line or 0) + 1, f"Skipped: {text}") if skipped else text,
        "setup",
    )
    data: ReportData = carriable(pytest_reports.report_to_data(item.config, report))
    return data


def _made(
    item: pytest.Item, data: ReportData, text: str
) -> tuple[ReportData, pytest.TestReport, BaseException | None]:
    """The report, as data and as an object, and what a hook raised."""
    copy = carriable(data)
    facts = copy.pop("fkit", None)
    copy = marshal.loads(marshal.dumps(copy))  # pytest changes what it is given
    if facts is not None:
        copy["fkit"] = facts
    innermost = _Innermost(report_from(item.config, copy))
    plugins = item.config.pluginmanager
    plugins.register(innermost)  # the last, so that all wrappers are around it
    try:
        made = item.ihook.pytest_runtest_makereport(item=item, call=_call(data, text))
        return _data(item, made), made, None
    except (KeyboardInterrupt, pytest.exit.Exception):
        raise
    except BaseException as error:  # noqa: BLE001 (of hooks that belong to users)
        return data, innermost.report, error
    finally:
        plugins.unregister(innermost)


def _nothing() -> None:
    pass


def _data(item: pytest.Item, report: pytest.TestReport) -> ReportData:
    data: ReportData = carriable(sound_data(item.config, report, 0.0))
    if not hasattr(item.config, "workerinput"):
        keep_objects(item.session, report, data)
    return data


def _after_error(
    item: pytest.Item, report: pytest.TestReport, data: ReportData, error: BaseException
) -> ReportData:
    try:
        data = _data(item, report)
    except Exception as another:  # noqa: BLE001 (what a hook put into the report)
        error = another
    text = f"pytest_runtest_makereport could not add to this report:\n{stack_text(error)}"
    add_section(data, "pytest-fkit", carriable(text))
    return data


def _call(data: ReportData, text: str) -> pytest.CallInfo[None]:
    def end() -> None:
        if data["outcome"] == "skipped" and "wasxfail" not in data:
            pytest.skip(text)
        if text:
            raise ProcessDiedError(text)

    call = pytest.CallInfo.from_call(end, when=data["when"])
    call.duration = data.get("duration", call.duration)
    call.start, call.stop = data.get("start", call.start), data.get("stop", call.stop)
    return call


class _Innermost:
    """Plugin whose report takes the place of what pytest makes of the call."""

    def __init__(self, report: pytest.TestReport) -> None:
        self.report = report

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        try:
            found = yield
        except Exception:  # noqa: BLE001 (of an item's repr_failure, which we don't need)
            return self.report
        for name, value in vars(found).items():
            vars(self.report).setdefault(name, value)
        for name in ("sections", "user_properties"):
            ours = getattr(self.report, name)
            ours[:0] = [each for each in getattr(found, name, ()) if each not in ours]
        return self.report
