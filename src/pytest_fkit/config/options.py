"""The table of options: all that users can say on the command line, in ini files and in marks.

A new option is one entry here, and a field of that name in settings.py for its value. Nothing but
data, since this is imported without ``--fkit``, too; values.py parses. docs/reference/options.md is
made of it by tests/options_table.py.
"""

from typing import List, NamedTuple, Tuple

# Without `from __future__ import annotations`: a NamedTuple compiles texts, and every start of
# pytest would pay for it.

COMMAND_LINE, INI, MARK = "command line", "ini", "mark"

TESTS, RECORDS, GPUS, MACHINES = "fkit", "fkit-records", "fkit-gpus", "fkit-machines"

GROUPS = {
    TESTS: "pytest-fkit: a process for each test",
    RECORDS: "pytest-fkit: records of a run",
    GPUS: "pytest-fkit: GPUs",
    MACHINES: "pytest-fkit: other machines",
}
"""The groups of ``--help``, with their headings."""


LISTS = ("lines", "masks", "packages", "patterns", "templates")
"""The types whose values are lists of lines."""

_VALUES = {"seconds": "SECONDS", "size": "SIZE", "path": "PATH", "count": "N"}


class Option(NamedTuple):
    """What there is to say of an option.

    :param name: of the ini value; the option is ``--`` and the name with hyphens.
    :param type: what its values are, one of those in values.py.
    :param help: what it does, for ``--help`` and the page of options.
    :param default: the value of its setting unless one is given.
    :param where: where it can be given: COMMAND_LINE, INI, MARK.
    :param group: one of GROUPS.
    :param value: what stands for the value in ``--help``, unless its type says it.
    :param choices: all values, where they are words.
    :param zero: what 0 means; "" where it is refused.
    :param unsaid: the default in words, where `default` does not say it.
    :param variable: an environment variable that goes before the ini value.
    :param advice: what the user of a wrong value may have meant.
    """

    name: str
    type: str
    help: str
    default: object = None
    where: Tuple[str, ...] = (COMMAND_LINE, INI)
    group: str = TESTS
    value: str = ""
    choices: Tuple[str, ...] = ()
    zero: str = ""
    unsaid: str = ""
    variable: str = ""
    advice: str = ""

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def negation(self) -> str:
        """The option that switches it off, "" if it is no switch."""
        return f"--no-{self.flag[2:]}" if self.type == "switch" else ""

    @property
    def metavar(self) -> str:
        """What stands for its value, "" if it takes none."""
        return self.value or "|".join(self.choices) or _VALUES.get(self.type, "")

    @property
    def setting(self) -> str:
        """The name of its setting, and of the argument of the mark."""
        return self.name.replace("fkit_", "")

    @property
    def notes(self) -> List[str]:
        """What is special about its values, in words."""
        zero = [f"0: {self.zero}"] if self.zero and self.default != 0 else []
        return [*zero, f"variable: {self.variable}"] if self.variable else zero

    @property
    def default_text(self) -> str:
        if self.default is None or self.default == ():
            return self.unsaid
        if isinstance(self.default, bool):
            return "on" if self.default else "off"
        if not isinstance(self.default, (int, float)):
            return str(self.default)
        return f"{self.default:g}" if self.default else f"0, {self.zero}"


