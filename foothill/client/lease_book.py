"""The leases a client holds, and when to ask the router again. Times are on the caller's monotonic clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from contracts import headers
from contracts.leases import Lease

_RENEW_SHARE = 0.8
_PATIENCE_SHARE = 0.2
_LONGEST_PATIENCE_S = 5.0

Standing = Literal["none", "fresh", "due", "expired"]


class Subject(NamedTuple):
    """What a lease is for: a logical model, under a residency (region names; empty: no claim), at nodes with all of the
    `capabilities`."""

    model: str
    residency: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: str, residency: Sequence[str] | None, capabilities: Sequence[str]) -> Subject:
        """Raises TypeError for a string in the place of a list of them."""
        for key, told in (("residency", residency), ("capabilities", capabilities)):
            if isinstance(told, str):
                raise TypeError(f"{key} is a list of names: write {key}=[{told!r}].")
        return cls(model, tuple(residency or ()), tuple(sorted(capabilities)))

    @property
    def headers(self) -> dict[str, str]:
        told = {headers.RESIDENCY: self.residency, headers.CAPABILITIES: self.capabilities}
        return {name: ",".join(values) for name, values in told.items() if values}


class _Held(msgspec.Struct, frozen=True):
    """A lease, when it becomes due and when it expires; until `patience_s` the router is not asked again."""

    lease: Lease
    due_s: float
    expires_s: float
    patience_s: float


class LeaseBook:
    """One lease a subject. A stale lease stays until a newer one comes: stale is better than failing."""

    def __init__(self) -> None:
        self._held: dict[Subject, _Held] = {}

    def get(self, subject: Subject) -> Lease | None:
        held = self._held.get(subject)
        return held.lease if held else None

    def put(self, subject: Subject, lease: Lease, now_s: float) -> None:
        due_s = now_s + _RENEW_SHARE * lease.ttl_s
        self._held[subject] = _Held(lease, due_s, now_s + lease.ttl_s, patience_s=now_s)

    def standing(self, subject: Subject, now_s: float) -> Standing:
        """`none`: ask before anything else. `due`: use it and renew it. `expired`: ask, and use it if that fails."""
        held = self._held.get(subject)
        if held is None:
            return "none"
        if now_s < held.patience_s or now_s < held.due_s:
            return "fresh"
        return "due" if now_s < held.expires_s else "expired"

    def suspect(self, subject: Subject, now_s: float) -> None:
        """A node of this lease failed: the router may know better, so the lease is due now."""
        held = self._held.get(subject)
        if held is not None:
            self._held[subject] = msgspec.structs.replace(held, due_s=min(held.due_s, now_s))

    def router_away(self, subject: Subject, now_s: float) -> None:
        """Asking failed: use the lease as it is for a while, so that not every call waits for a dead router."""
        held = self._held.get(subject)
        if held is not None:
            patience_s = min(_PATIENCE_SHARE * held.lease.ttl_s, _LONGEST_PATIENCE_S)
            self._held[subject] = msgspec.structs.replace(held, patience_s=now_s + patience_s)

    def drop(self, subject: Subject) -> None:
        """The router refused the subject itself: nothing may be asked under the old lease."""
        self._held.pop(subject, None)
