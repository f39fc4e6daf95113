"""Makes the picture of the demo in the documentation: ``tox -e picture``."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import CONSOLE_SVG_FORMAT, Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs/_static/crash.svg"
COLUMNS = 100

SHOWN = "reads_far or leaves_early or waits or counts or keeps"
"""Tests of the demo; all of them would make a tall picture."""

# Without the fonts that rich's own format loads from another host.
_FONTS = re.compile(r"@font-face \{\{.*?\}\}\s*", re.DOTALL)


def demo() -> str:
    """What the demo prints, with the codes of its colours."""
    command = "pytest -c tests/demo/pytest.ini -n 2 --fkit --color=yes -p no:cacheprovider"
    ended = subprocess.run(
        [sys.executable, "-m", *command.split(), "-k", SHOWN, "tests/demo"],
        cwd=ROOT,
        # Whichever debuggers are installed.
        env={**os.environ, "COLUMNS": str(COLUMNS), "FKIT_STACKS": "python"},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    assert ended.returncode == 1, ended.stdout
    return ended.stdout


def excerpt(printed: str) -> list[str]:
    """The report of the first crash and the summary, without what differs between machines."""
    text = re.sub(r"0x[0-9a-f]{16}", "0x00007f2c4e1bbb80", _short(printed))
    lines = text.splitlines()
    begin = next(at for at, line in enumerate(lines) if "at call of test_reads" in line)
    end = next(at for at, line in enumerate(lines[begin:], begin) if "test_leaves" in line)
    summary = next(at for at, line in enumerate(lines) if "pytest-fkit summary" in line)
    crash = [line for line in lines[begin:end] if "/site-packages/" not in line]
    return [
        "$ pytest -n 2 --fkit",
        "…",
        *crash,
        "…",
        *lines[summary:-1],
        "",
    ]  # the last line would be cut off


def _short(printed: str) -> str:
    """Without paths of this machine."""
    for path in (f"{ROOT}/", f"{ROOT.resolve()}/"):
        printed = printed.replace(path, "")
    printed = printed.replace(sys.executable, "python")
    return re.sub(r" -p no:cacheprovider| --color=yes| -k '.*?'(?= tests)", "", printed)


def main() -> None:
    """Write the picture."""
    lines = excerpt(demo())
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    for line in lines:
        console.print(Text.from_ansi(line), no_wrap=True, crop=True, overflow="ellipsis")
    code_format = _FONTS.sub("", CONSOLE_SVG_FORMAT).replace("Fira Code, monospace", "monospace")
    PICTURE.write_text(
        console.export_svg(title="pytest --fkit", code_format=code_format, unique_id="crash"),
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
