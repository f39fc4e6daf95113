"""The hooks of the process that the user starts: the controller, or pytest itself at ``-n0``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ..compat import pytest_output
from ..compat.guarded_hooks import GuardedHooks
from ..compat.versions import installed, warning
from ..config import others_options
from ..config.deadline import Deadline
from ..config.first_environment import variable
from ..config.folders import check_folders
from ..config.numprocesses import CAN_FORK, choose_workers, debugger, shows_only, start_none
from ..config.settings import SETTINGS, Settings, said, settings_of
from ..gpu.errors.patterns import user_patterns
from ..own import os, own_builtins
from .reports.accounting import Accounting
from .reports.causes_shown import CausesShown
from .reports.footer import Footer
from .reports.reporting import FailOnFlaky, Reporting, header
from .reports.running import RunningTests
from .reports.services import RunServices
from .schedule.machines import seats_of_run, workers_by_machine
from .workers import gpus

if TYPE_CHECKING:
    from ..journal.recorder import Recorder
    from .repeat.repeating import Repeating
    from .reports.quarantined import QuarantinedTests
    from .reports.resume import Resuming
    from .reports.step_summary import StepSummary
    from .workers.elsewhere import Elsewhere

own_builtins(globals())


class Controller:
    """The hooks of plugin.py, for this process."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        untried = warning(installed())
        self._notices = [f"fkit: {untried}"] if untried else []
        self._maxfail = 0
        self._page: StepSummary | None = None
        self._elsewhere: Elsewhere | None = None
        self._interruption: KeyboardInterrupt | None = None

    def prepare(self) -> None:
        """Check the options, choose the number of workers, reach machines and find the GPUs.

        :raises pytest.UsageError: naming what the user said and what it takes.
        """
        try:
            self._prepare()
        except KeyboardInterrupt as error:
            # pytest shows a traceback of what comes before the session; see begin().
            self._interruption = error
            start_none(self._config.option)

    def _prepare(self) -> None:
        config = self._config
        parsed = settings_of(config)
        without_effect = others_options.notice(config.option)
        if without_effect:
            self._notices.append(f"fkit: {without_effect}")
        # Checked here: a worker could not raise a usage error.
        user_patterns(config)
        check_folders(config, parsed)
        if not CAN_FORK:
            raise pytest.UsageError(
                "pytest-fkit: --fkit needs os.fork(), which this platform lacks; run without --fkit"
            )
        name = debugger(config.option)
        if name:
            self._notices.append(f"fkit: isolation is off, because of {name}")
            if parsed.repeat is not None:
                raise pytest.UsageError(
                    f"pytest-fkit: --fkit-repeat={parsed.repeat}: {name} is given: a debugger runs "
                    "each test here, once; leave one of them out"
                )
            config.option.fkit = False
            return
        workers = parsed.workers
        if self._reaches_machines(workers):
            workers = None
        elif config.pluginmanager.hasplugin("xdist"):
            choose_workers(config.option, workers)
        else:
            self._notices.append(
                "fkit: pytest-xdist is disabled, so there are no workers, as with -n0"
            )
        if parsed.repeat is not None and not config.option.collectonly:
            self._prepare_to_repeat(parsed)
        gpus.prepare(config, workers)

    def _reaches_machines(self, workers: int | str | None) -> bool:
        if said(self._config, "fkit_machines") is None:
            return False
        from .workers import elsewhere

        self._elsewhere = elsewhere.prepare(self._config, workers)
        if self._elsewhere is None:
            return False
        self._notices += self._elsewhere.notices
        return True

    def _prepare_to_repeat(self, parsed: Settings) -> None:
        """Choose the seed, and have nobody else count failures."""
        from .repeat.conditions import check_repeat

        option = self._config.option
        check_repeat(self._config, parsed)
        self._maxfail, option.maxfail = option.maxfail, 0
        if parsed.repeat_seed is None:
            option.fkit_repeat_seed = str(int.from_bytes(os.urandom(4), "big"))

    def configure(self) -> RunServices | None:
        """Register the plugins.

        :return: None but where this process runs the tests itself.
        :raises pytest.UsageError: as :meth:`prepare`.
        """
        config = self._config
        if self._interruption is not None:
            return None
        gpus.distribute_gpus(config)
        if config.option.collectonly:
            return None
        plugins = config.pluginmanager
        quarantined = self._quarantined(config.stash[SETTINGS])
        reporting = Reporting(config)
        plugins.register(reporting, "fkit-reporting")
        plugins.register(CausesShown(), "fkit-causes")
        plugins.register(GuardedHooks(config), "fkit-guarded")
        page = variable("GITHUB_STEP_SUMMARY")
        if page:
            from .reports.step_summary import StepSummary

            self._page = StepSummary(page, reporting.happened)
            plugins.register(self._page, "fkit-step-summary")
            if quarantined is not None:
                self._page.quarantined = quarantined.rows
        recorder, resuming = self._record(config.stash[SETTINGS])
        accounting = Accounting(config, recorder)
        plugins.register(accounting, "fkit-accounting")
        devices = gpus.nvidia_devices(config)
        if devices:
            from .reports.gpu_watchers import XidReaders

            plugins.register(XidReaders(config, recorder, devices), "fkit-xids")
        running = RunningTests(config, self._terminal_line, recorder)
        plugins.register(running, "fkit-running")
        deadline = self._deadline(accounting, recorder)
        services = RunServices(
            recorder, resuming, accounting, self._terminal_line, running, deadline,
            None if quarantined is None else quarantined.check,
        )  # fmt: skip
        if config.getoption("tx", None) and config.getoption("dist", "no") != "no":
            self._lead_workers(reporting, services, quarantined)
            return None
        return services

    def _quarantined(self, parsed: Settings) -> QuarantinedTests | None:
        if parsed.quarantine is None:
            return None
        from .reports.quarantined import QuarantinedTests, entries_of

        found = QuarantinedTests(self._config, entries_of(parsed.quarantine))
        self._config.pluginmanager.register(found, "fkit-quarantined")
        return found

    def _record(self, parsed: Settings) -> tuple[Recorder | None, Resuming | None]:
        if not parsed.records or shows_only(self._config.option):
            return None, None
        # A third of a controller, for a journal, a trace or a list that most runs don't want.
        from .reports.recording import record

        return record(
            self._config,
            parsed,
            gpus.of_run(self._config),
            lambda line: self._notices.append(f"fkit: {line}"),
        )

    def _deadline(self, accounting: Accounting, recorder: Recorder | None) -> Deadline | None:
        seconds = self._config.stash[SETTINGS].session_timeout
        if not seconds:
            return None
        from .reports.unfinished import Unfinished

        deadline = Deadline(seconds)
        unfinished = Unfinished(self._config, deadline, accounting, recorder)
        self._config.pluginmanager.register(unfinished, "fkit-unfinished")
        return deadline

    def _lead_workers(
        self, reporting: Reporting, services: RunServices, quarantined: QuarantinedTests | None
    ) -> None:
        """Register the plugins of a controller that has workers; -n0 does not import them."""
        from .workers.gateways import Gateways
        from .workers.nodes import Nodes

        config, plugins = self._config, self._config.pluginmanager
        found = config.stash.get(gpus.GPUS, None)
        # None where there are not going to be workers.
        gateways = (
            None if found is None else Gateways(config, found, services.show, self._elsewhere)
        )
        footer = Footer(config, len(seats_of_run(config)))
        repeating = self._repeating(services, reporting)
        nodes = Nodes(config, services, gateways, footer, repeating)
        if repeating is not None and quarantined is not None:
            repeating.is_known = quarantined.is_known
        plugins.register(nodes, "fkit-nodes")
        plugins.register(footer, "fkit-footer")
        reporting.happened.retired = nodes.rerouting.retired
        reporting.happened.kept = nodes.rerouting.kept
        reporting.why_killed = nodes.why_killed
        if gateways is not None:
            plugins.register(gateways, "fkit-gateways")
        if config.getoption("fail_on_flaky", False):
            plugins.register(FailOnFlaky(), "fkit-flaky")

    def _repeating(self, services: RunServices, reporting: Reporting) -> Repeating | None:
        config = self._config
        if config.stash[SETTINGS].repeat is None:
            return None
        from .repeat.repeating import Repeating

        found = Repeating(config, self._maxfail, services)
        found.text_of_death = reporting.text_of_death
        config.pluginmanager.register(found, "fkit-repeating")
        if self._page is not None:
            self._page.repeated = found.results
        return found

    def header(self) -> list[str] | None:
        config = self._config
        parsed = config.stash.get(SETTINGS, None)
        if parsed is None:
            return self._notices or None
        lines, owners = gpus.header_lines(config)
        seats = seats_of_run(config)
        if self._elsewhere is not None:
            lines = [*lines, f"fkit: {workers_by_machine(seats)}"]
        return [*self._notices, *lines, header(len(seats), parsed, owners)]

    def begin(self) -> None:
        """Write what the user has to know, where there is no header.

        :raises KeyboardInterrupt: if there was one before the session.
        """
        if self._interruption is not None:
            raise self._interruption
        if self._config.getoption("verbose", 0) < 0 or self._config.getoption("no_header", False):
            for line in (*self._notices, *gpus.notices(self._config)):
                self._terminal_line(line)

    def _terminal_line(self, line: str) -> None:
        reporter: Any = self._config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            pytest_output.begin_terminal_line(reporter)
            # Apart: where the stream can't show a text, all of it is written with escapes.
            reporter.write(line)
            reporter.write("\n", flush=True)
