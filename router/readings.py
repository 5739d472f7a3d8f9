"""What a node's answer of a known form says: read with as little work as an answer can be read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from contracts import headers
from contracts.escalation import Verdict
from contracts.predictions import with_reason
from contracts.timing import PHASES, TOTAL
from contracts.topics import STRATUM
from router.said import Said, Told
from runtime.links.http.exchanges import Fixed
from runtime.links.http.reply_forms import Form

TOLD = (
    "Content-Type",
    "Content-Encoding",
    "Inference-Header-Content-Length",
    headers.MODEL,
    headers.DIGEST,
    headers.STRATUM,
    headers.NODE,
)
"""What many of a node's answers say alike, and is passed on."""
_ENTRY = re.compile(rb"([a-z-]{1,32});dur=[0-9]{1,9}(\.[0-9]{1,9})?")
_NUMBERS: Final = b"0123456789."
_NAMES = b"abcdefghijklmnopqrstuvwxyz-;= "
_LAST: Final = f", {TOTAL};dur="
_NETWORK, _PHASES = "network", frozenset(PHASES)
_UNSETTLED: Final = b'"reason":"unsettled"'


def phases_ms(written: Sequence[str]) -> Sequence[Sequence[float]]:
    """The times of each phase, of many that are written alike, as a node writes them. Raises ValueError for others."""
    each = written[0].count(",") + 1
    numbers = [*map(float, ",".join(written).encode().translate(None, _NAMES).split(b","))]
    if len(numbers) != each * len(written):
        raise ValueError("Not all of them tell as many times.")
    return [numbers[at::each] for at in range(each)]


def settled(body: bytes, content_type: str, told: Told, verdict: Verdict) -> bytes:
    """As `contracts.predictions.with_reason`, for what a node says that leaves it to a router to settle: the reason is
    there once, and before any other object."""
    before, found, behind = body.partition(_UNSETTLED)
    plain = found and before.rfind(b"{") == 0 and _UNSETTLED not in behind
    if plain and content_type == "application/json":
        return before + told.reason + behind
    return with_reason(body, content_type, verdict.reason)


class Reading:
    """Of one form. `of_node`: whether it was written for a router's mark."""

    __slots__ = (
        "_at",
        "_confidence_at",
        "_form",
        "_names",
        "_phases",
        "_timing_at",
        "_told",
        "content_type",
        "of_node",
        "stratum",
    )

    def __init__(self, form: Form) -> None:
        self._form = form
        self._at = form.at
        self._confidence_at = form.at.get(headers.CONFIDENCE)
        self._timing_at = form.at.get(headers.SERVER_TIMING)
        self._told: dict[str, Told] = {}
        self._names = b""
        told = form.fixed.get(headers.STRATUM, "")
        self.stratum = told if STRATUM.fullmatch(told) else ""
        self.content_type = form.fixed.get("Content-Type", "")
        self.of_node = headers.LOAD in form.at
        self._phases: tuple[str, ...] = ()

    def value(self, name: str, values: tuple[bytes, ...]) -> str:
        at = self._at.get(name)
        return values[at].decode("ascii") if at is not None else ""

    def read(self, values: tuple[bytes, ...]) -> Said | None:
        """None for times that are written otherwise than a node writes them. Raises ValueError for no number."""
        if self._timing_at is None:
            return None
        times = values[self._timing_at]
        if times.translate(None, _NUMBERS) != self._names and not self._learn(times):
            return None
        wrote, _, total_ms = times.decode("ascii").rpartition(_LAST)
        if self._confidence_at is None:
            return Said(wrote, float(total_ms))
        confidence = values[self._confidence_at].decode("ascii")
        return Said(wrote, float(total_ms), float(confidence), f"{headers.CONFIDENCE}: {confidence}\r\n")

    def told(self, verdict: Verdict) -> Told:
        """Always the same one, as long as nodes tell the same times."""
        told = self._told.get(verdict.reason)
        if told is None:
            named = headers.relayed(self._form.fixed, TOLD) | {
                headers.TIER: "edge",
                headers.REASON: verdict.reason,
                headers.CERTIFIED: str(verdict.certified).lower(),
                headers.DEGRADED: str(verdict.degraded).lower(),
            }
            told = self._told[verdict.reason] = Told(
                Fixed(named), b'"reason":"%b"' % verdict.reason.encode(), self._phases
            )
        return told

    def _learn(self, written: bytes) -> bool:
        """Takes these phases for those that come again."""
        entries = [_ENTRY.fullmatch(entry) for entry in written.split(b", ")]
        names = [entry.group(1).decode() for entry in entries if entry is not None]
        once = len({*names, _NETWORK}) == len(names) + 1
        if len(names) != len(entries) or len(names) < 2 or names[-1] != TOTAL or not once:
            return False
        if not _PHASES.issuperset(names[:-1]):
            return False
        self._names, self._phases = written.translate(None, _NUMBERS), tuple(names[:-1])
        self._told.clear()
        return True
