"""Secrets in texts of a run, found by what they look like and by what they are called.

Journals and reports are kept for long and shown to many. This is no proof that nothing is left: a
secret that looks like any word, and is not named, stays.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Iterable, Mapping, Sequence

from ..own import own_builtins
from .events import Event

own_builtins(globals())

MASK = "***"

SHORTEST = 6
"""Shortest value of a variable that is looked for in texts: shorter ones are parts of words."""

# Their issuers gave them these forms so that they can be found. In most texts a search for their
# begin is enough.
_FORMS = (
    *((f"gh{each}_", "[A-Za-z0-9]{20,255}") for each in "oprsu"),  # GitHub
    ("github_pat_", "[A-Za-z0-9_]{20,255}"),
    *((f"gl{each}-", "[A-Za-z0-9_.-]{16,255}")  # GitLab
      for each in ("pat", "dt", "rt", "cbt", "ptt", "ft", "soat", "imt", "agent")),
    *((each, "[A-Z0-9]{16}") for each in ("AKIA", "ASIA", "ABIA", "ACCA")),  # AWS
    *((f"xox{each}-", "[A-Za-z0-9-]{10,255}") for each in "abeprs"),  # Slack
    ("xapp-", "[A-Za-z0-9-]{10,255}"),
    ("hf_", "[A-Za-z0-9]{24,64}"), ("api_org_", "[A-Za-z0-9]{24,64}"),  # Hugging Face
    ("sk-", "[A-Za-z0-9_-]{20,255}"), ("nvapi-", "[A-Za-z0-9_-]{40,128}"),
    *((f"{kind}_{mode}_", "[A-Za-z0-9]{16,255}") for kind in ("rk", "sk")
      for mode in ("live", "test")),
    ("AIza", "[A-Za-z0-9_-]{35}"), ("ya29.", "[A-Za-z0-9_-]{20,1000}"),  # Google
    ("npm_", "[A-Za-z0-9]{36}"), ("pypi-", "[A-Za-z0-9_-]{50,500}"),
    ("dckr_pat_", "[A-Za-z0-9_-]{20,64}"), ("dop_v1_", "[a-f0-9]{64}"),
    ("eyJ", r"[A-Za-z0-9_-]{8,4000}\.eyJ[A-Za-z0-9_-]{8,8000}(?:\.[A-Za-z0-9_-]{0,4000})?"),  # JWT
)  # fmt: skip
_TOKENS = tuple(
    (begin, re.compile(rf"(?<![A-Za-z0-9_-]){re.escape(begin)}{rest}(?![A-Za-z0-9])"))
    for begin, rest in _FORMS
)
_KEY_BLOCK = re.compile(
    r"(-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY-----).*?"
    r"(-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY-----|\Z)",
    re.DOTALL,
)

_WORDS = (
    "token", "secret", "passwd", "password", "passphrase", "passcode", "pwd", "key", "credential",
    "credentials", "auth", "signature", "sig", "cookie",
)  # fmt: skip
"""The ends of names after which a secret may be; `_is_secret` decides by the whole name."""

_SEPARATOR_AND_VALUE = (
    r"(?P<between>['\"]?\s{0,3}(?:=>|[=:])\s{0,3}(?:[bru]{1,2}(?=['\"]))?)"
    r"(?P<value>'[^'\n]{1,4000}'|\"[^\"\n]{1,4000}\"|[^\s'\",;&)}\]]{1,4000})"
)
_MAY_FOLLOW = frozenset("'\" \t\n=:")
_FOLLOWS = re.compile(_SEPARATOR_AND_VALUE)
_NAME_BEFORE = re.compile(r"[A-Za-z0-9_.-]*\Z")
_LONGEST_NAME = 80

_BEARER = re.compile(
    r"(?P<before>\b(?:bearer|(?:proxy-)?authorization['\"]?\s{0,3}[:=]\s{0,3}['\"]?"
    r"(?:basic|bearer|token|digest|negotiate)?)\s{1,3})(?P<value>[A-Za-z0-9._~+/=-]{12,4000})",
    re.IGNORECASE,
)
_URL = re.compile(r"://(?P<user>[^\s/@:'\"<>]{0,255})(?P<password>:[^\s/@'\"<>]{0,1000})?@")
_CUT = re.compile(r"\n\[\.\.\. \d+ characters cut \.\.\.\]\n")
_WORD_AFTER, _WORD_BEFORE = re.compile(r"\S{0,300}"), re.compile(r"\S{0,300}\Z")

_ALWAYS = ("secret", "passwd", "password", "passphrase", "passcode", "apikey", "credentials")
_KEYS = (
    "api", "access", "private", "secret", "auth", "encryption", "signing", "account", "ssh",
    "client", "master", "service", "storage", "subscription", "license",
)  # fmt: skip
_OF_TOKENS = (
    "access", "api", "auth", "bearer", "refresh", "session", "security", "csrf", "id", "ci", "job",
    "bot", "user", "personal", "deploy", "github", "gitlab", "gh", "hf", "hub", "huggingface",
    "registry", "write", "read", "admin", "x",
)  # fmt: skip

_NOTHING = re.compile(
    r"(?:none|null|nil|true|false|undefined|str|int|bytes|bool|float|any|optional|string|\.{2,}|"
    r"\*+|x{3,}|<[^<>]*>|\$\{?\w*\}?|%\w*%?|\{\w*\}|-?[0-9.]{1,9})\Z",
    re.IGNORECASE,
)
_RANDOM = re.compile(r"(?=[^ 0-9]*[0-9])(?=[^ A-Za-z]*[A-Za-z])[^ ]+\Z")
_CODE = re.compile(r"[A-Za-z_][\w.]*(?:\(|\[)|(?:self|os|settings|config|args|cls)\.|@|f['\"]")


class Masking:
    """Masks secrets.

    :param more: what the user adds, see :func:`..config.values.parse_mask`: names of variables,
        options and fields whose values are secrets, or regular expressions of secrets.
    :param values: secrets themselves, such as values of variables.
    """

    def __init__(self, more: Sequence[tuple[str, str]], values: Iterable[str] = ()) -> None:
        # The longest first, of which another may be a part.
        known = {each for each in values if len(each) >= SHORTEST}
        self._values = sorted(known, key=len, reverse=True)
        self._patterns = [re.compile(pattern) for _, pattern in more if pattern]
        wanted = "|".join(_glob(name) for name, _ in more if name)
        self._names = re.compile(rf"(?:{wanted})\Z", re.IGNORECASE) if wanted else None
        named = rf"(?P<name>(?<![A-Za-z0-9_-])(?:{wanted})){_SEPARATOR_AND_VALUE}"
        self._named_more = re.compile(named, re.IGNORECASE) if wanted else None

    def text(self, text: str) -> str:
        for value in self._values:
            text = text.replace(value, MASK)
        for pattern in self._patterns:
            text = pattern.sub(MASK, text)
        if "characters cut ...]" in text:
            text = _without_cut_words(text)
        if self._named_more is not None:
            text = self._named_more.sub(_always_masked, text)
        if "PRIVATE KEY-----" in text:
            text = _KEY_BLOCK.sub(rf"\1{MASK}\2", text)
        if "://" in text and "@" in text:
            text = _URL.sub(_url, text)
        for begin, token in _TOKENS:
            if begin in text:
                text = token.sub(MASK, text)
        lower = _lower(text)
        if "bearer" in lower or "authorization" in lower:
            text = _BEARER.sub(_after, text)
            lower = _lower(text)
        return _without_named(text, lower)

    def arguments(self, arguments: Sequence[str]) -> list[str]:
        """A command line; the value of an option may be an argument of its own."""
        found: list[str] = []
        is_value = False
        for each in arguments:
            masked = MASK if is_value and not each.startswith("-") else self.text(each)
            is_value = each.startswith("-") and "=" not in each and self.is_named(each.lstrip("-"))
            found.append(masked)
        return found

    def is_named(self, name: str) -> bool:
        """Whether what has this name is a secret, whatever it looks like."""
        if self._names is not None and self._names.match(name):
            return True
        return _is_secret(_words(name)) is True

    def value(self, value: Any, depth: int = 0) -> Any:
        """Texts in a value of JSON, keys of objects as they are."""
        if isinstance(value, str):
            return self.text(value)
        if depth < 30:
            if isinstance(value, dict):
                return {
                    key: MASK
                    if isinstance(each, str) and each and self.is_named(key)
                    else self.value(each, depth + 1)
                    for key, each in value.items()
                }
            if isinstance(value, (list, tuple)):
                return [self.value(each, depth + 1) for each in value]
        return value

    def event(self, happened: Event) -> Event:
        """An event; the names of tests, workers and files stay, since events are joined by them."""
        if happened["event"] in _WITHOUT_TEXTS:
            return happened
        return _MASKS.get(happened["event"], Masking._fields)(self, happened)

    def _run(self, run: Event) -> Event:
        return {
            **run,
            "arguments": self.arguments(run.get("arguments", ())),
            **{name: self.value(run[name]) for name in ("options", "job") if name in run},
        }

    def _attempt(self, attempt: Event) -> Event:
        found: Event = {
            name: self.value(attempt[name])
            for name in ("leftovers", "metrics", "shared", "xids", "category", "message")
            if name in attempt
        }
        return {**attempt, **found} if found else attempt

    def _verdict(self, verdict: Event) -> Event:
        reports = verdict.get("reports", ())
        said = verdict.keys() & {"message", "repeated"}
        if not said and all(each.keys() <= _HARMLESS for each in reports):
            return verdict  # as of most tests
        found = {**verdict, "reports": [self._fields(each) for each in reports]}
        for name in said:
            found[name] = self.value(verdict[name])
        return found

    def _fields(self, told: Event) -> Event:
        found = {name: self.value(value) for name, value in told.items() if name not in _HARMLESS}
        return {**told, **found}


_HARMLESS = frozenset(
    {
        "event", "wall", "mono", "test", "worker", "gpus", "to", "to_gpus", "when", "outcome",
        "duration", "start", "location", "rerun", "pid", "attempt", "xid", "seconds", "phase",
        "interrupted", "unstarted",
    }
)  # fmt: skip

_WITHOUT_TEXTS = frozenset(
    {"collection", "resume", "start", "worker_up", "gpus", "session_timeout", "end"}
)
"""Events without any text but names; whatever else comes to be is masked."""

_MASKS: dict[str, Callable[[Masking, Event], Event]] = {
    "run": Masking._run,
    "attempt": Masking._attempt,
    "verdict": Masking._verdict,
}


def of_environment(environment: Mapping[str, str], more: Sequence[tuple[str, str]] = ()) -> Masking:
    """What masks the secrets in variables, too, wherever their values are."""
    named = Masking(more)
    values = [
        value
        for name, value in environment.items()
        if named.is_named(name) and not _NOTHING.match(value) and not value.startswith(("/", "~"))
    ]
    return Masking(more, values)


def _glob(name: str) -> str:
    return "[A-Za-z0-9_.-]{0,80}".join(map(re.escape, name.split("*")))


def _words(name: str) -> list[str]:
    """As in "X-Api-Key", "apiKey" and "API_KEY"."""
    parts = re.split(r"[_.\-]+|(?<=[a-z0-9])(?=[A-Z])", name)
    return [part.lower() for part in parts if part]


def _is_secret(words: Sequence[str]) -> bool | None:
    """Whether what has a name of these words is a secret: None if its look has to say it."""
    if not words:
        return False
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if last in _ALWAYS or last.endswith(("password", "passwd", "secret", "apikey")):
        return True
    if last in ("token", "authtoken"):
        return True if before in _OF_TOKENS else None
    if last == "key":
        return before in _KEYS
    if last in ("pwd", "auth", "signature", "sig", "credential", "cookie"):
        return None
    return False


def _lower(text: str) -> str:
    """In lower case, each character where it was."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(each.lower() if len(each.lower()) == 1 else each for each in text)


