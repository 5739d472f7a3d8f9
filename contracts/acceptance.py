"""The acceptance of a board: what was checked, what was measured, and what that comes to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from contracts.boards import Fingerprint
from contracts.decoding import UNREADABLE
from contracts.errors import FoothillError

SCHEMA = 1
MAX_REPORT_BYTES = 1 << 20

Outcome = Literal["passed", "failed", "skipped"]
Verdict = Literal["passed", "partial", "failed"]
CheckName = Literal[
    "ready",
    "metadata",
    "identity",
    "golden",
    "latency",
    "curve",
    "soak",
    "thermals",
    "activation",
    "revert",
    "recovery",
    "power-cut",
    "restored",
]
CHECKS: tuple[CheckName, ...] = get_args(CheckName)
"""In the order in which they are run. All of them make the full suite."""

Figure = Annotated[float, Meta(ge=-1e18, le=1e18)]
"""Finite: NaN and infinity have no place in JSON."""


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One check of one model, or of the node when `model` is "".

    `figures` are measured, by name with the unit in it. `optional`: a skip of it does not make the whole partial,
    since the board has nothing to check (no sensor, no relay).
    """

    name: CheckName
    outcome: Outcome
    detail: str
    model: str = ""
    figures: dict[str, Figure] = {}
    optional: bool = False


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One load, as the client saw it. `loop` closed: `concurrency` requests always under way; open: `rate` a second
    are sent whatever comes back, and latencies count from when a request was due.

    `throughput` in answers a second; `refused` were told to come later (429, 503, 504), `failed` anything else.
    `phases_ms`: the mean of each phase in the node's own `Server-Timing`. `client_share` of one core went to this
    client: near 1 it is the client that is slow.
    """

    loop: Literal["closed", "open"]
    concurrency: int
    rate: Figure
    throughput: Figure
    p50_ms: Figure
    p95_ms: Figure
    p99_ms: Figure
    answered: int
    refused: int
    failed: int
    client_share: Figure
    phases_ms: dict[str, Figure] = {}


class Curve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Latency over load for one model. `saturated_at`: the fewest requests at once that reach 95 % of the most
    answers a second; more only wait."""

    model: str
    points: tuple[Point, ...]
    saturated_at: int
    most_per_s: Figure


class BundleSeen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the node served of one model: bundle, digest, artifact file, and the provider that runs it."""

    model: str
    bundle: str
    digest: str
    artifact: str
    provider: str


class Acceptance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The report. `at_s` unix time of the start. `fingerprint` as the node reported it to its fleet, None where no
    fleet was asked. `signed_by`: the public key, 64 hex digits, "" for a report that nobody signs."""

    board: str
    url: str
    node: str
    target: str
    verdict: Verdict
    at_s: Figure
    seconds: Figure
    suite: str
    checks: tuple[Check, ...]
    bundles: tuple[BundleSeen, ...] = ()
    curves: tuple[Curve, ...] = ()
    fingerprint: Fingerprint | None = None
    interrupted: bool = False
    signed_by: str = ""
    schema: int = SCHEMA


def verdict_of(checks: Iterable[Check]) -> Verdict:
    """`passed` only for the full suite: every check of it was made, and only those were skipped that may be."""
    known = tuple(checks)
    if any(check.outcome == "failed" for check in known):
        return "failed"
    made = {check.name for check in known if check.outcome == "passed" or check.optional}
    left_out = any(check.outcome == "skipped" and not check.optional for check in known)
    return "passed" if made.issuperset(CHECKS) and not left_out else "partial"


_CLASS = (
    "target",
    "arch",
    "gpu",
    "sm",
    "sm_count",
    "jetpack",
    "cuda",
    "tensorrt",
    "tensorrt_rtx",
    "power_mode",
    "provider",
    "runtime",
)
"""What an acceptance is good for: cores, memory and the release of the operating system may differ, as far as the
target allows it."""


def differences(accepted: Fingerprint, found: Fingerprint) -> tuple[str, ...]:
    """What sets two machines apart, such as `jetpack L4T 36.4.3, here L4T 36.4.4`; () where one acceptance is good for
    both."""
    pairs = ((name, getattr(accepted, name), getattr(found, name)) for name in _CLASS)
    return tuple(f"{name} {_shown(before)}, here {_shown(now)}" for name, before, now in pairs if before != now)


def decode(data: bytes | msgspec.Raw) -> Acceptance:
    """Raises FoothillError `bad_request` for anything but a report whose verdict follows from its checks."""
    size = len(bytes(data))
    if size > MAX_REPORT_BYTES:
        raise FoothillError("bad_request", f"A report of {size} bytes is over {MAX_REPORT_BYTES}.")
    try:
        report = msgspec.json.decode(data, type=Acceptance)
    except UNREADABLE as error:
        raise FoothillError("bad_request", f"This is no acceptance report: {error}.") from error
    if report.schema != SCHEMA:
        raise FoothillError("bad_request", f"Report schema {report.schema} is unknown; this version reads {SCHEMA}.")
    if report.verdict == "passed" and verdict_of(report.checks) != "passed":
        raise FoothillError("bad_request", "The report says passed, and its checks do not.")
    return report


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
