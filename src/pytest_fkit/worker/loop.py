"""The test loop of a worker, and of pytest itself at ``-n0``."""

from __future__ import annotations

from typing import Callable, Mapping

import pytest

from ..compat import pytest_fixtures, pytest_hooks
from ..config.deadline import Deadline
from ..config.settings import ALONE, Settings
from ..own import own_builtins, threading, time
from ..protocol.endings import Finished, ForkUnsafe, Lost, Unreported
from ..protocol.event_file import Begins, EndError, Interrupted, WideTeardown
from ..protocol.interruptions import interruption, raise_again
from ..protocol.messages import Ended, Follows, Output, Run, TornDown
from ..protocol.process_keys import OWN
from ..protocol.repetitions import item_at
from ..sandbox.process.steps import Steps
from .keeper_link import KeeperClient
from .reports.attempt_events import AttemptRecorder
from .reports.death_reports import Again, DeathReports
from .reports.replay import Replay
from .reports.reports import Reports
from .reports.rerunfailures import Reruns
from .reports.terminal_output import Lines
from .session_messages import SessionMessages, hear_last
from .tests.orders import Refusal, Requests, ahead, order, together
from .tests.sources import MOST_IN_ORDER, Pace, Taken, Tests
from .watching import Tell, Watch

own_builtins(globals())

_WIDE_TEARDOWN = "teardown of wide fixtures"


