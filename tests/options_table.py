"""Makes README's table of options from the table in the code: ``python tests/options_table.py``.

What an option does is its help; what README adds to that, with links, is in DETAILS.
"""

from __future__ import annotations

import re
from pathlib import Path

from pytest_fkit.config.options import COMMAND_LINE, INI, OPTIONS, Option

README = Path(__file__).parents[1] / "README.md"

_TABLE = re.compile(r"(?<=\n### Options\n\n)\|.*?(?=\n\n)", re.DOTALL)

XDIST = {"fkit_workers": "`-n N`, `-n auto`, "}
"""Options of xdist that mean the same."""

DETAILS = {
    "fkit": "After `--no-fkit` all other options are accepted and do nothing",
    "fkit_workers": (
        "Different values for the two are an error. `-n0`: no worker, pytest itself takes its place"
    ),
    "fkit_isolation": (
        "For class, module and session, tests share a process, which is replaced when it dies; "
        "the test after that runs in a fresh one"
    ),
    "fkit_start_method": (
        "`fork` forks whatever there is; `spawn` starts a fresh interpreter for each module, or "
        "as `--fkit-isolation` says; see below"
    ),
    "fkit_timeout": "The setup and teardown of wide fixtures have a clock each with the same limit",
    "fkit_memory_limit": "It counts what the test and its processes took since the fork",
    "fkit_worker_timeout": (
        "That is, one that has collected, and is stopped or stuck in native code; on another "
        "machine its connection is ended. It is replaced"
    ),
    "fkit_session_timeout": "See [A limit for the run](#a-limit-for-the-run)",
    "fkit_slow": "See [What runs now](#what-runs-now)",
    "fkit_sanitizer_reports": "See [What a dying process says](#what-a-dying-process-says)",
    "timeout": "[pytest-timeout](https://pypi.org/project/pytest-timeout/)",
    "fkit_journal": (
        "See [Journal](#journal-trace-and-resuming). Relative to the current directory, in ini "
        "files to the root directory"
    ),
    "fkit_trace": "[ui.perfetto.dev](https://ui.perfetto.dev)",
    "fkit_resume": (
        "They are reported with that verdict; the rest is run and appended. If there is no such "
        "file, the run begins it"
    ),
    "fkit_gpus": (
        "`auto`: those that are found; numbers are as the machine counts its GPUs, as in `0,2,5` "
        "or `GPU-5e21a,GPU-77b0`"
    ),
    "fkit_gpus_per_worker": (
        "If it is not given and the number of workers is: as many as every worker can have for "
        "itself, 1 or 2. MIG: 1"
    ),
    "fkit_gpu_slots": (
        "Tests run on it together that [fit into its memory](#several-workers-on-one-slice)"
    ),
    "fkit_cpu_workers": "On this machine, with all GPUs hidden (masks are `-1`). Not at `-n0`",
    "fkit_warmup": "See [Warm children](#warm-children)",
    "fkit_amd_mask": "See below",
    "fkit_gpu_memory_timeout": "See [Memory of GPUs](#memory-of-gpus)",
    "fkit_probe": "See [Probes](#probes)",
    "fkit_max_retries": "See [GPU errors](#gpu-errors)",
    "fkit_gpu_errors": "See [GPU errors](#gpu-errors)",
    "fkit_env": "See below",
}
"""Sentences; or a link, which takes the place of its text in the help."""


def table() -> str:
    """The options and ini values, as Markdown."""
    head = [("option", "ini value", "default", "meaning"), ("---",) * 4]
    rows = [_cells(option) for option in OPTIONS if {COMMAND_LINE, INI} & set(option.where)]
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


def with_table(readme: str) -> str:
    """The text of README with the table as it has to be."""
    return _TABLE.sub(lambda _: table(), readme, count=1)


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
