"""What a node's answer of a known form says: read with as little work as an answer can be read."""

from __future__ import annotations

import re
from typing import NamedTuple

from contracts import headers
from contracts.escalation import Verdict
from contracts.timing import TOTAL
from contracts.topics import STRATUM
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
_NUMBERS, _NAMES = b"0123456789.", b"abcdefghijklmnopqrstuvwxyz-;= "
_LAST = f", {TOTAL};dur=".encode()
_NETWORK = "network"


class Times(NamedTuple):
    """The node's own phases, as it wrote them and in milliseconds, and its total."""

    written: str
    phases_ms: tuple[float, ...]
    total_ms: float


class Reading:
    """Of one form. `phases` are the names of the last times that were read."""

    __slots__ = (
        "_at",
        "_confidence_at",
        "_fixed",
        "_form",
        "_names",
        "_timing_at",
        "content_type",
        "phases",
        "stratum",
    )

    def __init__(self, form: Form) -> None:
        self._form = form
        self._at = form.at
        self._confidence_at = form.at.get(headers.CONFIDENCE)
        self._timing_at = form.at.get(headers.SERVER_TIMING)
        self._fixed: dict[str, Fixed] = {}
        self._names = b""
        told = form.fixed.get(headers.STRATUM, "")
        self.stratum = told if STRATUM.fullmatch(told) else ""
        self.content_type = form.fixed.get("Content-Type", "")
        self.phases: tuple[str, ...] = ()

    @property
    def of_node(self) -> bool:
        """Whether it was written for a router's mark."""
        return headers.LOAD in self._at

    def told(self, name: str, values: tuple[bytes, ...]) -> str:
        at = self._at.get(name)
        return values[at].decode("ascii") if at is not None else ""

    def confidence(self, values: tuple[bytes, ...]) -> float | None:
        """None where there is none. Raises ValueError for what is no number."""
        return float(values[self._confidence_at]) if self._confidence_at is not None else None

    def confidence_line(self, values: tuple[bytes, ...]) -> str:
        if self._confidence_at is None:
            return ""
        return f"{headers.CONFIDENCE}: {values[self._confidence_at].decode('ascii')}\r\n"

    def times(self, values: tuple[bytes, ...]) -> Times | None:
        """None for times that are written otherwise than a node writes them. Raises ValueError for no number."""
        if self._timing_at is None:
            return None
        written = values[self._timing_at]
        if written.translate(None, _NUMBERS) != self._names and not self._learn(written):
            return None
        *own, total = map(float, written.translate(None, _NAMES).split(b","))
        return Times(written[: written.rfind(_LAST)].decode("ascii"), tuple(own), total)

    def fixed(self, verdict: Verdict) -> Fixed:
        """The headers that all answers of this form, with this verdict, have alike."""
        fixed = self._fixed.get(verdict.reason)
        if fixed is None:
            told = headers.relayed(self._form.fixed, TOLD) | {
                headers.TIER: "edge",
                headers.REASON: verdict.reason,
                headers.CERTIFIED: str(verdict.certified).lower(),
                headers.DEGRADED: str(verdict.degraded).lower(),
            }
            fixed = self._fixed[verdict.reason] = Fixed(told)
        return fixed

    def _learn(self, written: bytes) -> bool:
        """Takes these phases for those that come again."""
        entries = [_ENTRY.fullmatch(entry) for entry in written.split(b", ")]
        names = [entry.group(1).decode() for entry in entries if entry is not None]
        once = len({*names, _NETWORK}) == len(names) + 1
        if len(names) != len(entries) or len(names) < 2 or names[-1] != TOTAL or not once:
            return False
        self._names, self.phases = written.translate(None, _NUMBERS), tuple(names[:-1])
        return True
