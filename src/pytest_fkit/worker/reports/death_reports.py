"""Reports on test processes that died, and the command that reproduces it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Callable, Mapping

import pytest

from ...compat import pytest_reports
from ...config.one_test import kept_for_one_test
from ...config.settings import SETTINGS
from ...gpu.errors.failure import Failure
from ...gpu.slices.ownership import MACHINE_TOLD, OWNED, one_of_several, owned_by
from ...named_tuple import NamedTuple
from ...own import os, own_builtins, signal, time
from ...protocol.crash_report import Core
from ...protocol.endings import Ending, Exited, Lost, Signaled, Unmet, Unreported, WrapperEnded
from ...protocol.event_file import OF_MACHINE, GpuError, ReportData, add_facts
from ...protocol.messages import Broken, Ended
from ...protocol.plain_values import carriable
from ...protocol.stacks import origins
from ...sandbox.keeper.debugger import is_wanted
from ...sandbox.process.excerpts import merged
from ...system.paths import file_name, joined, relative
from . import deaths
from .makereport import made_by_hooks
from .replay import Replay
from .reports import Reports, add_section
from .rerunfailures import Reruns

if TYPE_CHECKING:
    from ...gpu.errors.classification import Classifier
    from ...system.diagnostics import Diagnosis

own_builtins(globals())


class Again(NamedTuple):
    """Says that a test is to be run again.

    :param attempts: so far.
    :param delay: seconds to wait before the next one.
    """

    attempts: int
    delay: float


class DeathReports:
    """Reports deaths.

    :param name: of the worker, as in "gw0"; ALONE at ``-n0``.
    :param remember_broken: called with a wide fixture that must not be set up again.
    :param in_doubt: called when a test process died that may have used GPUs.
    """

    def __init__(
        self,
        config: pytest.Config,
        name: str,
        reports: Reports,
        reruns: Reruns,
        remember_broken: Callable[[Broken], None],
        in_doubt: Callable[[], None],
    ) -> None:
        self._name = name
        self._reports = reports
        self._reruns = reruns
        self._remember_broken = remember_broken
        self._in_doubt = in_doubt
        self._wants_native = is_wanted(config.stash.get(SETTINGS, None))
        self._classifier: Classifier | None = None
        if owned_by(config) is not None:
            from ...gpu.errors.classification import Classifier

            self._classifier = Classifier(config)

    def report(self, replay: Replay, ended: Ended, attempts: int | None) -> Again | None:
        """Report how a test process died.

        :param attempts: so far, this one included; None if there can't be another.
        :return: None unless the test is to be run again.
        """
        death = self._death(replay, ended)
        expected = self._expected(replay, death)
        again: Again | None = None
        if attempts is not None and expected is None and death.wide != "teardown":
            again = self._again(replay.item, death, attempts)
        if again is None:
            self._note_broken(replay, death)
        replay.has_died = True
        if death.when != "teardown" or not _added(replay, death, again):
            self._log(replay, death, expected, again, attempts or 1)
        return again

    def _expected(self, replay: Replay, death: deaths.Death) -> str | None:
        """The reason for which the death was expected (xfail), None if it was not."""
        if isinstance(death.ending, (Lost, Unreported, Unmet, WrapperEnded)):
            return None  # the test itself may have passed
        if not death.wide and (death.phase == "exit" or replay.has_said(death.phase)):
            return None  # the test's own outcome was known by then
        if replay.expected is None:
            return pytest_reports.expected_failure(replay.item)
        return replay.expected

    def _again(self, item: pytest.Item, death: deaths.Death, attempts: int) -> Again | None:
        headline = deaths.headline(death, item.config.rootpath)
        delay = self._reruns.delay(item, attempts, headline)
        return None if delay is None else Again(attempts, delay)

    def _note_broken(self, replay: Replay, death: deaths.Death) -> None:
        """Prevent another setup of the wide fixture in whose setup the process died, if any."""
        fixture = replay.setting_up
        if fixture is not None:
            headline = deaths.headline(death, replay.item.config.rootpath)
            text = (
                f"{fixture.label} was not set up again: {headline}\n"
                f"see the report on {replay.item.nodeid}, for which it was set up"
            )
            self._remember_broken(Broken(fixture.key, text))

    def _log(
        self,
        replay: Replay,
        death: deaths.Death,
        expected: str | None,
        again: Again | None,
        attempts: int,
    ) -> None:
        item = replay.item
        data = deaths.report_data(
            death,
            item.location,
            dict.fromkeys(item.keywords, 1),
            item.config.rootpath,
            deaths.crash_report(death, origins(item.config)),
            replay.phase_began,
            expected,
        )
        if attempts > 1 or again is not None:
            data["rerun"] = attempts - 1
        if again is not None:
            data["outcome"] = "rerun"
        elif expected is None:
            self._classify(replay, death)
        replay.log_complete_phases(data)
        data["sections"] = merged([*replay.sections(), *data["sections"]])
        data["user_properties"] = list(replay.metrics.items())
        headline = deaths.headline(death, item.config.rootpath)
        data = made_by_hooks(item, carriable(data), headline, death.dump)
        replay.release()
        replay.log(data)
        if death.when != "teardown":
            # It did not run, but reporters (JUnit XML, HTML) close a test with a teardown's report.
            replay.log(made_by_hooks(item, _empty_teardown(data), dump=death.dump))

    def _classify(self, replay: Replay, death: deaths.Death) -> None:
        """Report an error of the machine or a GPU, if that is why the process died."""
        of_machine = one_of_several(replay.item.config) and _lacked_shared_memory(death.ending)
        title = f"{death.ending.title} in {death.phase}"
        if of_machine:
            text = f"{title}, and {_SHARED_MEMORY} is full"
            self._reports.gpu_error(replay.item, GpuError(OF_MACHINE, text))
        if self._classifier is None:
            return
        if isinstance(death.ending, Unmet):
            owned = owned_by(replay.item.config)
            if owned is not None and owned.shared:  # an attempt without neighbours may have room
                lacking = GpuError("memory", death.ending.title, alone=True)
                self._reports.gpu_error(replay.item, lacking)
            return
        self._in_doubt()
        if of_machine:
            return
        stderr = replay.error_output + deaths.text_of(death.ended.err)
        failure = Failure(text=title, death=True, stderr=stderr)
        error, unexplained = self._classifier.of_death(replay.item, failure)
        if error is not None:
            self._reports.gpu_error(replay.item, error)
        elif unexplained:
            from ...gpu.health.xids import may_explain

            if may_explain(death.ending):
                self._reports.unexplained(replay.item, carriable(title))

    def _death(self, replay: Replay, ended: Ended) -> deaths.Death:
        fixture = replay.setting_up
        looked = 0.0 if ended.native is None else ended.native.seconds
        looked += 0.0 if ended.core is None else ended.core.seconds
        wide, after = ended.wide, False
        if isinstance(ended.ending, WrapperEnded):
            wide, after = "", ended.ending.begun
        return deaths.Death(
            replay.item.nodeid,
            ended,
            phase=wide or ("exit" if after else replay.phase),
            seconds=max(0.0, time.time() - replay.phase_began - looked),
            worker=self._name,
            wide=wide or ("setup" if fixture is not None else ""),
            fixture=fixture.label if fixture is not None else "",
            reproduce=reproducing_command(replay.item, replay.changed),
            diagnosis=_diagnosis(replay.error_output + deaths.text_of(ended.err), ended),
            native=deaths.NativeSection() if replay.wrapped else self._native(ended),
            core=_named(ended.core, replay.item.nodeid, ended.pid),
            machine=str(getattr(replay.item.config, "workerinput", {}).get(MACHINE_TOLD, "")),
        )

    def _native(self, ended: Ended) -> deaths.NativeSection:
        if not self._wants_native:
            return deaths.NativeSection()
        from .native_stacks import section_of

        return section_of(ended.native, ended.ending)


def _named(core: Core | None, nodeid: str, pid: int) -> Core:
    """The core under a name with test and pid."""
    if core is None:
        return Core()
    if not core.path:
        return core._replace(why_not=carriable(core.why_not))
    path = joined(core.path.rpartition("/")[0], f"{file_name(nodeid)}.{pid}.core")
    try:
        os.rename(core.path, path)
    except OSError:
        path = core.path
    return core._replace(path=carriable(path), program=carriable(core.program))


_SHARED_MEMORY = "/dev/shm"  # noqa: S108 (only looked at)
_FULL = 1 / 16
"""A file system is full of which less than this is free: what the process had is free again."""


def _lacked_shared_memory(ending: Ending) -> bool:
    """Whether a process has touched shared memory for which there was no room."""
    if not (isinstance(ending, Signaled) and ending.signal == signal.SIGBUS):
        return False
    try:
        found = os.statvfs(_SHARED_MEMORY)
    except OSError:
        return False
    return found.f_bavail < found.f_blocks * _FULL


def _added(replay: Replay, death: deaths.Death, again: Again | None) -> bool:
    """Add the death to the report on the test's own teardown if that failed; whether it did."""
    failed = replay.held_teardown_failed()
    if failed is None:
        replay.drop_teardown()
        return False
    crash = deaths.crash_report(death, origins(replay.item.config))
    add_section(failed, "pytest-fkit", crash.text)
    add_facts(failed, core=death.core.path, no_core=death.core.why_not)
    if again is not None:
        failed["outcome"] = "rerun"
    return True


