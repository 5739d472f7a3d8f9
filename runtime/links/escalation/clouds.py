"""The cloud tier as its callers see it: which URL is asked next, for how long, and what it is expected to take."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from multidict import CIMultiDict

from contracts import headers
from contracts.budgets import RetryBudget
from contracts.circuits import Circuit, blames
from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from contracts.headers import Terms
from runtime.links.access.hop import sign_hop
from runtime.links.escalation.estimates import Fading
from runtime.links.http.upstream import Answer, Request, Upstreams, UpstreamUnreachable
from runtime.links.process.telemetry import Purpose, Telemetry

_HALF_LIFE_S = 30.0
_VERSIONED = re.compile(r"(/v2/models/[^/?]+)/versions/[^/?]+")


Departed = Callable[[Request, Purpose, str], None]
"""Told of a request that has gone to the cloud at a URL, answered or not; it must neither block nor fail."""


class _Cloud:
    """One cloud URL and how it has been doing."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.circuit = Circuit()


class Clouds:
    """The URLs of one cloud tier, in the order in which they are asked.

    A second URL for one request is a retry, which `budget` must allow; escalations and audits are first tries of their
    own, while a fallback belongs to a request that its caller has counted.
    `region` is checked against a residency claim; "" (unknown) is in no claim. Requests are marked as hop `hop_name`
    under `hop_key`. `clock` is monotonic, `wall` unix time, both in seconds.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        region: str,
        upstreams: Upstreams,
        budget: RetryBudget,
        hop_key: bytes,
        hop_name: str,
        telemetry: Telemetry,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._clouds = [_Cloud(url) for url in urls]
        self.region = region
        self._upstreams = upstreams
        self._budget = budget
        self._hop_key = hop_key
        self._hop_name = hop_name
        self._telemetry = telemetry
        self._clock = clock
        self._wall = wall
        self._expected = Fading(half_life_s=_HALF_LIFE_S)
        self.departures: list[Departed] = []

    def admitted(self, terms: Terms) -> bool:
        """Whether a cloud is configured and, under a residency claim, lies inside it."""
        return bool(self._clouds) and terms.admit(self.region)

    def refusal(self, terms: Terms) -> FoothillError:
        """What to answer when the cloud is not admitted, and nobody else can answer."""
        if not self._clouds:
            return FoothillError("unavailable", "No edge node can answer and no cloud_urls are configured. Try later.")
        return FoothillError(
            "residency_denied",
            f"No upstream inside {', '.join(terms.residency)} can answer, and the cloud tier lies outside. "
            "Widen Foothill-Residency, or try again when a node there is back.",
        )

    def reachable(self, now_s: float) -> bool:
        """Whether the circuit of any URL lets a request pass."""
        return any(cloud.circuit.allows(now_s) for cloud in self._clouds)

    def expected_ms(self, now_s: float) -> float:
        """What an answer is expected to take; 0 as long as nobody knows."""
        return self._expected.value(now_s)

    async def ask(self, request: Request, terms: Terms, deadline: Deadline, purpose: Purpose) -> Answer:
        """Asks one URL after another, each with its share of the time left, until one answers below 500.

        When none does, or the budget allows no further one: the last answer there was. Raises
        UpstreamUnreachable or FoothillError when there was none.
        """
        marked = self._marked(request, terms)
        clouds = self._usable(purpose)
        answer: Answer | None = None
        failure: Exception = FoothillError("unavailable", "No cloud URL takes requests now. Try again.")
        if purpose != "fallback":
            self._budget.deposit(self._clock())
        for tried, cloud in enumerate(clouds):
            now_s = self._clock()
            if tried and not self._budget.withdraw(now_s):
                break
            share = Deadline(now_s + deadline.left_s(now_s) / (len(clouds) - tried))
            try:
                answer = await self._send(cloud, marked, share, purpose)
            except (UpstreamUnreachable, FoothillError) as error:
                failure = error
                continue
            if not _failed(answer):
                return answer
        if answer is not None:
            return answer
        raise failure

    def _usable(self, purpose: Purpose) -> list[_Cloud]:
        """URLs whose circuit lets a request pass; a request with nowhere else to go may try them all."""
        usable = [cloud for cloud in self._clouds if cloud.circuit.allows(self._clock())]
        return usable or (self._clouds if purpose == "fallback" else [])

    async def _send(self, cloud: _Cloud, request: Request, deadline: Deadline, purpose: Purpose) -> Answer:
        started_s = self._clock()
        allowed_ms = deadline.left_ms(started_s)
        event: Literal["succeeded", "failed", "abandoned"] = "abandoned"
        received = 0
        cloud.circuit.on("started", started_s)
        has_gone = True
        try:
            answer = await self._upstreams.send(cloud.url, request, deadline=deadline, clock=self._clock)
            received = _wire_bytes(answer.headers, len(answer.body))
            _check_origin(cloud.url, request, answer)
            event = "failed" if _failed(answer) else "succeeded"
            if event == "succeeded":
                self._expected.measure(answer.hop_ms, self._clock())
            return answer
        except UpstreamUnreachable as error:
            event, has_gone = "failed", error.sent
            raise
        except FoothillError:
            if blames(allowed_ms, self._expected.value(started_s)):
                event = "failed"
                self._upstreams.doubt(cloud.url)
            self._expected.at_least((self._clock() - started_s) * 1000.0, self._clock())
            raise
        finally:
            cloud.circuit.on(event, self._clock())
            sent = len(request.method) + len(request.path) + _wire_bytes(request.headers, request.size)
            self._telemetry.cloud_bytes(purpose, sent=sent, received=received)
            for told in self.departures if has_gone else ():
                told(request, purpose, cloud.url)

    def _marked(self, request: Request, terms: Terms) -> Request:
        """The request as the cloud gets it: the caller's relayed headers, the id, and this caller's mark.

        A version in the path names the edge bundle's; the cloud answers for the logical model.
        """
        given: CIMultiDict[str] = CIMultiDict(request.headers)
        request_id = terms.request_id or given.get(headers.REQUEST_ID) or uuid.uuid4().hex
        sent = headers.relayed(given, headers.RELAYED_IN) | terms.claim()
        sent[headers.REQUEST_ID] = request_id
        sent[headers.HOP] = sign_hop(self._hop_key, self._hop_name, request_id, self._wall())
        return Request(request.method, _VERSIONED.sub(r"\1", request.path, count=1), sent, request.body, request.spool)


def _check_origin(url: str, request: Request, answer: Answer) -> None:
    """Raises UpstreamUnreachable for a success or a redirect that no Foothill server has written.

    The uplinks of edge sites end in captive portals and proxies, which answer anything with 200 and a page.
    """
    if answer.status < 400 and answer.headers.get(headers.REQUEST_ID) != request.headers[headers.REQUEST_ID]:
        reason = f"HTTP {answer.status} without the request's id: something else than a cloud tier answers there"
        raise UpstreamUnreachable(url, sent=True, reason=reason)


def _failed(answer: Answer) -> bool:
    return answer.status >= 500 or answer.status == 429


def _wire_bytes(head: Mapping[str, str], body_bytes: int) -> int:
    """About what HTTP/1.1 puts on the wire: `name: value` lines, a first line and an empty one, and the body."""
    return sum(len(name) + len(value) + 4 for name, value in head.items()) + body_bytes + 14
