"""Every option, parsed and checked once, immutable afterwards."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, TypeVar

import pytest

from .inherited import variable
from .options import ISOLATION_SCOPES, START_METHODS
from .own import own_builtins
from .private_api import ini_value

own_builtins(globals())

ALONE = "main"
"""What stands for the name of a worker where there are none."""

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """What the user asked for.

    :param workers: a number, "auto", or None where ``--fkit-workers`` was not given.
    :param isolation: how long one process lives, one of ISOLATION_SCOPES.
    :param start_method: how test processes come to be, one of START_METHODS.
    :param timeout: seconds for one test, 0 for no limit.
    :param memory_limit: bytes that one test may take, 0 for no limit.
    :param others_timeout: what pytest-timeout's option, variable or ini value says, or None; ours
        to enforce where that plugin is absent, its own first where it is active.
    :param journal: where the journal is written, or None.
    :param trace: where the trace is written, or None.
    :param resume: the journal of a run that is to be gone on with, or None.
    :param top: how many tests the lists of the most expensive ones name, 0 for no lists.
    :param widen: whether a test that skips itself because it saw too few GPUs is run with more.
    :param grace: seconds for running tests and wide fixtures to end after an interrupt.
    :param worker_timeout: seconds after which a worker that gives no sign of life is killed.
    :param probe: whether the GPUs of a worker are tried out.
    :param isolation_asked: whether option or ini value say how long a process lives.
    :param max_retries: attempts that a test gets elsewhere after GPU errors.
    :param retire_after: GPU errors in a row after which a worker gets no more tests, 0 for never.
    :param fail_on_retry: whether a test that passes after a GPU error fails nevertheless.
    :param gpu_memory_timeout: seconds for which memory of GPUs is waited for, 0 for not at all.
    :param warmup: whether the next test's process opens its GPUs while a test runs.
    """

    workers: int | str | None
    isolation: str
    start_method: str
    timeout: float
    memory_limit: int
    grace: float
    others_timeout: float | None
    isolation_asked: bool = False
    journal: Path | None = None
    trace: Path | None = None
    resume: Path | None = None
    top: int = 0
    probe: bool = True
    worker_timeout: float = 60.0
    max_retries: int = 1
    retire_after: int = 3
    fail_on_retry: bool = False
    widen: bool = False
    warmup: bool = False
    gpu_memory_timeout: float = 60.0

    @property
    def records(self) -> bool:
        """Whether somebody wants to know of each test what a journal says."""
        return self.journal is not None or self.trace is not None or self.top > 0


SHORTEST_START_LIMIT = 60.0
"""Seconds that the import of a module may always take, however quick its tests have to be."""


def start_limit(timeout: float) -> float:
    """Seconds for the import of one module, where a test may take `timeout`; 0 for no limit."""
    return max(timeout, SHORTEST_START_LIMIT) if timeout else 0.0


KEY: pytest.StashKey[Settings] = pytest.StashKey()
"""Where the settings of a process are, in ``config.stash``."""

STARTUP_PATH: pytest.StashKey[list[str]] = pytest.StashKey()
"""``sys.path`` before options and conftest files add to it."""


def parse(config: pytest.Config) -> Settings:
    """The settings.

    :raises pytest.UsageError: naming the option and what it takes.
    """
    resume, trace = _path(config, "resume"), _path(config, "trace")
    journal = _journal(config, resume)
    if trace is not None and trace == journal:
        raise pytest.UsageError(f"pytest-fkit: journal and trace can't be one file, {trace}")
    return Settings(
        workers=parse_workers(config.getoption("fkit_workers")),
        isolation=_value(config, "isolation", parse_isolation, _natural_isolation(config)),
        start_method=_value(config, "start_method", parse_start_method, "auto"),
        timeout=_value(config, "timeout", parse_seconds, 600.0),
        memory_limit=_value(config, "memory_limit", parse_size, 0),
        grace=_value(config, "grace", parse_wait, 30.0),
        others_timeout=_others_timeout(config),
        isolation_asked=_value(config, "isolation", parse_isolation, None) is not None,
        journal=journal,
        trace=trace,
        resume=resume,
        top=_value(config, "top", parse_count, 0),
        probe=_value(config, "probe", parse_switch, True),
        worker_timeout=_value(config, "worker_timeout", parse_seconds, 60.0),
        max_retries=_value(config, "max_retries", parse_count, 1),
        retire_after=_value(config, "retire_after", parse_count, 3),
        fail_on_retry=_flag(config, "fail_on_retry"),
        widen=_flag(config, "widen"),
        warmup=_flag(config, "warmup"),
        gpu_memory_timeout=_value(config, "gpu_memory_timeout", parse_wait, 60.0),
    )


def _natural_isolation(config: pytest.Config) -> str:
    """Session, where a plugin changes files by what it saw of all tests in one process.

    With workers inline-snapshot changes nothing.
    """
    wanted = str(config.getoption("inline_snapshot", None) or "").split(",")
    alone = not config.getoption("numprocesses", None)
    changes = alone and _CHANGING_SNAPSHOTS.intersection(wanted)
    return "session" if changes else "function"


_CHANGING_SNAPSHOTS = frozenset({"create", "fix", "review", "trim", "update"})


def measures_usage(config: pytest.Config) -> bool:
    """Whether somebody will read what each test used of the machine."""
    return asks_for_records(config, config.option)


def asks_for_records(config: pytest.Config, options: argparse.Namespace) -> bool:
    """Whether journal, trace, lists of tests or a run to go on with are asked for.

    :param options: ``config.option``, or what is known of it while pytest starts.
    """
    return options.fkit_resume is not None or any(
        getattr(options, name) is not None or ini_value(config, name) not in (None, "")
        for name in ("fkit_journal", "fkit_trace", "fkit_top")
    )


def _path(config: pytest.Config, name: str) -> Path | None:
    """A file that is named relative to the current directory, in ini files to the root."""
    given = config.getoption(f"fkit_{name}")
    if given is not None:
        base = Path(str(config.invocation_params.dir))
        return base / Path(given).expanduser() if given else None
    text = None if name == "resume" else _value(config, name, parse_path, None)
    return None if text is None else config.rootpath / Path(text).expanduser()


def _flag(config: pytest.Config, name: str) -> bool:
    # An option that is there says on, and so does one that a plugin sets.
    return bool(config.getoption(f"fkit_{name}") or _ini(config, name, parse_switch, False))


def _journal(config: pytest.Config, resume: Path | None) -> Path | None:
    journal = _path(config, "journal")
    if resume is None or config.getoption("fkit_journal") is None:
        return resume or journal
    if journal != resume:
        raise pytest.UsageError(
            f"pytest-fkit: --fkit-resume={config.getoption('fkit_resume')} goes on writing that "
            "journal; leave --fkit-journal away, or give it the same path"
        )
    return journal


def _others_timeout(config: pytest.Config) -> float | None:
    ours = config.getoption("fkit_timeout") is not None
    if ours and not config.pluginmanager.hasplugin("timeout"):
        return None
    for source, text in (
        ("--timeout", config.getoption("timeout", None)),
        ("PYTEST_TIMEOUT", variable("PYTEST_TIMEOUT")),
        ("ini value timeout", _timeout_ini(config)),
    ):
        if text not in (None, ""):
            return _checked(source, text, parse_seconds)
    return None


def _timeout_ini(config: pytest.Config) -> Any:
    try:
        return ini_value(config, "timeout")
    except ValueError:  # pytest-timeout is installed, but was not loaded
        return None


def _value(config: pytest.Config, name: str, parse_text: Callable[[Any], T], default: Any) -> Any:
    text = config.getoption(f"fkit_{name}")
    if text is not None:
        return _checked(f"--fkit-{name.replace('_', '-')}", text, parse_text)
    return _ini(config, name, parse_text, default)


def _ini(config: pytest.Config, name: str, parse_text: Callable[[Any], T], default: T) -> T:
    value = ini_value(config, f"fkit_{name}")
    if value is None or value == "":  # 0 and false are said
        return default
    return _checked(f"ini value fkit_{name}", value, parse_text)


def _checked(source: str, text: Any, parse_text: Callable[[Any], T]) -> T:
    try:
        return parse_text(text)
    except ValueError as error:
        raise pytest.UsageError(f"pytest-fkit: {source}={text}: {error}") from None


def parse_workers(text: str | None) -> int | str | None:
    """What ``--fkit-workers`` says.

    :raises pytest.UsageError: saying what is expected.
    """
    if text is None or text == "auto":
        return text
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise pytest.UsageError(
            f"pytest-fkit: --fkit-workers={text}: expected a number from 1 on, or auto; "
            "-n0 runs without workers"
        )
    return number


def parse_isolation(text: object) -> str:
    """An isolation scope.

    :raises ValueError: saying what is expected.
    """
    if text not in ISOLATION_SCOPES:
        raise ValueError(f"expected one of {', '.join(ISOLATION_SCOPES)}")
    return str(text)


def parse_start_method(text: object) -> str:
    """A start method.

    :raises ValueError: saying what is expected.
    """
    if text not in START_METHODS:
        raise ValueError(f"expected one of {', '.join(START_METHODS)}")
    return str(text)


# Of ini files, as pytest understands them.
_ON = ("on", "true", "yes", "1", "t", "y")
_OFF = ("off", "false", "no", "0", "f", "n")


def parse_switch(value: object) -> bool:
    """Whether something is on, from a boolean or its text.

    :raises ValueError: saying what is expected.
    """
    text = str(value).strip().lower()
    if text not in _ON + _OFF:
        raise ValueError("expected on or off")
    return text in _ON


def parse_path(value: object) -> str:
    """The text of a path.

    :raises ValueError: saying what is expected.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError("expected a path")
    return str(value)


