"""What the repetitions of a test say together: a rate of failures, with its interval."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from typing import Any, Iterable

from ..named_tuple import NamedTuple
from ..own import own_builtins
from ..protocol.endings import count
from .events import Event
from .history import RED

own_builtins(globals())

CONFIDENCE = 0.95

SKIPPED = "skipped"
"""The outcome of repetitions that tell nothing of how often a test fails."""

SHARED_BY_FORKED = (
    "forked repetitions share hash seed, addresses and what was imported and set up before; those "
    "in fresh interpreters share nothing"
)


class Interval(NamedTuple):
    low: float
    high: float


def interval(failed: int, times: int, confidence: float = CONFIDENCE) -> Interval:
    """The exact interval of Clopper and Pearson (1934), Biometrika 26: 404-413.

    Each end is the probability for which what was seen, or what is further away, is just as rare
    as allowed. It covers the true probability at least as often as it says.

    :param failed: how many of `times` independent repetitions failed.
    """
    tail = (1 - confidence) / 2
    low = 0.0 if failed == 0 else _solve(lambda p: _at_least(failed, times, p) > tail)
    high = 1.0 if failed == times else _solve(lambda p: _at_least(failed + 1, times, p) > 1 - tail)
    return Interval(low, high)


def _solve(is_above: Any) -> float:
    """The probability from which on this holds, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if is_above(middle) else (middle, high)
    return high


