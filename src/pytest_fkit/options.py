"""What users can say: the options, ini values and markers, as pytest shows them.

All that is imported without ``--fkit`` is this, the hooks' specifications and the fixtures; what
the values mean is in settings.py, gpu/options.py and markers.py.
"""

from __future__ import annotations

import importlib.util
import os

import pytest

ISOLATION_SCOPES = ("function", "class", "module", "session")
START_METHODS = ("auto", "fork", "spawn")

_MARKERS = (
    (
        "fkit(isolation=None, timeout=None, memory_limit=None, gpus=None, serial=None, "
        "gpu_memory=None): how long "
        f"the test's process lives ({', '.join(ISOLATION_SCOPES)}), its time limit in seconds, its "
        "memory as in '2G', the number of GPUs it sees (0: runs anywhere), a name of which no two "
        "tests run at once, the memory that has to be free on its GPUs, as in '40G'"
    ),
    "fkit_skip: no process of its own; it shares one with the other fkit_skip tests",
    "fkit_single_gpu: the test sees one GPU",
    "fkit_multi_gpu(number=2): the test sees so many GPUs",
)
_TIMEOUT_MARKER = "timeout(seconds): time limit of the test, as pytest-timeout's"


def add_options(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the options and ini values."""
    group = parser.getgroup("fkit", "a process per test (pytest-fkit)")
    group.addoption(
        "--fkit",
        action="store_true",
        default=None,
        help="run every test in a process of its own; the last of --fkit and --no-fkit counts",
    )
    group.addoption(
        "--no-fkit",
        action="store_false",
        dest="fkit",
        help="run tests as without pytest-fkit; its other options do nothing",
    )
    group.addoption(
        "--fkit-workers",
        metavar="N|auto",
        help="number of xdist workers, the same as -n (default: 1)",
    )
    _add(
        parser, "isolation", "function|class|module|session",
        "how long one process lives (default: function)",
    )  # fmt: skip
    _add(
        parser, "start-method", "auto|fork|spawn",
        "how test processes come to be: auto forks unless that is unsafe (default: auto)",
    )  # fmt: skip
    _add(
        parser, "timeout", "SECONDS",
        "time limit of one test, setup to teardown; 0 for none (default: 600)",
    )  # fmt: skip
    _add(
        parser, "memory-limit", "SIZE",
        "memory that one test may take, as in 500M or 2G; 0 for no limit (default: 0)",
    )  # fmt: skip
    _add(
        parser, "grace", "SECONDS",
        "time for tests and wide fixtures to end after Ctrl-C or SIGTERM (default: 30)",
    )  # fmt: skip
    _add(
        parser, "journal", "PATH",
        "write what happens, as it happens, to this file: one JSON object per line",
    )  # fmt: skip
    _add(
        parser, "trace", "PATH",
        "write a timeline to this file, for ui.perfetto.dev",
    )  # fmt: skip
    _add(
        parser, "top", "N",
        "name the N tests that took most CPU time, and most memory (default: 0)",
    )  # fmt: skip
    _add(
        parser, "worker-timeout", "SECONDS",
        "kill a worker that gives no sign of life for so long, 0: never (default: 60)",
    )  # fmt: skip
    _add(
        parser, "probe", "on|off",
        "try a worker's GPUs out, before its first test and when they are in doubt (default: on)",
    )  # fmt: skip
    group.addoption(
        "--fkit-widen",
        action="store_true",
        default=None,
        help="run a test that skips itself because it sees too few GPUs again, with more",
    )
    parser.addini("fkit_widen", "as --fkit-widen, on or off")
    text = "open the GPUs in the process of the next test while a test runs"
    group.addoption("--fkit-warmup", action="store_true", help=text)
    parser.addini("fkit_warmup", f"{text}, on or off")
    group.addoption(
        "--fkit-resume",
        metavar="PATH",
        help="go on with the run whose journal this is: tests with a verdict are not run again",
    )
    _add(
        parser, "max-retries", "N",
        "attempts on other GPUs that a test gets after GPU errors (default: 1)",
    )  # fmt: skip
    _add(
        parser, "retire-after", "N",
        "GPU errors in a row after which a worker gets no more tests; 0 for never (default: 3)",
    )  # fmt: skip
    text = "fail tests that passed only after a GPU error and another attempt"
    group.addoption("--fkit-fail-on-retry", action="store_true", help=text)
    parser.addini("fkit_fail_on_retry", f"{text}, on or off")
    parser.addini(
        "fkit_gpu_errors",
        "more messages that are GPU errors, a regular expression or CATEGORY: REGEX a line",
        type="linelist",
        default=[],
    )
    _add_gpu_options(parser)
    if honours_timeout_options(pluginmanager):
        group.addoption("--timeout", metavar="SECONDS", help="as pytest-timeout's, for --fkit")
        parser.addini("timeout", "as pytest-timeout's, for --fkit")


def _add_gpu_options(parser: pytest.Parser) -> None:
    for name, metavar, text in (
        ("gpus", "auto|none|IDS", "GPUs to use, numbers or UUIDs as in 0,2 (default: auto)"),
        ("gpus-per-worker", "N", "GPUs that each worker owns (default: 2)"),
        ("cpu-workers", "N", "so many more workers, without GPUs, for fkit(gpus=0) (default: 0)"),
        ("amd-mask", "rocr|hip", "the variable by which AMD GPUs are distributed (default: rocr)"),
        ("gpus-timeout", "SECONDS", "time limit for finding GPUs (default: 10)"),
        ("gpu-memory-timeout", "SECONDS", "wait so long for memory of GPUs (default: 60)"),
    ):  # fmt: skip
        _add(parser, name, metavar, text)
    parser.addini(
        "fkit_env",
        "variables of workers, NAME=template with {worker}, {gpus}, {port}, {cpus}",
        type="linelist",
        default=[],
    )


def _add(parser: pytest.Parser, name: str, metavar: str, text: str) -> None:
    group = parser.getgroup("fkit")
    group.addoption(f"--fkit-{name}", metavar=metavar, help=text)
    parser.addini(f"fkit_{name.replace('-', '_')}", text)


def add_markers(config: pytest.Config) -> None:
    """Declare the markers."""
    for text in _MARKERS:
        config.addinivalue_line("markers", text)
    if honours_timeout_options(config.pluginmanager):
        config.addinivalue_line("markers", _TIMEOUT_MARKER)


def check_without_fkit(config: pytest.Config) -> None:
    """Where neither ``--fkit`` nor ``--no-fkit`` is given: let nobody believe in what does nothing.

    :raises pytest.UsageError: naming the options that need ``--fkit``.
    """
    ours = honours_timeout_options(config.pluginmanager)
    names = sorted(
        f"--{name.replace('_', '-')}"
        for name, value in vars(config.option).items()
        if (name.startswith("fkit_") or (ours and name == "timeout"))
        and value is not None
        and value is not False
    )
    if names:
        does = "does" if len(names) == 1 else "do"
        raise pytest.UsageError(
            f"pytest-fkit: {' and '.join(names)} {does} nothing without --fkit; add --fkit, or "
            "--no-fkit if tests are to run without it"
        )
    where = _timeout_elsewhere(config) if ours else None
    if where is None:
        return
    # Plain pytest would say that it knows no such ini value.
    text = (
        f"pytest-fkit: {where} limits no test: pytest-timeout is not active, and --fkit is not "
        "given; add it, or --no-fkit if tests are to run without a limit"
    )
    try:
        config.issue_config_time_warning(pytest.PytestConfigWarning(text), stacklevel=2)
    except pytest.PytestConfigWarning:  # a filter makes errors of them
        raise pytest.UsageError(text) from None


def _timeout_elsewhere(config: pytest.Config) -> str | None:
    """Where there is a time limit that pytest-timeout would honour, other than its option."""
    try:
        given = config.getini("timeout")
    except (TypeError, pytest.UsageError):  # a number, in pytest 9's native TOML
        return "ini value timeout"
    if given not in ("", "0"):
        return "ini value timeout"
    return "PYTEST_TIMEOUT" if os.environ.get("PYTEST_TIMEOUT") else None


def honours_timeout_options(pluginmanager: pytest.PytestPluginManager) -> bool:
    """Whether ``--timeout`` and the like are ours, since pytest-timeout is absent."""
    return importlib.util.find_spec("pytest_timeout") is None or pluginmanager.is_blocked("timeout")
