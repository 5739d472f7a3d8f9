"""Static bearer tokens: a file that names them by their SHA-256, read again whenever it changes."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from contracts.errors import FoothillError
from contracts.headers import Priority
from contracts.rates import Rate
from contracts.topics import NODE_NAME
from runtime.links.access.grants import Allowance, Grant
from runtime.links.process.settings import SettingsError, load

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 1.0
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST = {"requests_per_s": 1e6, "escalations_per_s": 1e6, "escalations_per_day": 1e12, "cost_per_day": 1e12}
_Stamp = tuple[int, int, int]


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[tokens]]` table. `name` is the tenant's; `sha256` (hex) of the token's bytes. `priority` is for routers.

    `models` empty: all. `residency` empty: no claim. The rest limits all tokens of a name together, and 0 does not;
    escalations and costs are counted by routers alone, costs in the operator's unit.
    """

    name: str
    sha256: str
    models: tuple[str, ...] = ()
    residency: tuple[str, ...] = ()
    priority: Priority = "normal"
    requests_per_s: float = 0.0
    escalations_per_s: float = 0.0
    escalations_per_day: int = 0
    cost_per_day: float = 0.0

    def __post_init__(self) -> None:
        if not NODE_NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name[:80]!r} must be lower-case letters, digits and '-', at most 63")
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"sha256 of {self.name} must be 64 lower-case hex digits: printf %s TOKEN | sha256sum")
        for key, most in _MOST.items():
            if not 0 <= getattr(self, key) <= most:
                raise ValueError(f"{key} of {self.name} must be 0 to {most:.0f}")
        bad = [region for region in self.residency if not NODE_NAME.fullmatch(region)]
        if bad:
            raise ValueError(f"residency of {self.name}: {bad} are no region names")

    def grant(self) -> Grant:
        allowance = Allowance(self.escalations_per_s, self.escalations_per_day, self.cost_per_day)
        return Grant(self.name, self.models, self.residency, allowance=allowance, priority=self.priority)


class Tokens(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    tokens: tuple[Token, ...] = ()


class TokenFile:
    """The tokens of `path`. `clock` is monotonic, in seconds. Raises SettingsError when it cannot be read at first.

    A change counts within a second. A file that breaks later, or goes away, is told once in the log, and what it said
    before holds on: a slip of an editor shuts nobody out. To shut somebody out, take the token from the file.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._stamp = _stamp(path)
        self._look_at_s = clock() + LOOK_AGAIN_S
        self._by_hash: dict[str, _Known] = {}
        self._rates: dict[str, Rate] = {}
        self._take(_read(path))

    def grant(self, secret: str, model: str | None) -> Grant:
        """For a request about `model`: "" is the server itself, None leaves the check to the route.

        Raises FoothillError `unauthorized`, `forbidden` or `rate_limited`.
        """
        self._follow()
        found = self._by_hash.get(hash_of(secret))
        if found is None:
            raise FoothillError(
                "unauthorized", "This server does not know the token. Ask its operator for one, or check for a slip."
            )
        token, grant = found
        if model:
            grant.check_model(model)
        rate = self._rates.get(token.name)
        wait_s = rate.take(self._clock()) if rate is not None else 0.0
        if wait_s:
            raise FoothillError(
                "rate_limited",
                f"{token.name} may ask this server {token.requests_per_s:g} times a second. Wait, or spread the load.",
                retry_after_s=wait_s,
            )
        return grant

    def _follow(self) -> None:
        now_s = self._clock()
        if now_s < self._look_at_s:
            return
        self._look_at_s = now_s + LOOK_AGAIN_S
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._take(_read(self._path))
        except SettingsError as error:
            log.error("%s The %d tokens known before go on to hold.", error, len(self._by_hash))
        else:
            log.info("tokens_file %s changed: %d tokens", self._path, len(self._by_hash))

    def _take(self, tokens: Tokens) -> None:
        self._by_hash = {token.sha256: _Known(token, token.grant()) for token in tokens.tokens}
        limits = {token.name: token.requests_per_s for token in tokens.tokens if token.requests_per_s}
        self._rates = {name: Rate(per_s) for name, per_s in limits.items()}


class _Known(NamedTuple):
    token: Token
    grant: Grant


def hash_of(token: str) -> str:
    """A look-up by hash tells by its time nothing that helps to guess a token."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def _read(path: Path) -> Tokens:
    tokens = load(path, Tokens)
    hashes = [token.sha256 for token in tokens.tokens]
    if not hashes:
        raise SettingsError(f"tokens_file {path} names no token. Write a [[tokens]] table; see docs/config.md.")
    if len(set(hashes)) != len(hashes):
        raise SettingsError(f"tokens_file {path} names one token twice. Give each tenant its own.")
    return tokens


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
