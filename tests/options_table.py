"""Makes the page of options from the table in the code: ``python tests/options_table.py``.

What an option does is its help; what the page adds to that, with links, is in DETAILS.
"""

from __future__ import annotations

import re
from pathlib import Path

from pytest_fkit.config.options import COMMAND_LINE, GROUPS, INI, OPTIONS, Option

PAGE = Path(__file__).parents[1] / "docs/reference/options.md"

_TABLES = re.compile(r"(?<=<!-- made by tests/options_table.py -->\n).*", re.DOTALL)

XDIST = {"fkit_workers": "`-n N`, `-n auto`, "}
"""Options of xdist that mean the same."""

DETAILS = {
    "fkit": "After `--no-fkit` all other options are accepted and do nothing",
    "fkit_workers": "`-n0`: [no workers](../start/quickstart.md#debug)",
    "fkit_isolation": (
        "With class, module and session, tests [share a process]"
        "(../start/shared-processes.md#tests-that-should-share-a-process); if it dies, the next "
        "test gets a fresh one"
    ),
    "fkit_start_method": (
        "`fork` forks regardless; `spawn` starts a [fresh interpreter]"
        "(../start/shared-processes.md#fresh-interpreters) for each module, or as "
        "`--fkit-isolation` says"
    ),
    "fkit_timeout": (
        "Setup and teardown of [wide fixtures](../inside/vocabulary.md#words) have the same "
        "[limit](../start/limits.md), each with its own clock"
    ),
    "fkit_memory_limit": "This counts what the test and its processes took since the fork",
    "fkit_worker_timeout": (
        "It is [replaced](../start/limits.md#hanging-workers). A worker on another machine is "
        "disconnected"
    ),
    "fkit_grace": "See [Ctrl-C and SIGTERM](../start/limits.md#ctrl-c-and-sigterm)",
    "fkit_session_timeout": "See [A limit for the run](../start/limits.md#a-limit-for-the-run)",
    "fkit_repeat": "See [Flaky tests](../start/repeat.md)",
    "fkit_slow": "See [Find a test that hangs](../start/what-runs-now.md)",
    "fkit_threads_per_worker": "See [Threads](../start/limits.md#threads)",
    "fkit_serial_patterns": "See [One at a time](../ci/distribution.md#one-at-a-time)",
    "fkit_network_retries": "See [Network errors](../ci/network.md)",
    "fkit_sanitizer_reports": "See [Last words](../start/reading-a-crash.md#last-words)",
    "fkit_cores": "See [Cores](../start/reading-a-crash.md#cores)",
    "fkit_wrapper": "See [Wrappers](../start/wrappers.md)",
    "fkit_artifacts": "See [Artifacts](../extending/fixtures.md#artifacts)",
    "fkit_stacks": "See [Native stacks](../start/reading-a-crash.md#native-stacks)",
    "timeout": "[pytest-timeout](https://pypi.org/project/pytest-timeout/)",
    "fkit_journal": (
        "See [Journal](../ci/journal.md). The path is relative to the current directory, in ini "
        "files to the root directory"
    ),
    "fkit_trace": "[ui.perfetto.dev](https://ui.perfetto.dev)",
    "fkit_resume": (
        "These are reported with that verdict; the others run, and are appended. If there is no "
        "such file, the run [creates it](../ci/shards.md)"
    ),
    "fkit_quarantine": "See [Quarantine](../ci/quarantine.md)",
    "fkit_versions": "They are in the `run` event of the [journal](journal.md#events)",
    "fkit_gpus": (
        "`auto`: all that are found. Numbers are those of the machine; UUIDs may be shortened, as "
        "in `GPU-5e21a,GPU-77b0`"
    ),
    "fkit_gpus_per_worker": "See [slices](../gpus/slices.md)",
    "fkit_gpu_slots": (
        "Tests run together that [fit into its memory]"
        "(../gpus/memory.md#several-workers-on-one-slice)"
    ),
    "fkit_cpu_workers": (
        "They run on this machine, with [all GPUs hidden]"
        "(../gpus/slices.md#workers-without-gpus). Not at `-n0`"
    ),
    "fkit_widen": "See [Tests that skip themselves](../gpus/more.md#tests-that-skip-themselves)",
    "fkit_warmup": "See [Faster GPU tests](../gpus/warmup.md)",
    "fkit_amd_mask": "See [ROCm](../gpus/platforms.md#rocm)",
    "fkit_gpu_memory_timeout": "See [GPU memory](../gpus/memory.md)",
    "fkit_probe": "See [Probes](../gpus/health.md#probes)",
    "fkit_max_retries": "See [Retries](../gpus/errors.md#retries)",
    "fkit_retire_after": "See [Retired workers](../gpus/errors.md#retired-workers)",
    "fkit_gpu_errors": "See [Add a pattern](../gpus/errors.md#add-a-pattern)",
    "fkit_machines": (
        "See the pages on [Slurm](../ci/slurm.md), [ssh](../ci/ssh.md) and "
        "[Kubernetes](../ci/kubernetes.md)"
    ),
    "fkit_machines_python": "It needs the same version and the same packages",
    "fkit_env": "See [Other variables](../gpus/slices.md#other-variables)",
}
"""Sentences; or a link, which takes the place of its text in the help."""

HEADINGS = dict(zip(GROUPS, ("Tests", "Records", "GPUs", "Other machines")))


def tables() -> str:
    """The options and ini values, as Markdown, a table for each group."""
    return "".join(f"\n## {HEADINGS[group]}\n\n{_table(group)}\n" for group in GROUPS)


def _table(group: str) -> str:
    head = [("option", "ini value", "default", "meaning"), ("---",) * 4]
    options = [option for option in OPTIONS if option.group == group]
    rows = [_cells(option) for option in options if {COMMAND_LINE, INI} & set(option.where)]
    return "\n".join(f"|{'|'.join(map(_padded, cells))}|" for cells in (*head, *rows))


def _padded(cell: str) -> str:
    return f" {cell} " if cell.strip("-") else cell or " "


def _cells(option: Option) -> tuple[str, str, str, str]:
    flag = option.flag + (f"={option.metavar}" if option.metavar else "")
    spellings = ", ".join(f"`{each}`" for each in (flag, option.negation) if each)
    spellings = (XDIST.get(option.name, "") + spellings).replace("|", "\\|")
    return (
        spellings if COMMAND_LINE in option.where else "",
        f"`{option.name}`" if INI in option.where else "",
        option.default_text,
        _meaning(option),
    )


def _meaning(option: Option) -> str:
    text, details = "; ".join([option.help, *option.notes]), DETAILS.get(option.name, "")
    link = re.match(r"\[(.*)\]\(\S+\)$", details)
    if link:
        return text.replace(link[1], details, 1)
    return f"{text}. {details}" if details else text


def with_tables(page: str) -> str:
    """The text of the page with the tables as they have to be."""
    return _TABLES.sub(lambda _: tables(), page, count=1)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
