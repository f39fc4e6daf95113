"""Which failures are a GPU's and not the test's."""

from __future__ import annotations

import functools
import re
from typing import Iterable, Sequence

from ..own import own_builtins
from .error_table import CATEGORIES, FINAL, OTHER, Category
from .errors import Failure, GpuError
from .patterns import Pattern

own_builtins(globals())

_BY_NAME = {each.name: each for each in CATEGORIES}
_BY_CODE = {code: each for each in CATEGORIES for code in each.codes}
_OTHER = _BY_NAME[OTHER]
_MISSING = _BY_NAME["missing"]


@functools.lru_cache(maxsize=None)
def _compiled() -> tuple[tuple[Category, re.Pattern[str]], ...]:
    """When they are needed: most workers meet no failure that could be one."""
    return tuple((each, re.compile("|".join(each.patterns), re.IGNORECASE)) for each in CATEGORIES)


_ACCELERATOR_ERROR = "torch.AcceleratorError"
_ASSERTION = "builtins.AssertionError"

# Their messages quote values, keys, names, a command: what they mention did not happen.
_QUOTING = {
    _ASSERTION,
    "builtins.AttributeError",
    "builtins.LookupError",
    "builtins.NameError",
    "builtins.SyntaxError",
    "_pytest.outcomes.OutcomeException",  # pytest.fail(), and pytest.raises() in vain
    "doctest.DocTestFailure",
    "subprocess.SubprocessError",
}
_QUOTED = re.compile(r"^(?:\w+\.)*(?:AssertionError|Failed)\b")
_TRACEBACK = "Traceback (most recent call last):"

# What an assertion's message may be as a whole: `assert torch.cuda.is_available(), "no GPU"`.
_NONE_THERE = (
    r"no (\w+ )?(gpus?|devices?)( (is |are )?(found|available|visible|detected))?"
    r"|(gpus?|cuda|rocm|hip)( devices?)?( is| are| was)?"
    r" (not (found|available|visible|detected)|unavailable|missing|required)"
)
_SAYS = (
    (re.compile(rf"\W*({_NONE_THERE})\W*", re.IGNORECASE), _MISSING),
    (re.compile(r"Invalid device id"), _BY_NAME["ordinal"]),  # torch/cuda/__init__.py
)

# Reasons of skips where there is no GPU at all: as a whole, since "requires CUDA 12" is another
# thing. transformers and accelerate: "test requires CUDA", "test requires accelerator"; PyTorch's
# TEST_SKIPS: "CUDA is not available.", "Need at least 1 CUDA device".
_SKIPS_WITHOUT = re.compile(
    rf"\W*((skip\w*( this| the)?( tests?)?\W+)?((if|since|because|as) )?({_NONE_THERE})"
    r"|((this |the )?tests? )?(requires?|needs?|only runs? on|only runs? with)"
    r"( an?| the| at least (one|1)| 1)?( (cuda|nvidia|rocm|hip|amd|or|a|an))*"
    r" (cuda|rocm|hip|gpus?|accelerators?)( (devices?|gpus?|accelerators?))?"
    r"( to run| to be available)?)\W*",
    re.IGNORECASE,
)
_SKIPS_WITH_TOO_FEW = re.compile(
    r"multi|at least (?!1\b|one\b)\w+|\b([2-9]|1\d) |more than|\btwo\b|several|peer", re.IGNORECASE
)


def classify(failure: Failure, patterns: Sequence[Pattern] = ()) -> GpuError | None:
    """What kind of GPU error a failure is, None if it is none.

    :param patterns: the user's own, which are tried first.
    """
    if failure.skip:
        return _of_skip(failure.text, patterns)
    if failure.death:
        return _of_death(failure.stderr, patterns)
    chain = [failure, *failure.causes]
    for link in chain:
        own = _own(_searchable(link), patterns)
        if own is not None:
            return _error(own[0], link.text)
    found = [(category, link) for link in chain for category in _category(link)]
    if not found:
        return None
    category, link = min(found, key=lambda each: CATEGORIES.index(each[0]))
    return _error(category, _first_line(link.text)) if category.is_gpu else None


def named(category: str, failure: Failure) -> GpuError:
    """The GPU error that somebody says a failure is.

    :param category: one of NAMES.
    """
    return _error(_BY_NAME[category], failure.text)


def _error(category: Category, text: str, final: bool = False) -> GpuError:
    return GpuError(
        category.name,
        _first_line(text),
        category.counts and not final,
        category.probe,
        category.poisons,
        not final,
        category.alone,
    )


def _own(text: str, patterns: Sequence[Pattern]) -> tuple[Category, int] | None:
    """The category and place of the first of the user's patterns that is found."""
    for pattern in patterns:
        found = pattern.regex.search(text)
        if found:
            return _BY_NAME[pattern.category], found.start()
    return None


def _category(failure: Failure) -> list[Category]:
    if _ASSERTION in failure.types:
        said = _first_line(failure.text)
        return [category for regex, category in _SAYS if regex.fullmatch(said)]
    if failure.error_code is not None and _ACCELERATOR_ERROR in failure.types:
        return [_BY_CODE.get(failure.error_code, _OTHER)]
    text = _searchable(failure)
    return [each for each, regex in _compiled() if regex.search(text)][:1]


def _searchable(failure: Failure) -> str:
    """The names of the classes and the message, without what is only quoted there."""
    if not _QUOTING.isdisjoint(failure.types):
        return ""
    text = failure.text
    if _TRACEBACK in text:
        text = "\n".join(_said_in_tracebacks(text.splitlines()))
    return "\n".join((*failure.types, text))


def _said_in_tracebacks(lines: Iterable[str]) -> Iterable[str]:
    """The messages in the text of tracebacks, neither the source shown there nor assertions."""
    heard = True
    for line in lines:
        if _TRACEBACK in line:
            heard = True
        elif _QUOTED.match(line):
            heard = False
        elif heard and not line.startswith(" "):
            yield line


def _of_skip(reason: str, patterns: Sequence[Pattern]) -> GpuError | None:
    own = _own(reason, patterns)
    if own is not None:
        return _error(own[0], reason)
    if _SKIPS_WITH_TOO_FEW.search(reason):
        return None
    without = _SKIPS_WITHOUT.fullmatch(_first_line(reason)) or dict(_compiled())[_MISSING].search(
        reason
    )
    return _error(_MISSING, reason) if without else None


def _of_death(stderr: str, patterns: Sequence[Pattern]) -> GpuError | None:
    own = _own(stderr, patterns)
    if own is not None:
        return _error(own[0], _line_at(stderr, own[1]))
    for category, regex in _compiled():
        found = regex.search(stderr) if category.deaths else None
        if found:
            return _error(category, _line_at(stderr, found.start()), category.deaths == FINAL)
    return None


def _line_at(text: str, position: int) -> str:
    return text[text.rfind("\n", 0, position) + 1 :].partition("\n")[0]


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].strip()
