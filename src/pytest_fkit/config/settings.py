"""What users say, parsed and checked once, immutable afterwards."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Sequence

import pytest

from ..compat.pytest_hooks import is_loaded
from ..compat.pytest_session import ini_value
from ..named_tuple import NamedTuple
from ..own import own_builtins
from .first_environment import variable
from .options import BY_NAME, COMMAND_LINE, INI, LISTS
from .values import Repeat, parse

if TYPE_CHECKING:
    from .machine_option import Machines

own_builtins(globals())

ALONE = "main"
"""What stands for the name of a worker where there are none."""


class Settings(NamedTuple):
    """The values of options, of which the table says what they mean.

    :param mask: names of secrets, or regular expressions of them, see :func:`.values.parse_mask`.
    :param others_timeout: that of pytest-timeout's option, variable or ini value, or None; ours to
        enforce where that plugin is absent, else the plugin's first.
    :param isolation_asked: whether option or ini value say how long a process lives.
    """

    workers: int | str | None
    isolation: str
    start_method: str
    timeout: float
    memory_limit: int
    grace: float
    worker_timeout: float
    journal: Path | None
    trace: Path | None
    resume: Path | None
    html: Path | None
    mask: tuple[tuple[str, str], ...]
    top: int
    probe: bool
    max_retries: int
    retire_after: int
    fail_on_retry: bool
    widen: bool
    warmup: bool
    gpu_memory_timeout: float
    stacks: str
    cores: Path | None
    keep_cores: int
    wrapper: tuple[str, ...]
    artifacts: Path | None
    sanitizer_reports: str
    slow: float
    footer: str
    session_timeout: float
    versions: tuple[str, ...] = ()
    quarantine: Path | None = None
    network_retries: int = 0
    serial_patterns: tuple[str, ...] = ()
    repeat: Repeat | None = None
    repeat_seed: int | None = None
    others_timeout: float | None = None
    isolation_asked: bool = False

    @property
    def records(self) -> bool:
        """Whether somebody wants to know what a journal says of each test."""
        return self.journal is not None or self.trace is not None or self.top > 0


class GpuSettings(NamedTuple):
    """The values of options for GPUs, of which the table says what they mean.

    :param gpus: "auto", "none", or ids: numbers and UUIDs.
    :param gpus_per_worker: None if not said.
    :param threads_per_worker: a number, "auto", or None if not said.
    :param source: where `gpus` was said, as in "--fkit-gpus=0,1".
    """

    gpus: str | tuple[str, ...]
    gpus_per_worker: int | None
    cpu_workers: int
    amd_mask: str
    gpus_timeout: float
    env: tuple[tuple[str, str], ...]
    gpu_slots: int = 1
    threads_per_worker: int | str | None = None
    source: str = ""

    @property
    def templates(self) -> tuple[tuple[str, str], ...]:
        """Names and templates of all variables that are not about GPUs; of a name the last one."""
        threads = self.threads_per_worker
        if threads is None:
            return self.env
        text = "{cpus}" if threads == "auto" else str(threads)
        return (*((name, text) for name in THREADS), *self.env)


THREADS = (
    "OMP_NUM_THREADS",  # OpenMP, and so PyTorch, Arrow and scikit-learn
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",  # tokenizers, and other libraries in Rust
    "POLARS_MAX_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "FKIT_THREADS",  # the same for a suite's own use
)
"""The variables that libraries read when they are imported or begin to work."""


class MachineSettings(NamedTuple):
    """The values of options for other machines, of which the table says what they mean.

    :param machines: None for this machine only.
    """

    machines: Machines | None
    machines_python: tuple[str, ...]
    machines_timeout: float
    source: str = ""


SHORTEST_START_LIMIT = 60.0
"""Seconds that the import of a module may take, however short the limit of its tests."""


def start_limit(timeout: float) -> float:
    """Seconds for the import of a module, where a test may take `timeout`; 0 for no limit."""
    return max(timeout, SHORTEST_START_LIMIT) if timeout else 0.0


SETTINGS: pytest.StashKey[Settings] = pytest.StashKey()
"""Where the settings of a process are, in ``config.stash``."""

FOR_FRESH: pytest.StashKey[dict[str, Any]] = pytest.StashKey()
"""What fresh interpreters find in their ``workerinput``, at ``-n0``."""

STARTUP_PATH: pytest.StashKey[list[str]] = pytest.StashKey()
"""``sys.path`` before options and conftest files add to it."""


def settings_of(config: pytest.Config) -> Settings:
    """Read them.

    :raises pytest.UsageError: naming the option and what it takes.
    """
    values = _read_all(config, Settings._fields)
    asked = said(config, "fkit_isolation") is not None
    if not asked:
        values["isolation"] = _natural_isolation(config, values["isolation"])
    journal, resume = values["journal"], values["resume"]
    if resume is not None:
        if config.getoption("fkit_journal") is not None and journal != resume:
            raise pytest.UsageError(
                f"pytest-fkit: --fkit-resume={config.getoption('fkit_resume')} appends to "
                "that journal; leave out --fkit-journal, or give it the same path"
            )
        values["journal"] = resume
    elif values["html"] is not None and journal is None:
        values["journal"] = values["html"].with_suffix(".jsonl")
    _check_files(**{name: values[name] for name in ("journal", "trace", "html")})
    return Settings(**values, others_timeout=_others_timeout(config), isolation_asked=asked)


def _check_files(**paths: Path | None) -> None:
    """Whether each is a file of its own."""
    named: dict[Path, str] = {}
    for name, path in paths.items():
        if path in named:
            raise pytest.UsageError(
                f"pytest-fkit: {named[path]} and {name} can't be one file, {path}"
            )
        if path is not None:
            named[path] = name


def gpu_settings_of(config: pytest.Config, options: argparse.Namespace) -> GpuSettings:
    """Read those for GPUs.

    :param options: ``config.option``, or what is known of it while pytest starts.
    :raises pytest.UsageError: naming the option and what it takes.
    """
    values = _read_all(config, GpuSettings._fields, options)
    given = said(config, "fkit_gpus", options)
    ids = values["gpus"] if isinstance(values["gpus"], str) else ",".join(values["gpus"])
    return GpuSettings(**values, source="" if given is None else f"{given.source}={ids}")


def machine_settings_of(config: pytest.Config) -> MachineSettings:
    """Read those for other machines.

    :raises pytest.UsageError: naming the option and what it takes.
    """
    values = _read_all(config, MachineSettings._fields)
    given = said(config, "fkit_machines")
    return MachineSettings(**values, source="" if given is None else given.source)


def _read_all(
    config: pytest.Config, fields: Sequence[str], options: argparse.Namespace | None = None
) -> dict[str, Any]:
    """The values of those fields that have options."""
    names = [name for name in fields if f"fkit_{name}" in BY_NAME]
    return {name: read(config, f"fkit_{name}", options) for name in names}


class Said(NamedTuple):
    """A value that was given, and where."""

    source: str
    value: Any

    def __str__(self) -> str:
        return f"{self.source}={self.value}"


def said(
    config: pytest.Config, name: str, options: argparse.Namespace | None = None
) -> Said | None:
    """What the user says: on the command line, by a variable or in an ini file, in this order.

    :param options: as for :func:`gpu_settings_of`.
    """
    option = BY_NAME[name]
    given = getattr(options or config.option, name, None)
    if COMMAND_LINE in option.where and given is not None:
        return Said(option.flag, given)
    given = variable(option.variable) if option.variable else None
    if given:
        return Said(option.variable, given)
    try:
        given = ini_value(config, name) if INI in option.where else None
    except ValueError:  # of pytest-timeout, which is installed and was not loaded
        given = None
    return None if given is None or given == "" else Said(f"ini value {name}", given)


def read(config: pytest.Config, name: str, options: argparse.Namespace | None = None) -> Any:
    """The value of an option.

    :param options: as for :func:`gpu_settings_of`.
    :raises pytest.UsageError: naming the option and what it takes.
    """
    option = BY_NAME[name]
    given = said(config, name, options)
    if given is None:
        return option.default
    try:
        value = parse(option, given.value)
        return _located(config, given.source, value) if option.type == "path" else value
    except ValueError as error:
        # Of a list in a file the error names the line.
        is_long = option.type in LISTS and not given.source.startswith("--")
        place = given.source if is_long else given
        raise pytest.UsageError(f"pytest-fkit: {place}: {error}") from None


def _located(config: pytest.Config, source: str, text: str) -> Path | None:
    """A path relative to the current directory, in ini files to the root."""
    on_command_line = source.startswith("--")
    base = Path(str(config.invocation_params.dir)) if on_command_line else config.rootpath
    try:
        return base / Path(text).expanduser() if text else None
    except RuntimeError as error:  # ~nobody
        raise ValueError(f"expected a path; {error}") from None


_CHANGING_SNAPSHOTS = frozenset({"create", "fix", "review", "trim", "update"})


def _natural_isolation(config: pytest.Config, default: str) -> str:
    """Session, where inline-snapshot changes files by what it saw of all tests in one process.

    With workers it changes nothing.
    """
    wanted = str(config.getoption("inline_snapshot", None) or "").split(",")
    alone = not config.getoption("numprocesses", None)
    return "session" if alone and _CHANGING_SNAPSHOTS.intersection(wanted) else default


def _others_timeout(config: pytest.Config) -> float | None:
    ours = config.getoption("fkit_timeout") is not None
    if ours and not is_loaded(config, "timeout"):
        return None
    seconds: float | None = read(config, "timeout")
    return seconds


def measures_usage(config: pytest.Config) -> bool:
    """Whether somebody will read what each test used of the machine."""
    return asks_for_records(config, config.option)


def asks_for_records(config: pytest.Config, options: argparse.Namespace) -> bool:
    """Whether journal, trace, lists of tests or a run to resume are asked for.

    :param options: as for :func:`gpu_settings_of`.
    """
    names = ("fkit_resume", "fkit_journal", "fkit_trace", "fkit_html", "fkit_top")
    return any(said(config, name, options) is not None for name in names)
