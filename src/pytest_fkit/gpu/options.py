"""What the user says about GPUs, parsed and checked once."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any, Callable, Mapping, TypeVar

import pytest

from ..own import own_builtins
from ..settings import parse_count, parse_lines, parse_seconds
from .environment import AMD_MASKS, check_template

own_builtins(globals())

T = TypeVar("T")


@dataclass(frozen=True)
class GpuSettings:
    """What the user asked for.

    :param gpus: "auto", "none", or ids: numbers and UUIDs.
    :param source: where `gpus` was said, as in "--fkit-gpus=0,1".
    :param per_worker: GPUs per worker, None if not said.
    :param amd_mask: one of AMD_MASKS.
    :param timeout: seconds for detection.
    :param templates: names and values of further variables.
    :param cpu_workers: number of workers without GPUs, besides the others.
    :param slots: how many workers share each slice.
    """

    gpus: str | tuple[str, ...]
    source: str
    per_worker: int | None
    amd_mask: str
    timeout: float
    templates: tuple[tuple[str, str], ...]
    cpu_workers: int = 0
    slots: int = 1


def parse(
    options: argparse.Namespace, ini: Callable[[str], Any], environ: Mapping[str, str]
) -> GpuSettings:
    """The settings.

    :param options: the command line's, parsed as far as plugins are known.
    :param ini: gives an ini value as the file has it: in TOML numbers, booleans and lists, too.
    :raises pytest.UsageError: naming the option and what it takes.
    """

    def said(name: str) -> tuple[str, str]:
        return _said(options, ini, name)

    source, gpus = said("gpus")
    if not source.startswith("--") and environ.get("FKIT_GPUS"):
        source, gpus = "FKIT_GPUS", environ["FKIT_GPUS"]
    return GpuSettings(
        gpus=_checked(source, gpus, _gpus) if gpus else "auto",
        source=f"{source}={gpus}",
        per_worker=_value(said("gpus_per_worker"), _number, None),
        amd_mask=_value(said("amd_mask"), _amd_mask, AMD_MASKS[0]),
        timeout=_value(said("gpus_timeout"), _seconds, 10.0),
        templates=tuple(
            _checked("ini value fkit_env", each, check_template)
            for each in _checked("ini value fkit_env", ini("fkit_env"), parse_lines)
        ),
        cpu_workers=_value(said("cpu_workers"), parse_count, 0),
        slots=_value(said("gpu_slots"), _number, 1),
    )


def _said(options: argparse.Namespace, ini: Callable[[str], Any], name: str) -> tuple[str, str]:
    """Where a value was given, and its text, "" if it was not."""
    text = getattr(options, f"fkit_{name}", None)
    if text is not None:
        return f"--fkit-{name.replace('_', '-')}", str(text)
    return f"ini value fkit_{name}", _text(ini(f"fkit_{name}"))


def _text(value: object) -> str:
    """As it would be given to an option."""
    if value is None:
        return ""
    return ",".join(map(str, value)) if value and isinstance(value, list) else str(value)


def _value(said: tuple[str, str], check: Callable[[str], T], default: T) -> T:
    source, text = said
    return _checked(source, text, check) if text or source.startswith("--") else default


def _checked(source: str, text: Any, check: Callable[[Any], T]) -> T:
    try:
        return check(text)
    except ValueError as error:
        raise pytest.UsageError(f"pytest-fkit: {source}={text}: {error}") from None


def _gpus(text: str) -> str | tuple[str, ...]:
    if text in ("auto", "none"):
        return text
    ids = tuple(each.strip() for each in text.split(","))
    if not all(each.isdigit() or each.upper().startswith(("GPU-", "MIG-")) for each in ids):
        raise ValueError(
            "expected auto, none, or numbers and UUIDs as in 0,2 or GPU-5e21a,GPU-77b0"
        )
    if len(set(ids)) < len(ids):
        raise ValueError("a GPU is named twice")
    return ids


def _number(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ValueError("expected a number from 1 on")
    return int(text)


def _amd_mask(text: str) -> str:
    if text not in AMD_MASKS:
        raise ValueError(f"expected one of {', '.join(AMD_MASKS)}")
    return text


def _seconds(text: str) -> float:
    seconds = parse_seconds(text)
    if not seconds:
        raise ValueError("expected seconds; --fkit-gpus=none does without looking for GPUs")
    return seconds