class TestLoop:
    """Has the keeper run tests, one after the other.

    :param name: of the worker, as in "gw0"; ALONE at ``-n0``.
    :param unforkable: says what keeps a test from being forked, or "".
    :param lines: gets the text that tests write to the terminal.
    :param reports: gets the reports.
    :param tell: tells of the running test whoever has the terminal.
    :param deadline: of the run, where nobody else watches it.
    :param in_doubt: called when a test process died that may have used GPUs, so that these are to
        be probed.
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
        in_doubt: Callable[[], None] = lambda: None,
        tell: Tell = lambda _: None,
        deadline: Deadline | None = None,
    ) -> None:
        self._session = session
        self._settings = settings
        self._keeper = keeper
        self._name = name
        self._lines = lines
        self._reports = reports
        self._pace = Pace(MOST_IN_ORDER)
        config = session.config
        capture = config.getoption("capture", "no")  # no: -p no:capture
        self._shows_output = name == ALONE and capture in ("no", "tee-sys")
        self._reruns = Reruns(config)
        self._deaths = DeathReports(
            config, name, reports, self._reruns, keeper.remember_broken, in_doubt
        )
        self._requests = Requests(session, settings, unforkable, self._reruns)
        self._runs_ahead = not (reports.are_awaited(config) or self._reruns.active)
        # They are to hear of a test before the next one begins.
        self._one_by_one = pytest_hooks.others_hear_reports(config)
        self._stopping = threading.Event()
        self._stop_reason: Interrupted | None = None
        self._deadline = deadline
        self._over: BaseException | None = None
        self._drained = 0.0
        self._most = 1
        self.messages = SessionMessages(session, reports)
        self.watch = Watch(settings.slow, keeper.inspect, tell)
        keeper.look = self._look
        self.messages.on_inspected = self.watch.inspected
        self._last: tuple[Replay, float] | None = None
        """The test that ran last, with its limit for wide fixtures, until the next one is known."""

    def run_all(self, tests: Tests) -> Steps[None]:
        """Run tests until there are no more, or the session is to stop.

        :raises KeyboardInterrupt, pytest.exit.Exception: if a test or the user interrupts.
        """
        while True:
            taken = tests.take(self._most)
            if self._last is not None:
                self._finish_last(*self._last, taken)
            if taken is not None:
                self._look()
            self._raise_if_stopping()
            if taken is None:
                return
            if taken.environ is not None:
                yield from self.run_apart(taken.positions[0], taken.environ)
            elif taken.positions:
                yield from self._run_some(tests, taken)
            if self._session.shouldfail or self._session.shouldstop:
                return

    def _run_some(self, tests: Tests, taken: Taken) -> Steps[None]:
        """Run the first test, and those after it that can be ordered with it."""
        runs = self._requests.of(taken)
        self._begins(runs[0].position)
        if isinstance(runs[0], Refusal):
            self._refuse(runs[0])
            tests.put_back(taken.positions[1:])
            self._reports.flush()  # there may be no other test
            return
        chosen = [runs[0]] if self._one_by_one else together(runs)
        after = ahead(runs[: len(chosen) + 1]) if self._runs_ahead else None
        yield from self._keeper.start()
        began = time.monotonic()
        replay, begun, ended = self._listen(chosen, after)
        if isinstance(ended.ending, ForkUnsafe):
            self._requests.note_fork_unsafe(ended.ending.reason)
            tests.put_back(taken.positions)
            return
        tests.put_back(taken.positions[begun:])
        last = chosen[begun - 1]
        again = self._conclude(replay, ended, 0)
        replay = yield from self._run_again(last, replay, again)
        self._most = 2
        if last.key.is_shared and not self._one_by_one:
            self._pace.took(begun, time.monotonic() - began)
            self._most = self._pace.most
        follows = [*taken.positions, taken.following][begun]
        self._finish_or_keep(tests, replay, last, follows)

    def _finish_or_keep(
        self, tests: Tests, replay: Replay, run: Run, following: int | None
    ) -> None:
        """Finish the test, unless its last report depends on a test that is not certain yet."""
        stops = self._session.shouldfail or self._session.shouldstop
        kept = stops or tests.keeps(following)
        if kept:
            self._finish(replay)
        else:
            self._last = replay, run.timeout
        if not kept or tests.waits:
            self._reports.flush()
        self._raise_interruption(replay)

    def _finish_last(self, replay: Replay, timeout: float, taken: Taken | None) -> None:
        """Finish the test that ran last, now that the next one is known."""
        self._last = None
        replay.phase_began = time.time()  # of the teardown; the test may have waited for it
        if taken is None or self._stopping.is_set():
            self._tear_down(replay)
        else:
            position = taken.positions[0] if taken.positions else None
            key = self._requests.key(position)
            self._follow(replay, Follows(-1 if position is None else position, key, timeout))
        self._finish(replay)
        if taken is None or not taken.positions:
            self._reports.flush()
        self._raise_interruption(replay)

    def _follow(self, replay: Replay, order: Follows) -> None:
        self.watch.begins(replay, _WIDE_TEARDOWN)
        for message in self.messages.filter(self._keeper.follow(order)):
            if isinstance(message, Output):
                self._lines.feed(message.fd, message.text)
            elif isinstance(message, Ended):
                self._report_end(replay, message)
            else:
                replay.handle(message)
        self.watch.over()

    def _report_end(self, replay: Replay, ended: Ended) -> None:
        """Report how a process ended in which a test can't be run again."""
        if isinstance(ended.ending, Finished):
            replay.name_leftovers(ended)
        elif replay.has_died and isinstance(ended.ending, Lost):  # once is enough
            self.messages.warn(f"{replay.item.nodeid}: after its death, {ended.ending.reason}")
        else:
            replay.handle(ended)
            self._deaths.report(replay, ended, None)

    def _run_again(self, run: Run, replay: Replay, again: Again | None) -> Steps[Replay]:
        """Run the test as often as it is to be run again."""
        while again is not None:
            self._finish(replay, again=True)
            self._stopping.wait(again.delay)
            self._raise_if_stopping()
            replay, again = yield from self._run_once(run, again.attempts)
        return replay

    def _run_once(self, run: Run, before: int) -> Steps[tuple[Replay, Again | None]]:
        yield from self._keeper.start()
        run = run._replace(attempts=before, suite_reruns=self._reruns.in_suite)
        if before:
            run = self._requests.with_new_artifacts(run)
        replay, _, ended = self._listen([run], None)
        return replay, self._conclude(replay, ended, before)

    def _conclude(self, replay: Replay, ended: Ended, before: int) -> Again | None:
        """Report how the process of the test ended that began last.

        :param before: how many attempts there were before those of this process.
        :return: None unless it is to be run again.
        """
        missing = replay.missing() if isinstance(ended.ending, Finished) else ""
        if missing:
            ended = ended._replace(ending=Unreported(missing))
        replay.handle(ended)
        attempts = before + replay.attempts
        self._reruns.note(replay.item, before, attempts)
        again: Again | None = None
        if not isinstance(ended.ending, Finished):
            if time.monotonic() >= self._drained:  # else nobody interrupted it
                self._raise_if_stopping()
            again = self._deaths.report(replay, ended, attempts)
        else:
            replay.name_leftovers(ended)
        self._reports.settle()
        if self._session.shouldfail or self._session.shouldstop:
            self._tear_down(replay)
        if replay.interrupted is not None or self._stopping.is_set():
            self._finish(replay, again is not None)
            self._reports.flush()
            self._raise_interruption(replay)
        return again

    def _report_missing(self, replay: Replay) -> None:
        """Report a test whose reports are not complete, after which others ran in its process."""
        missing = replay.missing()
        if missing:
            self._report_end(replay, Ended(Unreported(missing)))

    def _raise_interruption(self, replay: Replay) -> None:
        if replay.interrupted is not None:
            self._stop_reason = replay.interrupted
            raise_again(replay.interrupted)
        self._raise_if_stopping()

    def _finish(self, replay: Replay, again: bool = False) -> None:
        replay.finish(again)
        pytest_fixtures.forget_request(replay.item)
        self._lines.flush()

    def _raise_if_stopping(self) -> None:
        if self._stopping.is_set():
            raise KeyboardInterrupt if self._over is None else self._over

    def stop(self, drain: float = 0.0) -> None:
        """End the running test and tear down, within the grace; called in another thread.

        :param drain: the part of it in which a test may end by itself.
        """
        self._drained = time.monotonic() + drain
        self._stopping.set()
        self._keeper.request_stop(self._settings.grace, drain)

    def _look(self) -> None:
        """What there is to do while a test runs, about once a second."""
        self.watch.look()
        deadline = self._deadline
        if deadline is not None and deadline.is_over and not self._stopping.is_set():
            self._over = self._session.Interrupted(deadline.reason)
            self.stop(self._settings.grace / 2)

    def stop_reason(self, error: BaseException) -> Interrupted:
        """The reason from which the controller stops the run as `error` would stop plain pytest."""
        return self._stop_reason or interruption(error)

    def run_apart(self, position: int, environ: Mapping[str, str]) -> Steps[None]:
        """Run one test in a fresh interpreter, when no other process is left below this worker.

        :param environ: variables to be set before anything is imported there.
        :raises KeyboardInterrupt, pytest.exit.Exception: if the test or the user interrupts.
        """
        self._raise_if_stopping()
        self.vacate()
        run = self._requests.apart(position, environ)
        self._begins(position)
        if isinstance(run, Refusal):
            self._refuse(run)
        else:
            replay, again = yield from self._run_once(run, 0)
            replay = yield from self._run_again(run, replay, again)
            self._finish(replay)
            self._raise_interruption(replay)
        self._reports.flush()

    def finish(self) -> None:
        """Tear down what is still set up; called when no test is left."""
        self.vacate()
        self._requests.drop_artifacts()
        self.messages.conclude(self._keeper.coverage)

    def vacate(self) -> None:
        """Tear down what is still set up, and end all processes below this one.

        Failures become warnings: there is no test left whose report could have them.
        """
        last = self.messages.filter(self._keeper.finish(self._settings.timeout))
        hear_last(last, self._lines, self.messages.warn, self._stopping.is_set())
        self._reports.settle(over=True)
        self._reports.flush()
        self._lines.flush()

    def _begins(self, position: int) -> None:
        self._reports.begins(item_at(self._session.items, position), position)
        self._reports.flush()

    def _replay(self, run: Run | Refusal) -> Replay:
        item = item_at(self._session.items, run.position)
        shared, key, artifacts = "", OWN, ""
        if isinstance(run, Run):
            shared, key = self._requests.shared(run), run.key
            artifacts = self._requests.take_artifacts(run)
        attempt = AttemptRecorder(item.nodeid, shared) if self._settings.records else None
        return Replay(
            item, self._reports, self._lines, shared, attempt, dict(key.environ), artifacts,
            bool(key.wrapper),
        )  # fmt: skip

    def _listen(self, runs: list[Run], after: Run | None) -> tuple[Replay, int, Ended]:
        """Run tests in one process.

        :param after: the test that the keeper may begin next, before it is ordered.
        :return: the test that began last, how many began, and how their process ended.
        """
        replay = self._replay(runs[0])
        self.watch.begins(replay)
        begun = 0
        if self._shows_output:
            replay.start()  # before what the test writes to the terminal itself
        try:
            for message in self.messages.filter(self._keeper.run(order(runs), after)):
                if isinstance(message, Ended):
                    return replay, max(1, begun), message
                if isinstance(message, Output):
                    self._lines.feed(message.fd, message.text)
                    replay.printed(message)
                elif isinstance(message, Begins):
                    begun += 1
                    if begun > 1:
                        self._reruns.note(replay.item, 0, replay.attempts)
                        self._report_missing(replay)
                        self._finish(replay)
                        replay = self._replay(runs[begun - 1])
                        self._reports.begins(replay.item, message.position)
                        self.watch.begins(replay)
                else:
                    replay.handle(message)
        except KeyboardInterrupt:
            self._stop(replay)
            raise
        finally:
            self.watch.over()
        raise AssertionError("the keeper's last message is Ended")

    def _refuse(self, refusal: Refusal) -> None:
        """Report a test that can't be run, or is skipped."""
        replay = self._replay(refusal)
        replay.refuse(refusal.reason, refusal.skipped)
        replay.finish()

    def _tear_down(self, replay: Replay) -> None:
        """Tear everything down after the last test, whose teardown report gets what goes wrong."""
        self.watch.begins(replay, _WIDE_TEARDOWN)
        for message in self.messages.filter(self._keeper.finish(self._settings.timeout)):
            if isinstance(message, WideTeardown):
                replay.wide_teardown(message)
            elif isinstance(message, EndError):
                replay.handle(message)
            elif isinstance(message, TornDown):
                ended = message.ended
                if ended.gpu_memory or not isinstance(ended.ending, Finished):
                    self._report_end(replay, ended)
        self.watch.over()

    def _stop(self, replay: Replay) -> None:
        """After a Ctrl-C at ``-n0``: end the running test and tear down, within the grace."""
        self._stopping.set()
        try:
            for message in self.messages.filter(self._keeper.stop(self._settings.grace)):
                replay.handle(message)
        finally:
            self._keeper.close()  # the second Ctrl-C comes here at once
        if replay.interrupted is not None:
            raise_again(replay.interrupted)