def _without_named(text: str, lower: str) -> str:
    """Without the values of names that say that they are secrets."""
    ends = set()
    for word in _WORDS:
        at = lower.find(word)
        while at >= 0:
            ends.add(at + len(word))
            at = lower.find(word, at + len(word))
    parts: list[str] = []
    done = 0
    for end in sorted(ends):
        if text[end : end + 1] not in _MAY_FOLLOW:
            continue
        before = _NAME_BEFORE.search(text[max(end - _LONGEST_NAME, 0) : end])
        name = before[0] if before else ""
        is_secret = _is_secret(_words(name))
        follows = _FOLLOWS.match(text, end) if end >= done and is_secret is not False else None
        if follows is not None and _is_secret_value(name, is_secret, follows["value"]):
            parts += [text[done : follows.start("value")], _in_its_quotes(follows["value"])]
            done = follows.end()
    return "".join([*parts, text[done:]]) if parts else text


def _is_secret_value(name: str, is_secret: bool | None, value: str) -> bool:
    """Whether a value is one.

    :param is_secret: what its name says.
    """
    is_quoted = value[0] in "'\""
    inner = value[1:-1] if is_quoted else value
    in_capitals = name.isupper() and len(name) > 5
    if is_secret is None and not in_capitals and not _looks_random(inner):
        return False
    if _NOTHING.match(inner):
        return False
    return is_quoted or in_capitals or not _CODE.match(inner)


