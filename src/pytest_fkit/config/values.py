"""Parses values of options: texts, what TOML has instead of them, and arguments of marks."""

from __future__ import annotations

import re
import shlex
import string
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from ..named_tuple import NamedTuple
from ..own import own_builtins
from ..protocol.repetitions import SEEDS
from .options import Option

if TYPE_CHECKING:
    from .machine_option import Machines

own_builtins(globals())

T = TypeVar("T")

# Of ini files, as pytest understands them.
_ON = ("on", "true", "yes", "1", "t", "y")
_OFF = ("off", "false", "no", "0", "f", "n")

_LONGEST = 1e9
"""Seconds, 31 years: the kernel's clocks take a few hundred."""

TEMPLATE_FIELDS = ("worker", "gpus", "port", "cpus")
"""The fields that templates of variables can have."""


def parse(option: Option, value: object) -> Any:
    """The value of an option.

    :raises ValueError: saying what is expected.
    """
    read, _ = _TYPES[option.type]
    parsed = read(value)
    refused = option.type in _NUMBERS and not parsed and not option.zero
    if parsed is None or refused or (option.choices and parsed not in option.choices):
        raise ValueError(f"expected {_expected(option)}")
    return parsed


def _expected(option: Option) -> str:
    _, noun = _TYPES[option.type]
    text = ", ".join(option.choices) if option.choices else ""
    text = noun.format(text or ("non-negative" if option.zero else "positive"))
    zero = f" (0: {option.zero})" if option.zero else ""
    return f"{text}{zero}; {option.advice}" if option.advice else f"{text}{zero}"


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _switch(value: object) -> bool | None:
    text = str(value).strip().lower()
    return text in _ON if text in _ON + _OFF else None


def _seconds(value: object) -> float | None:
    try:
        seconds = float(str(value))
    except ValueError:
        return None
    if _LONGEST < seconds < float("inf"):
        raise ValueError(f"expected at most {_LONGEST:.0f} seconds")
    return seconds if 0 <= seconds <= _LONGEST else None


def _count(value: object) -> int | None:
    return int(str(value)) if re.fullmatch("[0-9]{1,9}", str(value)) else None


def _gpu_count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _workers(value: object) -> int | str | None:
    return "auto" if value == "auto" else _count(value) or None


class Repeat(NamedTuple):
    """How often tests are repeated; neither `times` nor `seconds`: until one fails."""

    times: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        if self.times is not None:
            return str(self.times)
        return "until-failure" if self.seconds is None else f"{self.seconds:g}s"


def _seed(value: object) -> int | None:
    text = str(value)
    return int(text) if re.fullmatch("[0-9]{1,10}", text) and int(text) < SEEDS else None


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def _repeat(value: object) -> Repeat | None:
    if value == "until-failure":
        return Repeat()
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?)([smh]?)", str(value))
    if match is None or not float(match[1]):
        return None
    if match[2]:
        return Repeat(seconds=min(float(match[1]) * _UNITS[match[2]], _LONGEST))
    return Repeat(times=int(match[1])) if match[1].isdigit() else None


def _size(value: object) -> int | None:
    """Bytes, from a number or a text as 500M, 1.5G, 64KiB; units are powers of 1024."""
    match = re.fullmatch(
        r"([0-9]{1,15}(?:\.[0-9]+)?)\s*([kmgt]?)(?:i?b)?", str(value).strip().lower()
    )
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2] or " ")) if match else None


def _path(value: object) -> str | None:
    known = isinstance(value, (str, int)) and not isinstance(value, bool)
    return str(value) if known and "\0" not in str(value) else None


def _command(value: object) -> tuple[str, ...] | None:
    """The words of a command; none of an empty one."""
    if isinstance(value, (list, tuple)):
        return tuple(value) if all(isinstance(each, str) and each for each in value) else None
    if not isinstance(value, str) or "\0" in value:
        return None
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise ValueError(f"expected a command; {error}") from None


def _lines(value: object) -> tuple[str, ...] | None:
    lines = value.splitlines() if isinstance(value, str) else value
    if not isinstance(lines, (list, tuple)) or not all(isinstance(each, str) for each in lines):
        return None
    return tuple(each.strip() for each in lines if each.strip())


def _patterns(value: object) -> tuple[str, ...] | None:
    """Texts, in which ``*`` is any text; on the command line they are separated by commas."""
    lines = _lines(value.replace(",", "\n") if isinstance(value, str) else value)
    for line in lines or ():
        if not line.strip("*"):
            raise ValueError(f"expected texts that some node ids don't contain, not {line!r}")
    return lines


