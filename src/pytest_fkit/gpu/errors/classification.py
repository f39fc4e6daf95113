"""Which failures are the fault of a GPU or of the network, not the test's.

By plugins, the user's patterns, the table, and the classes of exceptions.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Sequence

import pytest

from ...compat.guarded_hooks import record_warning
from ...own import own_builtins
from ...protocol.event_file import NETWORK, OF_MACHINE, GpuError
from ...protocol.plain_values import carriable
from ..slices.ownership import owned_by
from .error_table import CATEGORIES, FINAL, OTHER, Category
from .failure import Failure
from .patterns import NAMES, Pattern, user_patterns
from .scarcity import NONE_THERE, asks_for_others, lacks_any, wants_several
from .wording import exact, fatal, number_in, points, raised, said, vague

own_builtins(globals())

_BY_NAME = {each.name: each for each in (*CATEGORIES, Category(NETWORK))}
_BY_CODE = {code: each for each in CATEGORIES for code in each.codes}
_OTHER = _BY_NAME[OTHER]
_MISSING = _BY_NAME["missing"]

_END = 6000
"""Characters that are searched at each end of a message."""
_DEATH_END = 100_000
"""The same for the output of a process that died."""

_ACCELERATOR_ERROR = "torch.AcceleratorError"
_ASSERTION = "builtins.AssertionError"

# Their messages quote values, keys, names, a command: an error mentioned there did not happen.
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

# Classes of GPU libraries, whose messages need not name them: CuPy's and numba's, PyTorch's
# AcceleratorError, PyCUDA's, cuda.core's.
_SPEAKING = re.compile(
    r"\.(?:CUDA|Cuda)(?:API|Driver|Runtime)?Error$|^torch\.AcceleratorError$"
    r"|^pycuda\._driver\.\w*Error$"
)

# What an assertion's message may be as a whole: `assert torch.cuda.is_available(), "no GPU"`.
_SAYS = (
    (re.compile(rf"\W*({NONE_THERE})\W*", re.IGNORECASE), _MISSING),
    (re.compile(r"CUDA unavailable, invalid device \S+ requested"), _MISSING),  # Ultralytics
    # torch/cuda/__init__.py. But "Torch not compiled with CUDA enabled" would be so everywhere.
    (re.compile(r"Invalid device id"), _BY_NAME["ordinal"]),
)


class Classifier:
    """Classifies failures of tests.

    :param gpus: whether they may be errors of GPUs, which their worker owns.
    :param network: whether they may be errors of the network.
    :param machines: whether they may be errors of this machine, since there are others.
    """

    def __init__(
        self,
        config: pytest.Config,
        gpus: bool = True,
        network: bool = False,
        machines: bool = False,
    ) -> None:
        self._config = config
        self._gpus = gpus
        self._machines = machines
        self._network_error: Callable[[Failure], str | None] | None = None
        if network:
            from .network import network_error

            self._network_error = network_error
        owned = owned_by(config)
        self._vendor = "" if owned is None else owned.vendor
        patterns = user_patterns(config)
        self._patterns = [each for each in patterns if each.category != NETWORK]
        self._network_patterns = [each for each in patterns if each.category == NETWORK]

    def error(self, item: pytest.Item, failure: Failure, event: str = "") -> GpuError | None:
        """The error that the failure is, None if it is none.

        :param event: see :class:`.GpuError`.
        """
        found, _ = self.of_death(item, failure)
        return None if found is None else found._replace(event=event)

    def of_death(self, item: pytest.Item, failure: Failure) -> tuple[GpuError | None, bool]:
        """The GPU error of a process that died, if any; and whether its death is unexplained."""
        said = self._asked(item, failure)
        if said is False:
            return None, False
        network_error = None if failure.death or failure.skip else self._network_error
        if said is None:
            found = self._recognized(failure, network_error)
        else:
            network = network_error is not None
            counts = {NETWORK: network, OF_MACHINE: self._machines}.get(said, self._gpus)
            found = named(said, failure) if counts else None
        return found, found is None

    def _recognized(
        self, failure: Failure, network_error: Callable[[Failure], str | None] | None
    ) -> GpuError | None:
        """The error by its patterns, the user's first.

        :param network_error: None where it can't be one of the network.
        """
        if network_error is not None:
            for link in (failure, *failure.causes):
                if _own(_searchable(link), self._network_patterns) is not None:
                    return _error(_BY_NAME[NETWORK], link.text)
        found = None
        if self._gpus or self._machines:
            found = classify(failure, self._patterns, self._machines, self._vendor)
            if found is not None and not (self._gpus or found.category == OF_MACHINE):
                found = None
        if found is not None or network_error is None:
            return found
        text = network_error(failure)
        return None if text is None else _error(_BY_NAME[NETWORK], text)

    def of_collection(self, failure: Failure) -> GpuError | None:
        """The GPU error of a module or a class; the hook is asked about tests only."""
        return classify(failure, self._patterns, vendor=self._vendor)

    def _asked(self, item: pytest.Item, failure: Failure) -> Any:
        """The answer of the hook pytest_fkit_classify: one of NAMES, False, or None."""
        try:
            said = item.ihook.pytest_fkit_classify(item=item, failure=failure)
        except Exception as error:  # noqa: BLE001 (a plugin's hook may raise anything)
            self._warn(item, f"raised {error!r}")
            return None
        if said is None or said is False or said in NAMES:
            return said
        expected = ", ".join(map(repr, NAMES))
        self._warn(item, f"answered {said!r}; expected None, False, or one of {expected}")
        return None

    def _warn(self, item: pytest.Item, text: str) -> None:
        record_warning(self._config, f"the hook pytest_fkit_classify {text}", item.nodeid)


def classify(
    failure: Failure,
    patterns: Sequence[Pattern] = (),
    machines: bool = False,
    vendor: str = "",
) -> GpuError | None:
    """The GPU error that a failure is, None if it is none.

    :param patterns: the user's own, which are tried first.
    :param machines: whether errors of the machine count as well.
    :param vendor: whose GPUs the test had, as in :mod:`..devices`; "" if unknown.
    """
    if not machines:
        patterns = [each for each in patterns if each.category != OF_MACHINE]
    if failure.skip:
        return _of_skip(failure.text, patterns, vendor)
    if failure.death:
        return _of_death(failure.stderr, patterns)
    chain = [failure, *failure.causes]
    for link in chain:
        own = _own(_searchable(link), patterns)
        if own is not None:
            return _error(own[0], link.text)
    found = [(category, _told(link, category)) for link in chain for category in _category(link)]
    if not found and any(map(points, chain)):
        found = [
            (category, text)
            for printed in dict.fromkeys(text for link in chain for text in _printed(link))
            for text in raised(printed)
            for category in _said_by(text)
        ]
        # The other process is gone; this one can still use its GPUs.
        return _first_of(found, machines, poisons=False)
    return _first_of(found, machines)


def _first_of(
    found: Sequence[tuple[Category, str]], machines: bool, poisons: bool = True
) -> GpuError | None:
    """The most exact one, None if that is no GPU error, nor one of the machine that counts."""
    counting = [each for each in CATEGORIES if each.is_gpu or (each.of_machine and machines)]
    telling = [each for each in found if each[0] in counting or each[0].explains]
    if not telling:
        return None
    category, text = min(telling, key=lambda each: CATEGORIES.index(each[0]))
    if category not in counting:
        return None
    error = _error(category, text)._replace(doubtful=category.doubtful)
    return error if poisons else error._replace(poisons=False)


def _told(failure: Failure, category: Category) -> str:
    """The message; of one with another process's traceback, what was raised there, if that is it.

    Where there is no message, the name of the class.
    """
    there = (text for text in raised(failure.text) if category in _said_by(text))
    return next(there, failure.text.strip()) or failure.types[0].rpartition(".")[2]


def _printed(failure: Failure) -> tuple[str, ...]:
    """Texts with what ended another process: its output, and a message that has its traceback."""
    return (failure.text, failure.printed) if points(failure) else (failure.printed,)


def named(category: str, failure: Failure) -> GpuError:
    """The GPU error of a failure whose category is known, one of NAMES."""
    return _error(_BY_NAME[category], failure.text)


def _error(category: Category, text: str, final: bool = False) -> GpuError:
    return GpuError(
        category.name,
        carriable(_first_line(text)),
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
        message = _first_line(failure.text)
        return [category for regex, category in _SAYS if regex.fullmatch(message)]
    if failure.error_code is not None and _ACCELERATOR_ERROR in failure.types:
        return [_BY_CODE.get(failure.error_code, _OTHER)]
    return _said_by(_searchable(failure))


def _said_by(text: str) -> list[Category]:
    """The row of the table that a text matches, if any."""
    text = _ends(text, _END)
    for category, regex in exact():
        if regex.search(text):
            return [category]
    number = number_in(text)
    if number in _BY_CODE:
        return [_BY_CODE[number]]
    return [category for category, regex in vague() if regex.search(text)][:1]


def _ends(text: str, characters: int) -> str:
    return text if len(text) <= 2 * characters else f"{text[:characters]}\n{text[-characters:]}"


def _searchable(failure: Failure) -> str:
    """The names of the classes, and the message without what it only quotes."""
    if not _QUOTING.isdisjoint(failure.types):
        return ""
    speaker = "CUDA: " if any(map(_SPEAKING.search, failure.types)) else ""
    return "\n".join((*failure.types, speaker + said(failure.text)))


def _of_skip(reason: str, patterns: Sequence[Pattern], vendor: str) -> GpuError | None:
    own = _own(reason, patterns)
    if own is not None:
        return _error(own[0], reason)
    if wants_several(reason) or asks_for_others(reason, vendor):
        return None
    without = lacks_any(_first_line(reason)) or dict(exact())[_MISSING].search(reason)
    return _error(_MISSING, reason) if without else None


def _of_death(stderr: str, patterns: Sequence[Pattern]) -> GpuError | None:
    own = _own(stderr, patterns)
    if own is not None:
        return _error(own[0], _line_at(stderr, own[1]))
    stderr = _ends(stderr, _DEATH_END)
    for category, regex in fatal():
        found = regex.search(stderr)
        if found:
            line = _line_at(stderr, found.start())
            error = _error(category, line, category.deaths == FINAL)
            return error._replace(doubtful=category.doubtful)
    return None


def _line_at(text: str, position: int) -> str:
    return text[text.rfind("\n", 0, position) + 1 :].partition("\n")[0]


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].strip()