def _always_masked(match: re.Match[str]) -> str:
    return f"{match['name']}{match['between']}{_in_its_quotes(match['value'])}"


def _in_its_quotes(value: str) -> str:
    """The mask, in the quotes that a value has."""
    quote = value[0] if value[0] in "'\"" else ""
    return f"{quote}{MASK}{quote}"


def _looks_random(value: str) -> bool:
    return len(value) >= 12 and _RANDOM.match(value) is not None


def _after(match: re.Match[str]) -> str:
    return f"{match['before']}{MASK}"


def _url(match: re.Match[str]) -> str:
    user, password = match["user"], match["password"]
    if password and len(password) > 1:
        return f"://{user}:{MASK}@"
    if len(user) >= 16 and _looks_random(user):
        return f"://{MASK}@"
    return match[0]


def _without_cut_words(text: str) -> str:
    """Without the words that a journal cut through: half of a secret may be left of one."""
    parts: list[str] = []
    end = 0
    for cut in _CUT.finditer(text):
        before = text[end : cut.start()]
        word = _WORD_BEFORE.search(before, max(len(before) - 300, 0))
        parts += [before[: word.start()] if word else before, cut[0]]
        after = _WORD_AFTER.match(text, cut.end())
        end = after.end() if after else cut.end()
    return "".join([*parts, text[end:]])
