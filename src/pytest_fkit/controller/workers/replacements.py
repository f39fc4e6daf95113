"""Whether a worker that died is replaced, and what follows if it is not."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from ...compat import xdist_controller
from ...own import own_builtins

own_builtins(globals())

_IN_A_ROW = 4
"""Deaths in one place without a test that ended in between, after which it is given up."""


class Replacements:
    """Counts deaths.

    A death that can be blamed on a test has cost one, so they come to an end by themselves; it is
    a worker that dies for other reasons, again and again, that has to be given up.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._deaths = 0
        self._granted = False
        self._in_a_row: Counter[int] = Counter()

    def handle(self, node: Any, error: object) -> None:
        """What DSession.worker_errordown does, but for the limit."""
        config = self._config
        config.hook.pytest_testnodedown(node=node, error=error)
        session = xdist_controller.dist_session(config)
        try:
            blamed = session.sched.remove_node(node)
        except KeyError:
            blamed = None
        if blamed:
            xdist_controller.report_crash(config, blamed, node)
        active = xdist_controller.active_nodes(config)
        if not session.shouldstop:
            reason = self._count(node, bool(blamed))
            if reason:
                xdist_controller.give_up_restarts(config, reason)
                xdist_controller.report_line(config, f"\n{reason}")
                session.sched.expect_fewer()
            elif not session.sched.tests_finished:
                xdist_controller.report_line(
                    config, f"\nreplacing crashed worker {node.gateway.id}"
                )
                xdist_controller.replace_worker(config, node)
        active.discard(node)
        if active:
            session.sched.act()
        else:
            xdist_controller.end_run(config)

    def grant(self) -> None:
        """The death that is being handled does not count."""
        self._granted = True

    def ended_a_test(self, node: Any) -> None:
        """The worker works."""
        del self._in_a_row[id(node.gateway.spec)]

    def _count(self, node: Any, blamed: bool) -> str:
        """Why the worker is not replaced, "" if it is."""
        granted, self._granted = self._granted, False
        if granted:
            return ""
        self._deaths += 1
        limit = xdist_controller.restart_limit(self._config)
        if limit == 0:
            return f"worker {node.gateway.id} crashed and worker restarting disabled"
        if limit is not None and self._deaths > limit:
            return f"maximum crashed workers reached: {limit}"
        place = id(node.gateway.spec)
        self._in_a_row[place] = 0 if blamed else self._in_a_row[place] + 1
        if self._in_a_row[place] >= _IN_A_ROW:
            return f"worker {node.gateway.id} is not replaced: it died {_IN_A_ROW} times in a row"
        return ""
