"""The fenced blocks of the documentation, as CONTRIBUTING.md says how they are marked."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Iterator, NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))

_BLOCK = re.compile(
    r"(?:^<!-- (?P<said>not run|printed by): (?P<what>[^\n]+) -->\n)?"
    r"^```(?P<language>[a-z]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_ANY_LINES = r"(?:.*\n)*"
_NAME = re.compile(r"# (\S+\.(?:py|ini|toml))\n")
_COMMAND = re.compile(r"^(?:\$ )?((?:pytest|fkit|python|tox|buildkite-agent|git)\b.*)$")
_LINE_OF_PYTEST = re.compile(r"(?:^|[ `>])pytest ((?=.*--fkit)[^`#]*)")


class Block(NamedTuple):
    """A fenced block.

    :param page: relative to the repository's root.
    :param not_run: why it can't be run here, or "".
    :param printed_by: the command of which it is the output, or "".
    """

    page: str
    line: int
    language: str
    text: str
    not_run: str
    printed_by: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str:
        """The file that it is, or ""."""
        match = _NAME.match(self.text)
        return match[1] if match and self.language in ("python", "ini", "toml") else ""

    @property
    def commands(self) -> list[tuple[str, str]]:
        """Its commands with what they print, "" if nothing is shown."""
        if self.language not in ("", "console"):
            return []
        found: list[tuple[str, str]] = []
        for line in self.text.splitlines():
            match = _COMMAND.match(line)
            if match and (line.startswith("$ ") or not self.language):
                found.append((match[1].partition("  #")[0].rstrip(), ""))
            elif found:
                found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
        return found


def blocks() -> Iterator[Block]:
    """All of them."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in _BLOCK.finditer(text):
            said = {match["said"]: match["what"]}
            yield Block(
                page.relative_to(ROOT).as_posix(),
                text.count("\n", 0, match.start()) + 1,
                match["language"],
                match["text"],
                said.get("not run", ""),
                said.get("printed by", ""),
            )


def lines_of_pytest() -> Iterator[tuple[str, list[str]]]:
    """The arguments of each ``pytest … --fkit …`` anywhere in the pages, with its place."""
    for page in PAGES:
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            for match in _LINE_OF_PYTEST.finditer(line):
                # What templates of CI systems and tox put in.
                text = re.sub(r"\$?\{\{.*?\}\}|\{.*?\}", "1", match[1].partition(" -->")[0])
                text = text.replace("tests/demo", f"{ROOT}/tests/demo")
                yield f"{page.relative_to(ROOT)}:{number}", shlex.split(text)


def matches(shown: str, printed: str) -> bool:
    """Whether a program printed what a page shows, where … stands for anything."""
    lines = [_normal(line) for line in shown.rstrip("\n").splitlines()]
    parts = [_ANY_LINES if line == "…" else f"{_pattern(line)}\n" for line in lines]
    normal = "".join(f"{_normal(line)}\n" for line in printed.splitlines())
    return re.search("^" + "".join(parts), normal, re.MULTILINE) is not None


def _pattern(line: str) -> str:
    return re.escape(line).replace("…", ".*")


def _normal(line: str) -> str:
    """Without what depends on the width of the terminal."""
    return re.sub(r"^([=_-])\1{2,} | ([=_-])\2{2,}$", "===", line.rstrip())