def _empty_teardown(death: ReportData) -> ReportData:
    kept = (
        "$report_type", "nodeid", "location", "keywords", "sections", "user_properties", "rerun",
    )  # fmt: skip
    return {
        **{name: death[name] for name in kept if name in death},
        "outcome": "passed",
        "longrepr": None,
        "when": "teardown",
        "duration": 0.0,
        "start": death["stop"],
        "stop": death["stop"],
    }


def _diagnosis(stderr: str, ended: Ended) -> Diagnosis | None:
    """Why the process ended, by what it wrote to its descriptor 2."""
    ending = ended.ending
    if not stderr or not isinstance(ending, (Signaled, Exited, WrapperEnded)):
        return None
    from ...system.diagnostics import diagnosis  # few workers ever need it

    how = f"exit {ending.status}" if isinstance(ending, Exited) else ending.title
    if isinstance(ending, WrapperEnded):
        how = ending.how.replace("exit status", "exit")
    return diagnosis(stderr, ended.pid, how)


# --- the command that runs one test again ---------------------------------------------------------


def reproducing_command(item: pytest.Item, changed: Mapping[str, str]) -> str:
    """The command that runs only this test, from the directory of this run.

    :param changed: the variables in which the test's process differed from its worker.
    """
    config = item.config
    given = [str(argument) for argument in config.invocation_params.args]
    paths = {str(path) for path in config.getoption("file_or_dir", None) or ()}
    arguments = ["pytest", *kept_for_one_test(given, paths.__contains__)]
    directory = config.invocation_params.dir
    # Not item.nodeid, to which xdist adds the name of its group.
    nodeid = item.name if item.parent is None else f"{item.parent.nodeid}::{item.name}"
    path, separator, rest = nodeid.partition("::")
    # Node ids are relative to rootdir, and outside of it to what the command line names; arguments
    # to the current directory.
    where = str(item.path)
    if not where.endswith(path):
        where = joined(str(config.rootpath), path)
    path = relative(where, str(directory))
    owned = config.stash.get(OWNED, None)
    masks = "" if owned is None else owned.assignments(changed)
    return masks + shlex.join([*arguments, path + separator + rest])
