"""Whom to ask, in which order, and for how long: the client's pure rules of falling back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from contracts.errors import KINDS
from contracts.leases import Lease

_COOLING_S = 5.0
_SPLIT_ABOVE_S = 1.0
_FIRST_SHARE = 0.6
_CONNECT_SHARE = 0.5
_LONGEST_CONNECT_S = 2.0


class Send(msgspec.Struct, frozen=True):
    """One HTTP request to make: `timeout_s` bounds all of it, `connect_s` its connecting."""

    base_url: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    timeout_s: float
    connect_s: float


class Reply(msgspec.Struct, frozen=True):
    """A whole HTTP answer of any status; `headers` are case-insensitive, `elapsed_ms` includes connecting.

    `reused`: there was nothing to connect, so that the time beside the server's own is one round trip.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    elapsed_ms: float
    reused: bool = False


class Lost(msgspec.Struct, frozen=True):
    """No answer: `refused` (no connection), `cut` (connection lost before the whole answer), `late` (out of time).

    `reused`: the connection had served before, so that the server may just have closed it for being idle.
    """

    how: Literal["refused", "cut", "late"]
    message: str
    reused: bool = False


class Upstream(msgspec.Struct, frozen=True):
    """A base URL to ask, and the round trip the router expects to it in ms (0: unknown).

    `ticket` is the lease's, which lets its holder in there; "" where there is none. `node` is the name of a leased one.
    """

    url: str
    rtt_ms: float = 0.0
    node: str = ""
    ticket: str = ""

    @property
    def leased(self) -> bool:
        return bool(self.node)


Step = Literal["answer", "again", "next", "renew", "fail"]


def judge(outcome: Reply | Lost, code: str, upstream: Upstream) -> Step:
    """What an outcome means for the request; `code` is the error code of a Reply that is not a success.

    predict and infer are pure and their answer is handed over only when it is whole, so that any loss may be retried.
    A leased node that does not know the model (its lease is older than the last rollout) is passed over; a rate limit
    is not: another node would only help to break it. A ticket that is refused takes a new lease (`renew`).
    """
    if isinstance(outcome, Lost):
        return "again" if outcome.how == "cut" and outcome.reused else "next"
    if outcome.status == 200:
        return "answer"
    if upstream.leased and code == "model_not_found":
        return "next"
    if upstream.ticket and outcome.status == 401:
        return "renew"
    kind = KINDS.get(code)
    if kind is not None:
        return "next" if kind.retryable and kind.status >= 500 else "fail"
    return "next" if outcome.status in (502, 503, 504) else "fail"


def time_for(left_s: float, upstream: Upstream, *, last: bool) -> tuple[float, float, float]:
    """(`timeout_s`, `connect_s`, deadline in ms to tell the upstream) for one attempt with `left_s` to go.

    While another upstream could be asked, one attempt takes at most 60 % of the time left. Below a second there is no
    time for a second try after a timeout, so that all of it goes to the first; refused connections come back at once
    and are retried all the same. The upstream is told what is left without the way there and back, so that what it
    can still give in time arrives in time.
    """
    timeout_s = left_s if last or left_s <= _SPLIT_ABOVE_S else _FIRST_SHARE * left_s
    connect_s = timeout_s if last else min(_CONNECT_SHARE * left_s, timeout_s, _LONGEST_CONNECT_S)
    told_ms = max(timeout_s * 1000.0 - upstream.rtt_ms, timeout_s * 500.0)
    return timeout_s, connect_s, told_ms


class Health:
    """Which upstreams failed lately. A failed one is left alone for 5 s unless nothing else is left."""

    def __init__(self) -> None:
        self._cooling: dict[str, float] = {}

    def failed(self, url: str, now_s: float) -> None:
        self._cooling[url] = now_s + _COOLING_S

    def answered(self, url: str) -> None:
        self._cooling.pop(url, None)

    def cooling(self, url: str, now_s: float) -> bool:
        return self._cooling.get(url, now_s) > now_s


def order(lease: Lease, health: Health, now_s: float) -> Sequence[Upstream]:
    """Reachable nodes, best first; then the cloud; then the nodes that failed within the last seconds."""
    nodes = [Upstream(node.url, node.rtt_ms, node.node, lease.ticket) for node in lease.nodes]
    cloud = [Upstream(lease.cloud, ticket=lease.ticket)] if lease.cloud else []
    resting = [node for node in nodes if health.cooling(node.url, now_s)]
    return [*(node for node in nodes if node not in resting), *cloud, *resting]