def parse_lines(value: object) -> list[str]:
    """Lines that are not empty, from a list of them or a text.

    :raises ValueError: saying what is expected.
    """
    lines = value.splitlines() if isinstance(value, str) else value
    if not isinstance(lines, (list, tuple)) or not all(isinstance(each, str) for each in lines):
        raise ValueError("expected a list of texts")
    return [each.strip() for each in lines if each.strip()]


def parse_seconds(value: object, zero: str = "no limit") -> float:
    """Seconds, from a number or its text.

    :param zero: what 0 means.
    :raises ValueError: saying what is expected.
    """
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = -1.0
    if isinstance(value, bool) or not 0 <= seconds < float("inf"):
        raise ValueError(f"expected seconds, a number from 0 ({zero}) on")
    return seconds


def parse_wait(value: object) -> float:
    """Seconds for which something is waited for.

    :raises ValueError: saying what is expected.
    """
    return parse_seconds(value, "not at all")


def parse_count(value: object) -> int:
    """A number of things.

    :raises ValueError: saying what is expected.
    """
    if not re.fullmatch(r"\d{1,9}", str(value)):
        raise ValueError("expected a number from 0 on")
    return int(str(value))


def parse_size(value: object) -> int:
    """Bytes, from a number or a text as 500M, 1.5G, 64KiB; units are powers of 1024.

    :raises ValueError: saying what is expected.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", str(value).strip().lower())
    if match is None or isinstance(value, bool):
        raise ValueError("expected a size as 500M or 2G, 0 for no limit")
    return int(float(match[1]) * 1024 ** ("kmgt".find(match[2]) + 1 if match[2] else 0))


def parse_gpu_memory(value: object) -> int:
    """Bytes of memory of a GPU.

    :raises ValueError: saying what is expected.
    """
    try:
        return parse_size(value)
    except ValueError:
        raise ValueError("expected a size as 500M or 40G, 0 for none") from None
