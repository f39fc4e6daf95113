"""How many workers there are."""

from __future__ import annotations

import pytest

# With these, pytest shows something and runs no test.
_SHOWING = ("collectonly", "showfixtures", "show_fixtures_per_test", "markers", "cacheshow", "help")


def choose_workers(config: pytest.Config, workers: int | str | None) -> None:
    """Give xdist the number of workers, before it reads its options.

    :param workers: what ``--fkit-workers`` says.
    :raises pytest.UsageError: if ``-n`` says something else.
    """
    given = config.option.numprocesses
    if given is not None and workers is not None and given != workers:
        raise pytest.UsageError(
            f"pytest-fkit: -n {given} and --fkit-workers={workers} contradict each other; "
            "they mean the same, give one of them"
        )
    if given is not None or any(config.getoption(name, False) for name in _SHOWING):
        return
    if workers is not None:
        config.option.numprocesses = workers
    elif not config.getoption("tx", None):
        config.option.numprocesses = 1
