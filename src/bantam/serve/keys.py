"""Who may ask: keys, each with the models and the rate that it is given.

They stand in a file, or in the variable BANTAM_KEYS, a key a line, then what is said of it:

    # comment
    sk-vQ8hT2mYw0Zr5uKxNf3J
    sk-b7LpX1cEo9Gs4iWdRa6M  name=editor  models=intents,small  rate=60/min

A key without `models` may ask all of them, one without `rate` as often as it likes. Only hashes of
keys are kept.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import monotonic

from bantam.errors import BadInput

SHORTEST = 16  # characters: what is shorter may be guessed
NEW = 'make one: python -c "import secrets; print(secrets.token_urlsafe(32))"'
SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
NAME = re.compile(r"[A-Za-z0-9._-]{1,40}")


class Rate:
    """So many requests in so many seconds, all at once or spread over them."""

    def __init__(self, requests: int, seconds: int) -> None:
        self.requests, self.seconds = requests, seconds
        self._left, self._seen = float(requests), monotonic()

    def take(self) -> float:
        """0 if one more request may pass, which is counted, else the seconds until one may."""
        now = monotonic()
        gained = (now - self._seen) * self.requests / self.seconds
        self._left, self._seen = min(self.requests, self._left + gained), now
        if self._left < 1:
            return (1 - self._left) * self.seconds / self.requests
        self._left -= 1
        return 0.0


@dataclass(frozen=True)
class Key:
    """A key by its hash. `models` and `rate` are None where nothing is limited."""

    name: str
    digest: bytes = field(repr=False)
    models: frozenset[str] | None = None
    rate: Rate | None = None


# Whose request is being answered; None where no keys are asked for.
asking: ContextVar[Key | None] = ContextVar("asking", default=None)


def allowed(model: str) -> bool:
    """Whether the request that is being answered may ask this model."""
    key = asking.get()
    return key is None or key.models is None or model in key.models


def known(keys: Sequence[Key], told: bytes) -> Key | None:
    """The key that was told, if it is one. All are compared, so the time it takes tells nothing."""
    digest, found = hashlib.sha256(told).digest(), None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


def read(text: str, where: str) -> tuple[Key, ...]:
    """The keys of a text that was read from `where`. Raises BadInput; its message has no key."""
    keys: list[Key] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            keys.append(_key(words, f"{where}, line {number}", f"key-{number}"))
    if not keys:
        raise BadInput(f"{where} holds no key", f"write one a line; {NEW}")
    for what, told in (("key", [k.digest for k in keys]), ("name", [k.name for k in keys])):
        if len(set(told)) < len(told):
            raise BadInput(f"{where} has the same {what} twice", f"give each line its own {what}")
    return tuple(keys)


def _key(words: list[str], where: str, name: str) -> Key:
    secret, *said = words
    if "=" in secret and secret.partition("=")[0] in ("name", "models", "rate"):
        raise BadInput(f"{where} has no key", "begin the line with the key")
    if len(secret) < SHORTEST:
        raise BadInput(f"{where}: the key has fewer than {SHORTEST} characters", NEW)
    models = rate = None
    for word in said:
        what, _, value = word.partition("=")
        if what == "name" and NAME.fullmatch(value):
            name = value
        elif what == "models" and value.strip(","):
            models = frozenset(value.split(",")) - {""}
        elif what == "rate":
            rate = _rate(value, where)
        else:
            raise BadInput(
                f"{where}: what comes after the key is not understood",
                "write name=WORD (letters, digits, . _ -), models=ONE,OTHER or rate=60/min",
            )
    return Key(name, hashlib.sha256(secret.encode()).digest(), models, rate)


def _rate(value: str, where: str) -> Rate:
    found = re.fullmatch(r"([1-9][0-9]{0,6})/(s|min|h|d)", value)
    if not found:
        raise BadInput(f"{where}: {value:.20} is no rate", "write it as 60/min, 5/s, 1000/h or 1/d")
    return Rate(int(found[1]), SECONDS[found[2]])
