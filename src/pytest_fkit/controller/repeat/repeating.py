"""Collects the repetitions of each test, and has plugins hear of one verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Iterator, Sequence

import pytest

from ...compat import xdist_controller
from ...config.settings import SETTINGS
from ...journal.history import argument
from ...journal.rates import SHARED_BY_FORKED, RepeatResult, again, details, how_first, words
from ...own import own_builtins, time
from ...protocol.border import (
    ItemAttempt,
    ItemBegins,
    ItemComplete,
    ItemFinished,
    ItemStarted,
    RepeatedItem,
    Reported,
    Told,
)
from ...protocol.endings import count
from ...protocol.event_file import add_facts
from ...protocol.repetitions import repeated, repetition_of, seed_of, test_of
from ..schedule.machines import gpu_ids, with_gpus
from .decisions import Enough, decide, needs_more, rounds
from .tally import RepeatTally, Repetition

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

    from ..reports.report_attributes import DeathText
    from ..reports.services import RunServices
    from .repeated_tests import RepeatedTests

own_builtins(globals())

_NAMED = 10
"""Tests that the summary names though none of their repetitions failed."""


class Repeating:
    """Plugin of a controller with workers."""

    def __init__(self, config: pytest.Config, maxfail: int, services: RunServices) -> None:
        settings = config.stash[SETTINGS]
        assert settings.repeat is not None
        assert settings.repeat_seed is not None
        self._config = config
        self._repeat, self._maxfail = settings.repeat, maxfail
        self._seed = settings.repeat_seed
        self._recorder = services.recorder
        self._show = services.show
        self._complete_report = services.accounting.complete_report
        self._open: dict[WorkerController, list[Told]] = {}
        self._tests: list[RepeatTally] = []
        self._rounds: Iterator[range] = iter(())
        self._last_round = self._failing = 0
        self._begun = 0.0
        self._enough: Enough | None = None
        self._session: pytest.Session | None = None
        self.results: list[tuple[str, RepeatResult]] = []
        """Tests that have their verdicts, by node id."""
        self._run: RepeatedTests | None = None
        self.tell: Callable[[WorkerController, Sequence[Told]], None] = lambda *_: None
        """Has plugins hear of a verdict."""
        self.text_of_death: Callable[[WorkerController, str], DeathText]
        """The text on a test that died with its worker."""
        self.is_known: Callable[[pytest.TestReport], bool] = lambda _: False
        """Whether a failure is quarantined, so that it does not count."""

    @pytest.hookimpl
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._session = session

    # --- the beginning ---

    def start(self, run: RepeatedTests, nodeids: Sequence[str], once: dict[int, str]) -> None:
        """The distribution begins.

        :param nodeids: of tests, by their numbers.
        :param once: why tests are not repeated, by number.
        """
        self._run = run
        self._begun = time.monotonic()
        wanted = self._repeat.times or 0
        self._tests = [
            RepeatTally(nodeid, wanted, once.get(number, ""))
            for number, nodeid in enumerate(nodeids)
        ]
        self._rounds = rounds(self._repeat, len(nodeids), run.workers)
        self._add_round()

    def _add_round(self) -> bool:
        """Have another round run; whether there is one."""
        assert self._run is not None
        found = next(self._rounds, range(0))
        numbers = [
            repeated(test, repetition)
            for test, tally in enumerate(self._tests)
            for repetition in found
            if not (tally.once and repetition)
        ]
        self._last_round = len(numbers)
        self._run.add(numbers)
        return bool(numbers)

    # --- what workers say ---

    def hear(self, node: WorkerController, told: Sequence[Told]) -> None:
        assert self._run is not None
        concluded: list[RepeatTally] = []
        for each in told:
            if isinstance(each, ItemBegins):
                self._open[node] = []
                self._run.dispatch.begins(node, each.position)
            elif isinstance(each, ItemComplete):
                self._run.dispatch.mark_test_complete(node, each.position, each.seconds)
                concluded += self._over(node, self._open.pop(node, []), each)
            else:
                self._open.setdefault(node, []).append(each)
                if isinstance(each, ItemStarted) and self._recorder is not None:
                    self._recorder.begin(node.gateway.id, *each)
        if self._recorder is not None:
            self._recorder.commit()
        # Not before all is heard: a handler may have the next messages heard.
        self._conclude(concluded)

    def lost(self, node: WorkerController, position: int | None) -> None:
        """A worker is gone.

        :param position: of the test that it was running.
        """
        assert self._run is not None
        said = self._open.pop(node, [])
        if position is None:
            return
        tally = self._tests[test_of(self._run.number(node, position))]
        told = [Reported(position, each) for each in self._reports_of_death(node, tally.nodeid)]
        started = any(isinstance(each, ItemStarted) for each in said)
        begun: list[Told] = [] if started else [ItemStarted(tally.nodeid, told[0].report.location)]
        finished = ItemFinished(tally.nodeid, told[0].report.location)
        self._conclude(
            self._over(node, [*begun, *said, *told, finished], ItemComplete(position, 0.0))
        )

    def _reports_of_death(self, node: WorkerController, nodeid: str) -> list[pytest.TestReport]:
        path, _, name = nodeid.partition("::")
        location = (path, None, name.replace("::", "."))
        text = self.text_of_death(node, nodeid)
        made = [
            pytest.TestReport(nodeid, location, {}, "failed", text, "call"),
            pytest.TestReport(nodeid, location, {}, "passed", None, "teardown"),
        ]
        add_facts(vars(made[0]), death=text.message, worker=node.gateway.id)
        for report in made:
            self._complete_report(report)
        return made

    def _over(
        self, node: WorkerController, said: Sequence[Told], complete: ItemComplete
    ) -> list[RepeatTally]:
        """A repetition has ended; the tests that have their verdicts now."""
        assert self._run is not None
        number = self._run.number(node, complete.position)
        nth = repetition_of(number)
        tally = self._tests[test_of(number)] if test_of(number) < len(self._tests) else None
        made = Repetition(nth, seed_of(self._seed, nth), node, said, complete)
        if tally is None or tally.is_told or not made.ended:
            return []
        failed, counted = tally.failed, tally.counts
        known = all(self.is_known(report) for report in made.reports if report.failed)
        outcome = tally.add(made, known)
        self._record(tally, made, outcome)
        if tally.failed and not failed:
            self._show_first(tally, made)
        self._failing += tally.counts and not counted
        return self._decided(tally)

    def _show_first(self, tally: RepeatTally, made: Repetition) -> None:
        if tally.once:
            return
        place = with_gpus(made.node.gateway.id, gpu_ids(made.node))
        self._show(
            f"fkit: {tally.nodeid} failed on {place} in repetition {made.number + 1}, "
            f"with seed {made.seed}"
        )

    def _decided(self, tally: RepeatTally) -> list[RepeatTally]:
        """The tests that have their verdicts, after a repetition of this one."""
        assert self._run is not None
        seconds = time.monotonic() - self._begun
        found = decide(self._repeat, self._maxfail, seconds, self._failing)
        if found is not None and found.at_once:
            self._enough = found
            return [each for each in self._tests if each.times]
        if found is not None and self._enough is None:
            self._enough = found
            self._rounds = iter(())
            self._run.schedule.want_only(lambda number: not repetition_of(number))
        unfinished, workers = self._run.schedule.unfinished, self._run.workers
        if self._enough is None and needs_more(unfinished, self._last_round, workers):
            self._add_round()
        return [tally] if tally.is_complete else []

    def _record(self, tally: RepeatTally, made: Repetition, outcome: str) -> None:
        if self._recorder is None:
            return
        attempts = [each for each in made.said if isinstance(each, ItemAttempt)]
        self._recorder.repetition(
            made.node.gateway.id, tally.nodeid, made.reports, attempts[-1] if attempts else None,
            {"number": made.number, "seed": made.seed, "fresh": made.fresh, "outcome": outcome},
        )  # fmt: skip

    # --- verdicts ---

    def _conclude(self, tests: Sequence[RepeatTally]) -> None:
        """Have plugins hear the verdicts: those last that end the run."""
        for tally in sorted(tests, key=lambda each: bool(each.failed)):
            if not tally.is_told:
                tally.is_told = True
                reason = "the run was stopped" if self._enough is None else self._enough.reason
                result = tally.result(reason)
                self.results.append((tally.nodeid, result))
                self.tell(tally.stands.node, _told(tally, result, self._argument(tally.nodeid)))
        enough = self._enough
        if tests and enough is not None and enough.at_once and self._session is not None:
            reason = f"stopping after {self._failing} failures"  # as pytest says it
            self._session.shouldfail = reason
            xdist_controller.stop_run(self._config, reason)

    def conclude_all(self) -> None:
        self._conclude([tally for tally in self._tests if tally.times])

    # --- what is shown ---

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.results:
            return
        terminalreporter.section("pytest-fkit: repeated")
        for line, markup in self._lines():
            terminalreporter.line(line, **markup)

    def _lines(self) -> Iterator[tuple[str, dict[str, bool]]]:
        order = {tally.nodeid: number for number, tally in enumerate(self._tests)}
        results = sorted(self.results, key=lambda each: order[each[0]])
        failed = [each for each in results if each[1].failed]
        others = [each for each in results if each[1].ran and not each[1].failed]
        for nodeid, result in failed:
            yield f"{nodeid}  {words(result)}", {"red": True}
            yield from ((f"  {line}", {}) for line in _about(self._argument(nodeid), result))
        for nodeid, result in others[:_NAMED]:
            yield f"{nodeid}  {words(result)}", {}
            yield from ((f"  {line}", {}) for line in details(result))
        if others[_NAMED:]:
            fewest = min(result.ran for _, result in others[_NAMED:])
            number = count(len(others) - _NAMED, "more test")
            yield f"{number} did not fail in at least {fewest} repetitions each", {}
        skipped = sum(not result.ran for _, result in results)
        if skipped:
            yield f"{count(skipped, 'test')} skipped in all repetitions", {}
        if any(result.forked > 1 for _, result in results):
            yield SHARED_BY_FORKED, {}
        yield "95 %: the exact interval of Clopper and Pearson, for independent repetitions", {}
        yield f"seed of the first repetitions: {self._seed}", {}

    def _argument(self, nodeid: str) -> str:
        """What selects a test on the command line: relative to the current directory."""
        config = self._config
        return argument(nodeid, str(config.rootpath), str(config.invocation_params.dir))


def _about(argument: str, result: RepeatResult) -> list[str]:
    """What there is to say of a test that failed.

    :param argument: which selects it on the command line.
    """
    if result.once:
        return []
    return [*details(result), how_first(result), f"again: {again(result, argument)}"]


def _told(tally: RepeatTally, result: RepeatResult, argument: str) -> list[Told]:
    """What plugins hear of a test: what was said of one repetition, as of the test."""
    stands = tally.stands
    position = test_of(stands.complete.position)
    told: list[Told] = [ItemBegins(position)]
    text = "".join(f"{line}\n" for line in (words(result), *_about(argument, result)))
    for each in stands.said:
        if isinstance(each, Reported):
            _add(each.report, result, text, position)
            told.append(Reported(position, each.report))
        elif not isinstance(each, ItemAttempt):
            told.append(each)
    return [*told, RepeatedItem(tally.nodeid, result), stands.complete._replace(position=position)]


def _add(report: Any, result: RepeatResult, text: str, position: int) -> None:
    add_facts(vars(report), repeated=tuple(result))
    if hasattr(report, "item_index"):
        report.item_index = position
    if report.failed and not result.once:
        report.sections.append(("repetitions", text))