def _each(parse_line: Callable[[str], T]) -> Callable[[object], tuple[T, ...] | None]:
    """What reads a list of lines."""

    def read(value: object) -> tuple[T, ...] | None:
        lines = _lines(value)
        return None if lines is None else tuple(map(parse_line, lines))

    return read


def _package(line: str) -> str:
    if not re.fullmatch("[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", line):
        raise ValueError(f"{line!r}: expected the name of a package")
    return line


def parse_template(line: str) -> tuple[str, str]:
    """Name and template from a line ``NAME=template``.

    :raises ValueError: saying what is expected.
    """
    name, separator, template = line.partition("=")
    name, template = name.strip(), template.strip()
    if not separator or not name or any(each in name for each in " \t{}"):
        raise ValueError(f"{line!r}: expected NAME=template")
    try:
        unknown = sorted(fields_of(template) - set(TEMPLATE_FIELDS))
        if not unknown:
            template.format_map(dict.fromkeys(TEMPLATE_FIELDS, ""))
    except (ValueError, KeyError, IndexError) as error:
        raise ValueError(f"{line!r}: {error}; a brace itself is {{{{ or }}}}") from None
    if unknown:
        raise ValueError(
            f"{line!r}: {{{unknown[0]}}} is unknown; there are {{worker}}, {{gpus}}, {{port}} and "
            "{cpus}, and a brace itself is {{ or }}"
        )
    return name, template


def parse_mask(text: str) -> tuple[str, str]:
    """What is to be masked: a name, in which ``*`` is any text, or, from ``/REGEX/``, a pattern.

    :return: the one of them that it is; the other is "".
    :raises ValueError: saying what is expected.
    """
    if len(text) < 3 or not (text.startswith("/") and text.endswith("/")):
        if not re.fullmatch(r"[A-Za-z0-9_.*-]*[A-Za-z0-9][A-Za-z0-9_.*-]*", text):
            raise ValueError(f"{text!r}: expected a name, in which * is any text, or /REGEX/")
        return text, ""
    try:
        matches_nothing = re.compile(text[1:-1]).search("") is not None
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{text!r}: expected a regular expression: {error}") from None
    if matches_nothing:
        raise ValueError(f"{text!r}: expected an expression that does not match an empty text")
    return "", text[1:-1]


def fields_of(template: str) -> set[str]:
    return {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}


def _gpus(value: object) -> str | tuple[str, ...] | None:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    if text in ("", "auto", "none"):
        return text or "auto"
    ids = tuple(each.strip() for each in text.split(","))
    if not all(re.fullmatch("[0-9]+|(GPU|MIG)-.*", each, re.IGNORECASE) for each in ids):
        return None
    if len(set(ids)) < len(ids):
        raise ValueError("a GPU is named twice")
    return ids


def _machines(value: object) -> Machines | None:
    from .machine_option import parse_machines  # which most runs don't need

    return parse_machines(value) if isinstance(value, str) else None


_TYPES: dict[str, tuple[Callable[[object], Any], str]] = {
    "choice": (_word, "one of {}"),
    "switch": (_switch, "on or off"),
    "seconds": (_seconds, "a {} number of seconds"),
    "count": (_count, "a {} integer"),
    "gpu_count": (_gpu_count, "a {} number of GPUs"),
    "size": (_size, "a size such as 500M or 2G"),
    "workers": (_workers, "a {} integer or auto"),
    "repeat": (
        _repeat,
        "a number of times such as 200, a time such as 90s, 30m or 2h, or until-failure",
    ),
    "seed": (_seed, f"an integer from 0 to {SEEDS - 1}"),
    "name": (_word, "a name"),
    "path": (_path, "a path"),
    "command": (_command, "a command"),
    "lines": (_lines, "a list of strings"),
    "masks": (_each(parse_mask), "a list of names and /REGEX/"),
    "patterns": (_patterns, "a list of texts"),
    "packages": (_each(_package), "a list of names of packages"),
    "templates": (_each(parse_template), "a list of strings NAME=template"),
    "machines": (_machines, "slurm, ssh:HOST,HOST or exec:NAME,NAME COMMAND"),
    "gpus": (_gpus, "auto, none, or numbers and UUIDs such as 0,2 or GPU-5e21a,GPU-77b0"),
}
"""By type: what reads values, None for wrong ones, and its name in messages."""

_NUMBERS = ("seconds", "count", "gpu_count", "size")
