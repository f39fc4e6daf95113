"""The test loop of a worker, and of pytest itself at ``-n0``: one item-level path for both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Generator, Iterator, Mapping

import pytest

from ..compat import pytest_fixtures, pytest_hooks
from ..config.settings import ALONE, Settings
from ..own import contextmanager, own_builtins, signal, threading, time, warnings
from ..protocol.endings import Ending, Finished, ForkUnsafe, Unreported, from_wire, to_wire
from ..protocol.interruptions import interruption, raise_again
from ..protocol.messages import (
    Begins,
    Completed,
    Ended,
    EndError,
    Events,
    Follows,
    Interrupted,
    LiveText,
    Measured,
    Message,
    Notice,
    Output,
    PluginState,
    Run,
    SessionFinished,
    TornDown,
    WideTeardown,
    WorkerOutput,
)
from ..protocol.plain_values import carriable
from ..protocol.wire import unpack_all
from ..sandbox.process.steps import Step
from .keeper_link import KeeperClient
from .reports.attempt_events import Attempt
from .reports.coverage_data import Gathered
from .reports.death_reports import Again, DeathReports
from .reports.plugin_states import States
from .reports.replay import Replay
from .reports.reports import Reports
from .reports.rerunfailures import Reruns
from .reports.terminal_output import LIVE, Lines
from .tests.orders import Request, Requests, ahead, order, together
from .tests.tests import Pace, Taken, Tests

own_builtins(globals())


class TestLoop:
    """Runs tests, one after the other, through the keeper.

    :param name: of the worker, as in "gw0"; ALONE at ``-n0``.
    :param unforkable: says what keeps a test from being forked, or "".
    :param lines: where the text goes that tests write to the terminal.
    :param reports: where reports go.
    :param most: how many tests may be asked for at once.
    :param in_doubt: called when a test process died that may have used GPUs, or met a GPU error
        after which they are to be tried.
    """

    __test__ = False

    def __init__(
        self,
        session: pytest.Session,
        settings: Settings,
        keeper: KeeperClient,
        name: str,
        lines: Lines,
        reports: Reports,
        unforkable: Callable[[pytest.Item], str],
        most: int,
        in_doubt: Callable[[], None] = lambda: None,
    ) -> None:
        self._session = session
        self._settings = settings
        self._keeper = keeper
        self._name = name
        self._lines = lines
        self._reports = reports
        self._pace = Pace(most)
        config = session.config
        self._shows_output = name == ALONE and config.getoption("capture", "no") in (
            "no",
            "tee-sys",
        )  # no: -p no:capture
        self._states = States(config)
        self._reruns = Reruns(config)
        self._deaths = DeathReports(
            config, name, reports, self._reruns, keeper.remember_broken, in_doubt
        )
        self._requests = Requests(session, settings, unforkable, self._reruns)
        self._runs_ahead = not (reports.are_awaited(config) or self._reruns.active)
        # They are to hear of a test before the next one begins.
        self._one_by_one = pytest_hooks.others_hear_reports(config)
        self._stopping = threading.Event()
        self._last_words: Interrupted | None = None
        self._gathered = Gathered()
        self._most = 1
        self._noticed: set[str] = set()
        self.exitstatus: int | None = None
        """What a plugin that was told of the end of the session elsewhere wants it to be."""
        self._open: tuple[Replay, float] | None = None
        """The test that ran last, with its limit for wide fixtures, until it is known what follows.
        """

    def run_all(self, tests: Tests) -> Generator[Step, Any, None]:
        """Run tests until there are no more, or the session is to stop.

        :raises KeyboardInterrupt, pytest.exit.Exception: if a test or the user says so.
        """
        while True:
            taken = tests.take(self._most)
            if self._open is not None:
                self._close(*self._open, taken)
            self._raise_if_stopping()
            if taken is None:
                return
            if taken.environ is not None:
                yield from self.run_in(taken.positions[0], taken.environ)
            elif taken.positions:
                yield from self._run_some(tests, taken)
            if self._session.shouldfail or self._session.shouldstop:
                return

    def _run_some(self, tests: Tests, taken: Taken) -> Generator[Step, Any, None]:
        """Run the first test, and those after it that can be run with it."""
        requests = self._requests.of(taken)
        self._reports.begins(requests[0].item)
        self._reports.flush()
        if isinstance(requests[0].run, str):
            self._refuse(requests[0])
            self._reports.flush()
            tests.put_back(taken.positions[1:])
            self._reports.flush()  # there may be no other test
            return
        chosen = requests[:1] if self._one_by_one else together(requests)
        after = ahead(requests[: len(chosen) + 1]) if self._runs_ahead else None
        yield from self._keeper.start()
        began = time.monotonic()
        replay, begun, ended = self._listen(chosen, after)
        ending = from_wire(ended.ending)
        if isinstance(ending, ForkUnsafe):
            self._requests.note_fork_unsafe(ending.reason)
            tests.put_back(taken.positions)
            return
        tests.put_back(taken.positions[begun:])
        last = chosen[begun - 1]
        again = self._conclude(replay, ended, ending, 0)
        replay = yield from self._run_again(last, replay, again)
        self._most = 2
        if last.share and not self._one_by_one:
            self._pace.took(begun, time.monotonic() - began)
            self._most = self._pace.most
        follows = [*taken.positions, taken.following][begun]
        self._finish_or_keep(tests, replay, last, follows)

    def _finish_or_keep(
        self, tests: Tests, replay: Replay, request: Request, following: int | None
    ) -> None:
        stops = self._session.shouldfail or self._session.shouldstop
        kept = stops or tests.keeps(following)
        if kept:
            self._finish(replay)
        else:
            assert isinstance(request.run, Run)
            self._open = replay, request.run.wide_timeout
        if not kept or tests.waits:
            self._reports.flush()
        self._raise_interruption(replay)

    def _close(self, replay: Replay, timeout: float, taken: Taken | None) -> None:
        """Finish the test that ran last, now that it is known what follows."""
        self._open = None
        replay.phase_began = time.time()  # of what follows; it may have waited
        if taken is None or self._stopping.is_set():
            self._tear_down(replay)
        else:
            position = taken.positions[0] if taken.positions else None
            self._follow(
                replay,
                Follows(
                    -1 if position is None else position, self._requests.share(position), timeout
                ),
            )
        self._finish(replay)
        if taken is None or not taken.positions:
            self._reports.flush()
        self._raise_interruption(replay)

    def _follow(self, replay: Replay, order: Follows) -> None:
        for message in self._decoded(self._keeper.follow(order)):
            if isinstance(message, Output):
                self._lines.feed(message.fd, message.text)
                continue
            if not isinstance(message, Ended):
                replay.take(message)
                continue
            ending = from_wire(message.ending)
            if not isinstance(ending, Finished):
                replay.take(message)
                self._deaths.report(replay, message, ending, None)
            else:
                _note_leftovers(replay, message)

    def _run_again(
        self, request: Request, replay: Replay, again: Again | None
    ) -> Generator[Step, Any, Replay]:
        """Run the test until it is not to be run again."""
        while again is not None:
            self._finish(replay, again=True)
            self._stopping.wait(again.delay)
            self._raise_if_stopping()
            replay, again = yield from self._run_once(request, again.attempts)
        return replay

    def _run_once(
        self, request: Request, before: int
    ) -> Generator[Step, Any, tuple[Replay, Again | None]]:
        assert isinstance(request.run, Run)
        yield from self._keeper.start()
        run = request.run._replace(attempts=before, suite_reruns=self._reruns.in_suite)
        replay, _, ended = self._listen([replace(request, run=run)], None)
        return replay, self._conclude(replay, ended, from_wire(ended.ending), before)

    def _conclude(self, replay: Replay, ended: Ended, ending: Ending, before: int) -> Again | None:
        """Take in how the process of the test ended that began last.

        :param before: how often the test was tried before.
        :return: what follows, if it is to be run again.
        """
        missing = replay.missing() if isinstance(ending, Finished) else ""
        if missing:
            ending = Unreported(missing)
            ended = ended._replace(ending=to_wire(ending))
        replay.take(ended)
        attempts = before + replay.attempts
        self._reruns.note(replay.item, before, attempts)
        again: Again | None = None
        if not isinstance(ending, Finished):
            self._raise_if_stopping()
            again = self._deaths.report(replay, ended, ending, attempts)
        else:
            _note_leftovers(replay, ended)
        self._reports.settle()
        if self._session.shouldfail or self._session.shouldstop:
            self._tear_down(replay)
        if replay.interrupted is not None or self._stopping.is_set():
            self._finish(replay, again is not None)
            self._reports.flush()
            self._raise_interruption(replay)
        return again

    def _account(self, replay: Replay) -> None:
        """Report what is missing of a test after which others ran in its process."""
        missing = replay.missing()
        if missing:
            ending = Unreported(missing)
            ended = Ended(to_wire(ending))
            replay.take(ended)
            self._deaths.report(replay, ended, ending, None)

    def _raise_interruption(self, replay: Replay) -> None:
        if replay.interrupted is not None:
            self._last_words = replay.interrupted
            raise_again(replay.interrupted)
        self._raise_if_stopping()

    def _finish(self, replay: Replay, again: bool = False) -> None:
        replay.finish(again)
        pytest_fixtures.forget_request(replay.item)
        self._lines.flush()

    def _raise_if_stopping(self) -> None:
        if self._stopping.is_set():
            raise KeyboardInterrupt

    @contextmanager
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

    def run_in(self, position: int, environ: Mapping[str, str]) -> Generator[Step, Any, None]:
        """Run one test in a fresh interpreter, alone: no other process is left below this worker.

        :param position: of the test in ``session.items``.
        :param environ: variables to be set before anything is imported there.
        :raises KeyboardInterrupt, pytest.exit.Exception: if the test or the user says so.
        """
        self._raise_if_stopping()
        self.vacate()
        request = self._requests.apart(position, environ)
        self._reports.begins(request.item)
        self._reports.flush()
        if isinstance(request.run, str):
            self._refuse(request)
        else:
            replay, again = yield from self._run_once(request, 0)
            replay = yield from self._run_again(request, replay, again)
            self._finish(replay)
            self._raise_interruption(replay)
        self._reports.flush()

    def finish(self) -> None:
        """Tear down what is still set up; called when no test is left."""
        self.vacate()
        self._states.conclude()
        if self._keeper.coverage is not None:
            self._gathered.add_to(self._keeper.coverage)

    def vacate(self) -> None:
        """Tear down what is still set up, and end all processes below this one.

        If that goes wrong there is no test to report it, so a warning does.
        """
        for message in self._decoded(self._keeper.finish(self._settings.timeout)):
            if isinstance(message, Output):
                self._lines.feed(message.fd, message.text)
            elif isinstance(message, LiveText):
                self._lines.feed_text(LIVE, message.text)
            elif isinstance(message, WideTeardown) and message.report is not None:
                self.warn("a wide fixture failed when it was torn down, after the last test")
            elif isinstance(message, EndError):
                self.warn(f"raised at the end of a process that ran tests: {message.text}")
            elif isinstance(message, TornDown):
                ending = from_wire(message.ending)
                if not isinstance(ending, Finished) and not self._stopping.is_set():
                    self.warn(f"the process that tears wide fixtures down {ending.story}")
                if message.gpu_memory:
                    self.warn(f"GPU memory not given back: {'; '.join(message.gpu_memory)}")
        self._reports.settle(over=True)
        self._reports.flush()
        self._lines.flush()

    def warn(self, text: str) -> None:
        """Have a warning of ours in the summary."""
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

    def _replay(
        self, item: pytest.Item, shared: str = "", changed: Mapping[str, str] | None = None
    ) -> Replay:
        attempt = Attempt(shared) if self._settings.records else None
        return Replay(item, self._reports, self._lines, shared, attempt, changed)

    def _listen(self, requests: list[Request], after: Run | None) -> tuple[Replay, int, Ended]:
        """Run tests in one process.

        :param after: the test that the keeper may begin afterwards, before it is asked to.
        :return: the test that began last, how many began, and how their process ended.
        """
        items = self._session.items
        changed = requests[0].changed
        shared = {each.run.position: each.shared for each in requests if isinstance(each.run, Run)}
        replay = self._replay(requests[0].item, requests[0].shared, changed)
        begun = 0
        if self._shows_output:
            replay.start()  # before what the test writes to the terminal itself
        try:
            for message in self._decoded(self._keeper.run(order(requests), after)):
                if isinstance(message, Ended):
                    return replay, max(1, begun), message
                if isinstance(message, Output):
                    self._lines.feed(message.fd, message.text)
                    replay.printed(message)
                elif isinstance(message, Begins):
                    begun += 1
                    if begun > 1:
                        self._reruns.note(replay.item, 0, replay.attempts)
                        self._account(replay)
                        self._finish(replay)
                        self._reports.begins(items[message.position])
                        why = shared.get(message.position, "")
                        replay = self._replay(items[message.position], why, changed)
                else:
                    replay.take(message)
        except KeyboardInterrupt:
            self._stop(replay)
            raise
        raise AssertionError("the keeper's last message is Ended")

    def _decoded(self, messages: Iterator[Message]) -> Iterator[Message]:
        for message in messages:
            inner = message
            for inner in _unpacked(message):
                if isinstance(inner, Measured):
                    self._gathered.take(inner)
                elif isinstance(inner, PluginState):
                    self._states.take(inner)
                elif isinstance(inner, SessionFinished):
                    pytest_hooks.forget_ends(self._session.config, inner.plugins)
                    self.exitstatus = inner.exitstatus
                elif isinstance(inner, Notice):
                    self._notice(inner.text)
                elif isinstance(inner, WorkerOutput):
                    self._take_output(inner)
                else:
                    yield inner
            if isinstance(message, Events) and not isinstance(inner, Completed):
                # It may take a while until there is more.
                self._reports.flush()

    def _notice(self, text: str) -> None:
        if text not in self._noticed:
            self._noticed.add(text)
            self.warn(text)

    def _take_output(self, message: WorkerOutput) -> None:
        """Put it where xdist looks for it, if this is a worker."""
        output: dict[str, Any] | None = getattr(self._session.config, "workeroutput", None)
        if output is not None:
            output.update(message.values)

    def _refuse(self, request: Request) -> None:
        """Report a test that is not run."""
        replay = self._replay(request.item)
        replay.refuse(str(request.run), request.skipped)
        replay.finish()

    def _tear_down(self, replay: Replay) -> None:
        """No test follows: what fixtures say at their end belongs to this one."""
        for message in self._decoded(self._keeper.finish(self._settings.timeout)):
            if isinstance(message, WideTeardown):
                replay.wide_teardown(message)
            elif isinstance(message, TornDown):
                self._report_torn_down(replay, message)
            elif isinstance(message, EndError):
                replay.take(message)

    def _report_torn_down(self, replay: Replay, message: TornDown) -> None:
        ending = from_wire(message.ending)
        ended = Ended(
            message.ending, 0, "teardown", message.out, message.err, message.log,
            message.dump, message.leftovers, gpu_memory=message.gpu_memory,
        )  # fmt: skip
        if not isinstance(ending, Finished):
            replay.take(ended)
            self._deaths.report(replay, ended, ending, None)
        elif ended.gpu_memory:
            _note_leftovers(replay, ended)

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


def _unpacked(message: Message) -> Iterator[Message]:
    if isinstance(message, Events):
        yield from unpack_all(message.frames)
    else:
        yield message


def _note_leftovers(replay: Replay, ended: Ended) -> None:
    if ended.leftovers:
        still = [f"{line}, still there, with GPUs open" for line in ended.hold_gpus]
        replay.name_leftovers([carriable(line) for line in (*ended.leftovers, *still)])
    if ended.gpu_memory:
        replay.name_gpu_memory([carriable(line) for line in ended.gpu_memory])


def _ignored(signum: int, frame: object) -> None:
    del signum, frame