def _at_least(failed: int, times: int, probability: float) -> float:
    """How probable so many failures or more are: the regularised incomplete beta function."""
    return _incomplete_beta(failed, times - failed + 1, probability)


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """I_x(a, b), by its continued fraction, DLMF 8.17.22, https://dlmf.nist.gov/8.17#v."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges slowly there
        return 1 - _incomplete_beta(b, a, 1 - x)
    log = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x)
    front = math.exp(log + b * math.log1p(-x)) / a
    # Lentz's method, as modified by Thompson and Barnett: J. Comput. Phys. 64 (1986), 490-509.
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)
    found = d
    for m in range(1, 10_000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + numerator * d or tiny)
            c = 1 + numerator / c or tiny
            step = c * d
            found *= step
        if abs(step - 1) < 1e-14:
            break
    return front * found


class RepeatResult(NamedTuple):
    """All repetitions of a test.

    :param times: how often it was run.
    :param failed: how often of these it failed.
    :param wanted: how often it was to run, 0 where nobody said.
    :param fresh: how many of those that were not skipped had a fresh interpreter each.
    :param fresh_failed: how many of those failed.
    :param shared: how many shared a process, and `cause`: why.
    :param others: how many were skipped and the like, by outcome.
    :param first: the number of the first that failed, from 0, -1 if none did.
    :param stands: the number of the one whose reports are the verdict; `seed`: of that.
    :param first_fresh: whether that one had a fresh interpreter.
    :param stopped: why there were no more, "" if there were to be none.
    :param once: why the test is not repeated, "" if it is.
    """

    times: int = 0
    failed: int = 0
    wanted: int = 0
    fresh: int = 0
    fresh_failed: int = 0
    shared: int = 0
    cause: str = ""
    others: tuple[tuple[str, int], ...] = ()
    first: int = -1
    stands: int = 0
    seed: int = 0
    first_fresh: bool = False
    stopped: str = ""
    once: str = ""

    @property
    def ran(self) -> int:
        """How many were not skipped."""
        return self.times - dict(self.others).get(SKIPPED, 0)

    @property
    def forked(self) -> int:
        return self.ran - self.fresh

    def event(self) -> Event:
        """The same for a journal, with the interval in per cent."""
        low, high = interval(self.failed, self.ran)
        found = {
            **self._asdict(), "others": dict(self.others), "low": round(100 * low, 3),
            "high": round(100 * high, 3),
        }  # fmt: skip
        needed = ("times", "failed", "low", "high", "first", "stands", "seed")
        return {name: it for name, it in found.items() if it or name in needed}


def repeated_again(kept: Event) -> RepeatResult:
    """The result that a journal kept; anybody may have written it."""
    known = {name: it for name, it in kept.items() if name in RepeatResult._fields}
    for name, it in known.items():
        if isinstance(it, float):
            known[name] = int(it)
    others = {name: int(number) for name, number in known.get("others", {}).items()}
    known["others"] = ()
    found = RepeatResult(**known)
    times = max(found.times, 1)
    failed = min(max(found.failed, 0), times)
    if SKIPPED in others:
        others[SKIPPED] = min(max(others[SKIPPED], 0), times - failed)
    ran = times - others.get(SKIPPED, 0)
    fresh = min(max(found.fresh, 0), ran)
    fresh_failed = max(min(found.fresh_failed, fresh, failed), failed - (ran - fresh))
    return found._replace(
        times=times, fresh=fresh, failed=failed, fresh_failed=fresh_failed,
        others=tuple(others.items()),
    )  # fmt: skip


def of_events(repetitions: Iterable[Event]) -> RepeatResult:
    """The result so far of a test without a verdict, since its run was cut off."""
    found = [each["repetition"] for each in repetitions]
    failed = [each for each in found if each["outcome"] in RED]
    fresh = [each for each in found if each.get("fresh") and each["outcome"] != SKIPPED]
    others = Counter(each["outcome"] for each in found if each["outcome"] not in (*RED, "passed"))
    return RepeatResult(
        times=len(found),
        failed=len(failed),
        fresh=len(fresh),
        fresh_failed=sum(each["outcome"] in RED for each in fresh),
        others=tuple(others.most_common()),
        stopped="the journal was cut off",
    )


def rate(failed: int, times: int) -> str:
    """As in "failed 3 of 200 (1.5 %, 95 %: 0.3 to 4.3)"."""
    low, high = interval(failed, times)
    share = _percent(failed / times)
    return f"failed {failed} of {times} ({share} %, 95 %: {_percent(low)} to {_percent(high)})"


def _percent(share: float) -> str:
    per_cent = 100 * share
    edge = min(per_cent, 100 - per_cent)  # what is rare is not to look as if it never happened
    digits = 1 if edge >= 0.1 or edge < 1e-9 else 1 - math.floor(math.log10(edge))
    return f"{per_cent:.{digits}f}".rstrip("0").rstrip(".") if per_cent >= 1e-9 else "0"


def words(repeated: RepeatResult) -> str:
    if repeated.once:
        return f"not repeated, because of {repeated.once}"
    if not repeated.ran:
        return f"skipped {count(repeated.times, 'time')}"
    others = "".join(f", {outcome} {number}" for outcome, number in repeated.others)
    return f"{rate(repeated.failed, repeated.ran)}{others}"


def details(repeated: RepeatResult) -> list[str]:
    """What else there is to say: how the repetitions were made, and why there were no more."""
    if repeated.once:
        return []
    found = []
    if repeated.stopped:
        of = f" of {repeated.wanted}" if repeated.wanted else ""
        found.append(f"stopped after {repeated.times}{of}: {repeated.stopped}")
    if repeated.fresh and repeated.failed and repeated.forked:
        failed = repeated.failed - repeated.fresh_failed
        forked = f"forked: {rate(failed, repeated.forked)}"
        fresh = f"in fresh interpreters: {rate(repeated.fresh_failed, repeated.fresh)}"
        found += [forked, fresh]
    if repeated.shared:
        found.append(
            f"{count(repeated.shared, 'repetition')} shared a process, because of {repeated.cause}"
        )
    return found


def how_first(repeated: RepeatResult) -> str:
    """Which repetition failed first, and how that was made."""
    how = "in a fresh interpreter" if repeated.first_fresh else "forked"
    how = "in a shared process" if repeated.shared and not repeated.first_fresh else how
    return f"first in repetition {repeated.first + 1}, {how}, with seed {repeated.seed}"


def again(repeated: RepeatResult, nodeid: str) -> str:
    """The command that makes the first failure again, as far as its seed decides."""
    return f"{_hashes(repeated)}pytest --fkit {_seed(repeated)} {shlex.quote(nodeid)}"


def with_seed(command: str, repeated: RepeatResult) -> str:
    """A command that runs a test, such that it makes the first failure again."""
    return f"{_hashes(repeated)}{command} {_seed(repeated)}"


def _seed(repeated: RepeatResult) -> str:
    return f"--fkit-repeat=1 --fkit-repeat-seed={repeated.seed}"


def _hashes(repeated: RepeatResult) -> str:
    return f"PYTHONHASHSEED={repeated.seed} " if repeated.first_fresh else ""