OPTIONS = (
    Option("fkit", "switch", "run each test in its own process, or not; the last one counts",
           default=False, where=(COMMAND_LINE,)),
    Option("fkit_workers", "workers", "number of workers, an alias of -n",
           value="N|auto", unsaid="1", where=(COMMAND_LINE,), advice="-n0 runs without workers"),
    Option("fkit_isolation", "choice", "how long a test process lives",
           default="function",
           choices=("function", "class", "module", "session"), where=(COMMAND_LINE, INI, MARK)),
    Option("fkit_start_method", "choice",
           "how test processes start; auto forks unless that is unsafe",
           default="auto", choices=("auto", "fork", "spawn")),
    Option("fkit_timeout", "seconds", "time limit of one test, from setup to teardown",
           default=600.0, zero="no limit", where=(COMMAND_LINE, INI, MARK)),
    Option("fkit_memory_limit", "size", "memory that one test may use, such as 500M or 2G",
           default=0, zero="no limit", where=(COMMAND_LINE, INI, MARK)),
    Option("fkit_worker_timeout", "seconds",
           "kill a worker that shows no sign of life for this long",
           default=60.0, zero="never"),
    Option("fkit_grace", "seconds",
           "time for tests and class- to session-scoped fixtures to end after Ctrl-C or SIGTERM",
           default=30.0, zero="none"),
    Option("fkit_stacks", "choice",
           "stacks in reports on crashes and hangs: Python's only, or native (C and C++) ones, "
           "too; auto: native if pystack, gdb, eu-stack or py-spy is installed",
           default="auto", choices=("auto", "python", "native"), variable="FKIT_STACKS"),
    Option("fkit_cores", "path",
           "keep the cores of test processes that die of a signal, in this folder", value="DIR"),
    Option("fkit_keep_cores", "count", "how many cores to keep of each run", default=3),
    Option("fkit_wrapper", "command",
           "run the process of each test under this command, such as valgrind -q; {artifacts} is a "
           "folder of the test's own",
           default=(), value="COMMAND", unsaid="none", where=(COMMAND_LINE, INI, MARK)),
    Option("fkit_artifacts", "path",
           "make a folder for each test in this one, and keep it if the test fails", value="DIR",
           unsaid="in pytest's temporary directory"),
    Option("fkit_session_timeout", "seconds",
           "time limit of the whole run: then no more tests begin, and it ends within the grace",
           default=0.0, zero="no limit"),
    Option("timeout", "seconds",
           "same as pytest-timeout's option, for --fkit without that plugin",
           zero="no limit", variable="PYTEST_TIMEOUT"),
    Option("fkit_slow", "seconds",
           "name tests that run longer, and again each time their running time doubles",
           default=60.0, zero="never"),
    Option("fkit_footer", "choice",
           "show progress and the longest-running tests at the bottom of a terminal",
           default="auto", choices=("auto", "never")),
    Option("fkit_quarantine", "path",
           "a TOML file of tests whose failures are known and don't fail the run"),
    Option("fkit_network_retries", "count",
           "retries after a network error: HTTP 429 or 5xx, a name that can't be resolved, "
           "a connection that breaks or times out",
           default=0, zero="none"),
    Option("fkit_repeat", "repeat",
           "repeat each test, each time in its own process: this many times, for a time such as "
           "30m, or until one fails; each test gets one verdict",
           value="N|TIME|until-failure", where=(COMMAND_LINE,)),
    Option("fkit_repeat_seed", "seed",
           "seed of the random numbers in the first repetition; the other seeds follow from it",
           value="SEED", unsaid="a new one for each run", where=(COMMAND_LINE,)),
    Option("fkit_sanitizer_reports", "choice",
           "what to do if a test survives a sanitizer's report: name the test in the summary, or "
           "fail it",
           default="name", choices=("name", "fail"), where=(INI,)),
    Option("fkit_threads_per_worker", "workers",
           "number of threads that OpenMP, BLAS and the like start in each worker, by environment "
           "variables that you have not set; auto: cores divided by workers",
           value="N|auto", unsaid="the libraries' own"),
    Option("fkit_serial_patterns", "patterns",
           "tests whose node id contains one of these never run at the same time; * is any text; "
           "in ini files one per line",
           default=(), value="PATTERN,...", unsaid="none"),
    Option("serial", "name", "a name; no two tests that have it run at the same time",
           where=(MARK,)),
    Option("fkit_journal", "path",
           "write events to this file as they happen, one JSON object per line",
           group=RECORDS),
    Option("fkit_trace", "path", "write a timeline to this file, for ui.perfetto.dev",
           group=RECORDS),
    Option("fkit_html", "path",
           "write an HTML report to this file when the run ends, and its journal beside it, or "
           "where --fkit-journal says",
           group=RECORDS),
    Option("fkit_mask", "masks",
           "more secrets to mask in journal, trace and report: names of variables and options, "
           "with * for any text, or /REGEX/, one per line",
           default=(), group=RECORDS, where=(INI,)),
    Option("fkit_resume", "path",
           "resume the run that wrote this journal; tests that have a verdict are not run again",
           group=RECORDS, where=(COMMAND_LINE,)),
    Option("fkit_versions", "packages",
           "packages whose versions the journal records, one per line",
           default=(), group=RECORDS, where=(INI,)),
    Option("fkit_top", "count",
           "list the N tests that used most CPU time, and the N that used most memory",
           default=0, group=RECORDS, zero="no lists"),
    Option("fkit_gpus", "gpus", "GPUs to use: numbers or UUIDs, such as 0,2",
           default="auto", group=GPUS, value="auto|none|IDS", variable="FKIT_GPUS"),
    Option("fkit_gpus_per_worker", "count", "GPUs that each worker owns",
           group=GPUS, unsaid="2; 1 with MIG, or if there are too few for -n"),
    Option("fkit_gpu_slots", "count", "number of workers that share each slice of GPUs, by memory",
           default=1, group=GPUS),
    Option("fkit_cpu_workers", "count",
           "number of additional workers without GPUs, for tests marked fkit(gpus=0)",
           default=0, group=GPUS, zero="none"),
    Option("fkit_widen", "switch",
           "rerun tests that skip themselves because they see too few GPUs, with enough of them",
           default=False, group=GPUS),
    Option("fkit_warmup", "switch",
           "open the GPUs in the process of the next test while the current test runs",
           default=False, group=GPUS),
    Option("fkit_amd_mask", "choice",
           "the variable that selects AMD GPUs: ROCR_VISIBLE_DEVICES or HIP_VISIBLE_DEVICES",
           default="rocr", group=GPUS, choices=("rocr", "hip")),
    Option("fkit_gpus_timeout", "seconds", "time limit for finding GPUs",
           default=10.0, group=GPUS, advice="--fkit-gpus=none looks for none"),
    Option("fkit_gpu_memory_timeout", "seconds", "how long to wait for free GPU memory",
           default=60.0, group=GPUS, zero="not at all"),
    Option("fkit_probe", "switch",
           "probe each worker's GPUs before its first test, and after errors that may be theirs",
           default=True, group=GPUS, value="on|off"),
    Option("fkit_max_retries", "count",
           "retries, on other GPUs, after a GPU error",
           default=1, group=GPUS, zero="none"),
    Option("fkit_retire_after", "count",
           "GPU errors in a row after which a worker gets no more tests",
           default=3, group=GPUS, zero="never"),
    Option("fkit_fail_on_retry", "switch",
           "fail tests that pass only on a retry after a GPU or network error",
           default=False, group=GPUS),
    Option("fkit_gpu_errors", "lines",
           "more messages of GPU or network errors, one REGEX or CATEGORY: REGEX per line",
           default=(), group=GPUS, where=(INI,)),
    Option("fkit_env", "templates",
           "environment variables for workers, one NAME=template per line, with {worker}, {gpus}, "
           "{port}, {cpus}",
           default=(), group=GPUS, where=(INI,)),
    Option("fkit_machines", "machines",
           "run the workers on other machines: the nodes of this Slurm job, hosts by ssh, or any "
           "that a command with {machine} and {python} reaches; -n is the number per machine",
           value="slurm|ssh:HOST,...|exec:NAME,... COMMAND", group=MACHINES, unsaid="none",
           variable="FKIT_MACHINES"),
    Option("fkit_machines_python", "command", "the Python on the other machines",
           default=(), value="COMMAND", unsaid="the path of the Python that runs pytest",
           group=MACHINES),
    Option("fkit_machines_timeout", "seconds",
           "time limit for another machine to start Python and answer",
           default=60.0, group=MACHINES),
    Option("gpus", "gpu_count", "number of GPUs that the test sees",
           group=GPUS, zero="runs anywhere", where=(MARK,)),
    Option("gpu_memory", "size", "memory that has to be free on each GPU of the test, such as 40G",
           group=GPUS, zero="none", where=(MARK,)),
)  # fmt: skip

BY_NAME = {option.name: option for option in OPTIONS}

MARK_ARGUMENTS = {option.setting: option for option in OPTIONS if MARK in option.where}
"""The arguments of ``pytest.mark.fkit``."""
