"""The rim of every request for an answer of a model: what becomes of it is counted, and every failure is an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import msgspec

from contracts import headers
from contracts.errors import FoothillError
from contracts.timing import TOTAL, format_server_timing
from runtime.links.http.errors import hidden, refused
from runtime.links.http.exchanges import Clock, Incoming, Outgoing
from runtime.links.http.oip_errors import with_error
from runtime.links.process.telemetry import Labels, Read, Tally, Telemetry

log = logging.getLogger(__name__)

CLIENT_GONE = 499


class Hop(msgspec.Struct, frozen=True):
    """One upstream that was asked, and for what (`ask-edge`, `ask-cloud`, `escalate`); in seconds of its clock.
    `status` is 0 where it gave no answer, and `error` says why not."""

    purpose: str
    node: str
    region: str
    started_s: float
    ended_s: float
    status: int = 0
    error: str = ""


class Recording(Protocol):
    """A span of this server's own, of a request that is traced."""

    @property
    def traceparent(self) -> str:
        """What upstreams are told in place of what the caller has sent."""
        ...


class Account(msgspec.Struct):
    """What is counted of one request. `model` stays empty for one that is not served, to keep labels few; `region` is
    that of whoever else than this server has answered. `body_bytes` came with it; `hops` are the upstreams that were
    asked.

    `phases_ms` are those known so far; one that fails before it has measured its own total counts with all its time,
    from `started_s` on.
    """

    tier: str
    started_s: float
    model: str = ""
    reason: str = "internal"
    status: int = 500
    phases_ms: dict[str, float] = {}
    region: str = ""
    body_bytes: int = 0
    recording: Recording | None = None
    hops: list[Hop] = []

    def answered(
        self, tier: str, reason: str, phases_ms: dict[str, float], status: int = 200, *, region: str = ""
    ) -> None:
        self.tier, self.reason, self.status, self.phases_ms, self.region = tier, reason, status, phases_ms, region

    def failed(self, code: str, status: int) -> None:
        self.reason, self.status = code, status


Story = Callable[[Incoming, Account], Awaitable[Outgoing]]


class Witness(Protocol):
    """Sees requests come and go. What it makes of them may go wrong, and never raises."""

    def begun(self, route: str, request: Incoming, now_s: float) -> Recording | None: ...

    def ended(self, route: str, request: Incoming, account: Account, answer: Outgoing | None) -> None:
        """`answer` None: the caller is gone. Some headers may be added to it."""
        ...


class Rim(NamedTuple):
    """Of one server: its `part` in the metrics, its `source` in errors, and the `tier` that a request counts for which
    nobody has answered. `named` are the headers on its refusals; `region` is where what counts for that tier was
    answered. Without a `witness` requests are counted alone."""

    part: str
    source: str
    tier: str
    named: Mapping[str, str]
    telemetry: Telemetry
    clock: Clock
    region: str = ""
    witness: Witness | None = None


class Accounts:
    """Of one route, that its witness hears of by its `pattern`. An error counts under its code as the reason."""

    def __init__(self, route: str, rim: Rim, pattern: str = "") -> None:
        self._route = route
        self.pattern = pattern
        self._rim = rim
        self._telemetry = rim.telemetry
        self.in_flight = rim.telemetry.in_flight(rim.part)
        self._clock = rim.clock

    async def tell(self, story: Story, request: Incoming) -> Outgoing:
        """The story's answer, or what its failure is to the caller."""
        account = self._begun(request)
        answer: Outgoing | None = None
        self.in_flight.count += 1
        try:
            answer = self.worded(await story(request, account))
        except asyncio.CancelledError:
            account.failed("client-gone", CLIENT_GONE)
            raise
        except Exception as error:  # noqa: BLE001 - none of them may leave here
            answer = self.refusal(error, request, account)
        finally:
            self.close(account)
            self.seen(request, account, answer)
        return answer

    @contextmanager
    def opened(self, model: str = "") -> Iterator[Account]:
        """Of something else than a request over HTTP, counted when the context ends."""
        account = Account(self._rim.tier, self._clock(), model)
        self.in_flight.count += 1
        try:
            yield account
        except FoothillError as error:
            account.failed(error.code, error.status)
            raise
        except asyncio.CancelledError:
            account.failed("client-gone", CLIENT_GONE)
            raise
        finally:
            self.close(account)

    def account(self, started_s: float, model: str, phases_ms: dict[str, float]) -> Account:
        """Of a request that is not told here. Count it `in_flight`; `close` its account, or have it `answered`."""
        return Account(self._rim.tier, started_s, model, phases_ms=phases_ms)

    def refusal(self, error: Exception, request: Incoming, account: Account) -> Outgoing:
        """An error as the answer of this route."""
        if not isinstance(error, FoothillError):
            log.error("%s %s failed, request id %s", request.method, request.target, request.request_id, exc_info=error)
            error = hidden(self._rim.source, request.request_id)
        account.failed(error.code, error.status)
        answer = refused(error, source=self._rim.source, request_id=request.request_id)
        total_ms = (self._clock() - account.started_s) * 1000.0
        answer.headers.update(self._rim.named)
        answer.headers[headers.SERVER_TIMING] = format_server_timing({**account.phases_ms, TOTAL: total_ms})
        return self.worded(answer)

    def worded(self, answer: Outgoing) -> Outgoing:
        """A refusal as clients of this route expect it."""
        if answer.status >= 400 and self._route == "infer":
            answer.body = with_error(answer.body)
        return answer

    def seen(self, request: Incoming, account: Account, answer: Outgoing | None) -> None:
        """The last of a request: it is closed, and not yet answered."""
        if self._rim.witness is not None:
            self._rim.witness.ended(self.pattern, request, account, answer)

    def close(self, account: Account) -> None:
        """Nothing more comes of this request."""
        self.in_flight.count -= 1
        if TOTAL not in account.phases_ms:
            account.phases_ms[TOTAL] = (self._clock() - account.started_s) * 1000.0
        self._telemetry.observe(
            part=self._rim.part,
            route=self._route,
            model=account.model,
            tier=account.tier,
            reason=account.reason,
            status=account.status,
            phases_ms=account.phases_ms,
            region=self._region(account.tier, account.region),
        )

    def tally(
        self,
        model: str,
        reason: str,
        phases: tuple[str, ...],
        read: Read,
        *,
        tier: str,
        region: str,
    ) -> Tally:
        """As `answered`, for very many that another `tier` answers. The last of the phases are counted as they are
        written: `read` reads them."""
        labels = Labels(self._rim.part, self._route, model, tier, reason, 200, region)
        return Tally(self.in_flight, self._telemetry.tally(labels, phases, read))

    def answered(
        self,
        model: str,
        reason: str,
        phases: tuple[str, ...],
        times_ms: Sequence[tuple[float, ...]],
    ) -> None:
        """As `close`, for many that this server answered alike."""
        self.in_flight.count -= len(times_ms)
        labels = Labels(self._rim.part, self._route, model, self._rim.tier, reason, 200, self._rim.region)
        self._telemetry.observe_all(labels, phases, times_ms)

    def _begun(self, request: Incoming) -> Account:
        now_s, witness = self._clock(), self._rim.witness
        recording = witness.begun(self.pattern, request, now_s) if witness is not None else None
        return Account(self._rim.tier, now_s, recording=recording)

    def _region(self, tier: str, told: str) -> str:
        return told or (self._rim.region if tier == self._rim.tier else "")
