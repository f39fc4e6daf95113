"""How tests run by the options: with how many workers, none, a debugger, or not at all."""

from __future__ import annotations

import argparse
import os

import pytest

CAN_FORK = hasattr(os, "fork")
"""Whether this is not Windows, where Controller.prepare ends the run before any test."""

# With these, pytest shows something and runs no test.
_SHOWING = ("collectonly", "showfixtures", "show_fixtures_per_test", "markers", "cacheshow", "help")


def choose_workers(options: argparse.Namespace, workers: int | str | None) -> None:
    """Give xdist the number of workers, before it reads its options.

    :param workers: what ``--fkit-workers`` says.
    :raises pytest.UsageError: if ``-n`` says something else.
    """
    given = options.numprocesses
    if given is not None and workers is not None and given != workers:
        raise pytest.UsageError(
            f"pytest-fkit: -n {given} and --fkit-workers={workers} contradict each other; "
            "they mean the same, give one of them"
        )
    if given is not None or any(getattr(options, name, False) for name in _SHOWING):
        return
    if workers is not None:
        options.numprocesses = workers
    elif not getattr(options, "tx", None):
        options.numprocesses = 1


def start_none(options: argparse.Namespace) -> None:
    options.numprocesses, options.tx, options.dist = 0, [], "no"


def shows_only(options: argparse.Namespace) -> bool:
    return any(getattr(options, name, False) for name in _SHOWING if name != "collectonly")


def run_alone(options: argparse.Namespace) -> bool:
    """Whether the pytest process itself takes a worker's place.

    :param options: the command line's; in a worker those of its controller, which never mean this.
    """
    if not hasattr(options, "numprocesses"):
        return True  # without xdist
    if options.numprocesses is None:
        return bool(options.tx) and options.dist == "no" and not options.distload
    return bool(options.numprocesses == 0)


def debugger(options: argparse.Namespace) -> str | None:
    """The option by which the user asks for the debugger, if any."""
    for option, name in (("usepdb", "--pdb"), ("trace", "--trace")):
        if getattr(options, option, False):
            return name
    return None
