"""The test loop of a worker, and of pytest itself at ``-n0``: one item-level path for both."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import threading
import time
import warnings
from typing import Any, Callable, Iterator, NamedTuple

import pytest

from .. import private_api
from ..endings import Ending, Finished, from_wire
from ..interruptions import interruption, raise_again
from ..markers import limits
from ..messages import (
    Ended,
    Events,
    Interrupted,
    LiveText,
    Measured,
    Message,
    Output,
    PluginState,
    Run,
    TornDown,
    WideTeardown,
)
from ..sandbox.relay import merged
from ..sandbox.spawn import PREFIX
from ..settings import Settings
from ..wire import Unpacker, carriable
from . import deaths
from .coverage import Gathered
from .keeper import KeeperClient
from .output import LIVE, Lines
from .replay import Replay
from .reruns import Reruns
from .states import States

ALONE = "main"
"""The name of the process where there are no workers."""

# What a command that runs one test again leaves out.
_DROPPED = ("-n", "--numprocesses", "--dist", "--junitxml", "--junit-xml", "--basetemp")


class Again(NamedTuple):
    """A test that died is due to be run again.

    :param attempts: so far.
    :param delay: seconds to wait.
    """

    attempts: int
    delay: float


class TestLoop:
    """Runs tests, one after the other, through the keeper.

    :param name: of the worker, as in "gw0"; ALONE at ``-n0``.
    :param unforkable: says what keeps a test from being forked, or "".
    :param lines: where the text goes that tests write to the terminal.
    """

    __test__ = False

    def __init__(
        self,
        session: pytest.Session,
        settings: Settings,
        keeper: KeeperClient,
        name: str,
        lines: Lines,
        unforkable: Callable[[pytest.Item], str],
    ) -> None:
        self._session = session
        self._settings = settings
        self._keeper = keeper
        self._name = name
        self._lines = lines
        self._unforkable = unforkable
        self._stopping = threading.Event()
        self._last_words: Interrupted | None = None
        self._gathered = Gathered()
        config = session.config
        self._shows_output = name == ALONE and config.getoption("capture") in ("no", "tee-sys")
        self._states = States(config)
        self._reruns = Reruns(config)
        self._index = {item: number for number, item in enumerate(session.items)}

    def run_all(self) -> None:
        """Run the whole session, as pytest's own loop does.

        :raises pytest.Session.Failed, pytest.Session.Interrupted: as that does.
        """
        session = self._session
        for item, nextitem in zip(session.items, [*session.items[1:], None]):
            self.run_test(item, nextitem)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)

    def run_test(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        """Run one test, again if pytest-rerunfailures would, and report it.

        :raises KeyboardInterrupt, pytest.exit.Exception: if the test or the user says so.
        """
        attempts = 0
        while True:
            again = self._attempt(item, nextitem, attempts)
            if again is None:
                return
            attempts = again.attempts
            self._wait(again.delay)

    def _attempt(
        self, item: pytest.Item, nextitem: pytest.Item | None, before: int
    ) -> Again | None:
        replay = Replay(item, self._lines, self._unforkable(item))
        self._raise_if_stopping()
        try:
            run = self._request(item, nextitem)._replace(
                attempts=before, suite_reruns=self._reruns.in_suite
            )
        except pytest.UsageError as error:
            self._refuse(item, replay, str(error))
            return None
        if self._shows_output:
            replay.start()  # before what the test writes to the terminal itself
        try:
            ended = self._listen(replay, self._keeper.run(run))
        except KeyboardInterrupt:
            self._stop(replay)
            raise
        self._reruns.note(item, before, before + replay.attempts)
        ending = from_wire(ended.ending)
        again: Again | None = None
        if not isinstance(ending, Finished):
            self._raise_if_stopping()
            again = self._report_death(item, replay, ended, ending, before + replay.attempts)
        elif ended.leftovers:
            _note_leftovers(replay, ended)
        if self._session.shouldfail or self._session.shouldstop:
            self._tear_down(item, replay)
        replay.finish()
        private_api.forget_request(item)
        self._lines.flush()
        if replay.interrupted is not None:
            self._last_words = replay.interrupted
            raise_again(replay.interrupted)
        self._raise_if_stopping()
        return again

    def _wait(self, seconds: float) -> None:
        self._stopping.wait(seconds)
        self._raise_if_stopping()

    def _raise_if_stopping(self) -> None:
        if self._stopping.is_set():
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def deaf_to_interrupts(self) -> Iterator[None]:
        """Within the block, in a worker: leave Ctrl-C to the controller, who calls :meth:`stop`.

        Both get the signal from the terminal; who gets both would take it for a second one.
        """
        handler = signal.signal(signal.SIGINT, _ignored)
        self._keeper.at_start = lambda: signal.signal(signal.SIGINT, handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, handler)

    def stop(self) -> None:
        """End the running test and tear down, within the grace; called in another thread."""
        self._stopping.set()
        self._keeper.request_stop(self._settings.grace)

    def last_words(self, error: BaseException) -> tuple[Any, ...]:
        """What the controller needs to stop the run as `error` would stop plain pytest."""
        return tuple(self._last_words or interruption(error))

    def finish(self) -> None:
        """Tear down what is still set up; called when no test is left.

        If that goes wrong there is no test to report it, so a warning does.
        """
        for message in self._decoded(self._keeper.finish(self._settings.timeout)):
            if isinstance(message, Output):
                self._lines.feed(message.fd, message.text)
            elif isinstance(message, LiveText):
                self._lines.feed_text(LIVE, message.text)
            elif isinstance(message, WideTeardown) and message.report is not None:
                self._warn("a wide fixture failed when it was torn down, after the last test")
            elif isinstance(message, TornDown):
                ending = from_wire(message.ending)
                if not isinstance(ending, Finished) and not self._stopping.is_set():
                    self._warn(f"the process that tears wide fixtures down {ending.story}")
        self._lines.flush()
        self._states.conclude()
        if self._keeper.coverage is not None:
            self._gathered.add_to(self._keeper.coverage)

    def _warn(self, text: str) -> None:
        warning = pytest.PytestWarning(f"pytest-fkit: {text}")
        self._session.config.hook.pytest_warning_recorded.call_historic(
            kwargs={
                "warning_message": warnings.WarningMessage(warning, type(warning), __file__, 0),
                "when": "runtest",
                "nodeid": "",
                "location": None,
            }
        )

    # --- one test ---

    def _request(self, item: pytest.Item, nextitem: pytest.Item | None) -> Run:
        wanted = limits(item, self._settings)
        share = self._spawned(item) or wanted.share
        return Run(
            position=self._index[item],
            next_position=-1 if nextitem is None else self._index[nextitem],
            share=share,
            next_share="" if nextitem is None else self._share(nextitem),
            timeout=wanted.timeout,
            wide_timeout=wanted.timeout,
            memory_limit=wanted.memory_limit,
            tests_failed=self._session.testsfailed,
            location=carriable(item.location),
        )

    def _spawned(self, item: pytest.Item) -> str:
        if not self._unforkable(item):
            return ""
        return f"{PREFIX}{item.nodeid.partition('::')[0]}"

    def _share(self, item: pytest.Item) -> str:
        try:
            return self._spawned(item) or limits(item, self._settings).share
        except pytest.UsageError:  # reported when it is that test's turn
            return ""

    def _listen(self, replay: Replay, messages: Iterator[Message]) -> Ended:
        for message in self._decoded(messages):
            if isinstance(message, Ended):
                return message
            if isinstance(message, Output):
                self._lines.feed(message.fd, message.text)
            else:
                replay.take(message)
        raise AssertionError("the keeper's last message is Ended")

    def _decoded(self, messages: Iterator[Message]) -> Iterator[Message]:
        for message in messages:
            for inner in _unpacked(message):
                if isinstance(inner, Measured):
                    self._gathered.take(inner)
                elif isinstance(inner, PluginState):
                    self._states.take(inner)
                else:
                    yield inner

    def _refuse(self, item: pytest.Item, replay: Replay, text: str) -> None:
        """Report a test whose marks are wrong."""
        replay.log(
            pytest.TestReport(
                item.nodeid, item.location, dict.fromkeys(item.keywords, 1), "failed", text, "setup"
            )
        )
        replay.finish()

    def _tear_down(self, item: pytest.Item, replay: Replay) -> None:
        """No test follows: what fixtures say at their end belongs to this one."""
        for message in self._decoded(self._keeper.finish(self._settings.timeout)):
            if isinstance(message, WideTeardown):
                replay.wide_teardown(message)
            elif isinstance(message, TornDown):
                self._report_torn_down(item, replay, message)

    def _report_torn_down(self, item: pytest.Item, replay: Replay, message: TornDown) -> None:
        ending = from_wire(message.ending)
        if not isinstance(ending, Finished):
            ended = Ended(
                message.ending, 0, "teardown", message.out, message.err, message.log,
                message.dump, message.leftovers,
            )  # fmt: skip
            self._report_death(item, replay, ended, ending, None)

    def _stop(self, replay: Replay) -> None:
        """The user interrupts: end the running test and tear down, within the grace."""
        self._stopping.set()
        try:
            for message in self._decoded(self._keeper.stop(self._settings.grace)):
                replay.take(message)
        finally:
            self._keeper.close()  # the second Ctrl-C comes here at once
        if replay.interrupted is not None:
            raise_again(replay.interrupted)

    # --- a death ---

    def _report_death(
        self,
        item: pytest.Item,
        replay: Replay,
        ended: Ended,
        ending: Ending,
        attempts: int | None,
    ) -> Again | None:
        """Report how a test process died.

        :param attempts: so far, this one included; None if there can't be another.
        :return: what follows, if the test is to be run again.
        """
        death = self._death(item, replay, ended, ending)
        expected = replay.expected
        if expected is None and death.phase != "exit":
            expected = private_api.expected_failure(item)
        rootdir = item.config.rootpath
        again: Again | None = None
        if attempts is not None and expected is None and death.wide != "teardown":
            delay = self._reruns.delay(item, attempts, deaths.headline(death, rootdir))
            again = None if delay is None else Again(attempts, delay)
        fixture = replay.setting_up
        if fixture is not None and again is None:
            self._keeper.remember_broken(
                fixture.key,
                f"{fixture.label} was not set up again: "
                f"{deaths.headline(death, rootdir)}, for {item.nodeid}\n\n{deaths.story(death)}",
            )
        if death.when == "teardown":
            failed = replay.held_teardown_failed()
            if failed is not None:
                failed.sections.append(("pytest-fkit", deaths.story(death)))
                if again is not None:
                    failed.outcome = "rerun"
                return again
            replay.drop_teardown()
        data = deaths.report_data(
            death,
            item.location,
            dict.fromkeys(item.keywords, 1),
            rootdir,
            replay.phase_began,
            expected,
        )
        if again is not None:
            data.update(outcome="rerun", rerun=again.attempts - 1)
        report = replay.report_from(carriable(data))
        replay.log_complete_phases(report)
        report.sections = merged([*replay.sections(), *report.sections])
        replay.release()
        replay.log(report)
        if death.when != "teardown":
            # It did not run, but reporters (JUnit's output, HTML) close a test with this one.
            replay.log(_empty_teardown(report))
        return again

    def _death(
        self, item: pytest.Item, replay: Replay, ended: Ended, ending: Ending
    ) -> deaths.Death:
        fixture = replay.setting_up
        return deaths.Death(
            nodeid=item.nodeid,
            ending=ending,
            phase=ended.wide or replay.phase,
            seconds=max(0.0, time.time() - replay.phase_began),
            worker=self._name,
            pid=ended.pid,
            out=_text(ended.out),
            err=_text(ended.err),
            log=_text(ended.log).strip(),
            dump=_text(ended.dump),
            wide=ended.wide or ("setup" if fixture is not None else ""),
            fixture=fixture.label if fixture is not None else "",
            leftovers=ended.leftovers,
            survivors=ended.survivors,
            reproduce=reproducing_command(item),
        )


def _unpacked(message: Message) -> Iterator[Message]:
    if isinstance(message, Events):
        yield from Unpacker().feed(message.frames)
    else:
        yield message


def _empty_teardown(report: Any) -> Any:
    return pytest.TestReport(
        report.nodeid,
        report.location,
        report.keywords,
        "passed",
        None,
        "teardown",
        sections=report.sections,
        start=report.stop,
        stop=report.stop,
    )


def _note_leftovers(replay: Replay, ended: Ended) -> None:
    replay.name_leftovers([carriable(line) for line in ended.leftovers])


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def reproducing_command(item: pytest.Item) -> str:
    """The command that runs this one test again, from the directory of this run."""
    config = item.config
    given = [str(argument) for argument in config.invocation_params.args]
    paths = {str(path) for path in config.getoption("file_or_dir", None) or ()}
    arguments = ["pytest"]
    skip = False
    for argument in given:
        if skip or argument in paths:
            skip = False
        elif argument in _DROPPED:
            skip = True
        elif not argument.startswith((*(f"{option}=" for option in _DROPPED), "-n")):
            arguments.append(argument)
    directory = config.invocation_params.dir
    # Not the item's own, to which xdist adds the name of its group.
    nodeid = item.name if item.parent is None else f"{item.parent.nodeid}::{item.name}"
    path, separator, rest = nodeid.partition("::")
    # Node ids are relative to rootdir, arguments to the current directory.
    path = os.path.relpath(config.rootpath / path, directory)
    return shlex.join([*arguments, path + separator + rest])


def _ignored(signum: int, frame: object) -> None:
    del signum, frame
