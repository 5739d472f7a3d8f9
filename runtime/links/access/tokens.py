"""Static bearer tokens: a file that names them by their SHA-256, read again whenever it changes."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

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


class Unleased(Exception):  # noqa: N818 - it names a state of the world, not a mistake
    """Whether one more may happen, another process has to be asked: try again when `ask` has."""

    def __init__(self, ask: Callable[[], Awaitable[None]]) -> None:
        super().__init__("another process has to be asked first")
        self.ask = ask


class Limit(Protocol):
    """How often something may happen."""

    def take(self, now_s: float) -> float:
        """As `contracts.rates.Rate.take`. Raises Unleased where this process cannot say."""
        ...


class _Known(msgspec.Struct, frozen=True):
    """What a token is good for. `limit` None: no limit, otherwise `per_s` a second."""

    grant: Grant
    limit: Limit | None
    per_s: float


LimitOf = Callable[[str, float], Limit]
"""Of a tenant, for so many requests a second."""


def _own_limit(_: str, per_s: float) -> Limit:
    return Rate(per_s)


class TokenFile:
    """The tokens of `path`. `clock` is monotonic, in seconds. Raises SettingsError when it cannot be read at first.

    A change counts within a second. A file that breaks later, or goes away, is told once in the log, and what it said
    before holds on: a slip of an editor shuts nobody out. To shut somebody out, take the token from the file.
    """

    def __init__(self, path: Path, clock: Callable[[], float], limit_of: LimitOf = _own_limit) -> None:
        self._path = path
        self._clock = clock
        self._limit_of = limit_of
        self._stamp = _stamp(path)
        self._look_at_s = clock() + LOOK_AGAIN_S
        self._by_hash: dict[str, _Known] = {}
        self._take(_read(path))

    def grant(self, secret: str, model: str | None) -> Grant:
        """For a request about `model`: "" is the server itself, None leaves the check to the route.

        Raises FoothillError `unauthorized`, `forbidden` or `rate_limited`, and Unleased.
        """
        return self.known(hash_of(secret), model)

    def known(self, token_hash: str, model: str | None) -> Grant:
        """As `grant`, for who has the token's `hash_of` at hand. It is always the same one, until the file changes."""
        self._follow()
        found = self._by_hash.get(token_hash)
        if found is None:
            raise FoothillError(
                "unauthorized", "This server does not know the token. Ask its operator for one, or check for a slip."
            )
        grant = found.grant
        if model:
            grant.check_model(model)
        wait_s = found.limit.take(self._clock()) if found.limit is not None else 0.0
        if wait_s:
            raise FoothillError(
                "rate_limited",
                f"{grant.tenant} may ask this server {found.per_s:g} times a second. Wait, or spread the load.",
                retry_after_s=wait_s,
            )
        return grant

    def _follow(self) -> None:
        """Looks, now and then, whether the file has changed."""
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
        per_s = {token.name: token.requests_per_s for token in tokens.tokens if token.requests_per_s}
        limits = {name: self._limit_of(name, each) for name, each in per_s.items()}
        self._by_hash = {
            token.sha256: _Known(token.grant(), limits.get(token.name), token.requests_per_s) for token in tokens.tokens
        }


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
