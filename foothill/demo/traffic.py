"""The demo's load: calls of clients from all over the world, and what came of each."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Literal, NamedTuple

import msgspec

from contracts.predictions import Classification
from foothill.client import AsyncClient, Inferred, Predicted, RequestError
from foothill.demo.places import ClientPlace

Kind = Literal["jpeg", "png", "tensor"]
Way = Literal["hybrid", "edge", "cloud"]
"""How a pass is served: as it should be; at the edge alone (escalation never); straight by the cloud."""

MIX: dict[Kind, float] = {"jpeg": 0.4, "png": 0.2, "tensor": 0.4}
LEASED_SHARE = 0.9
ESCALATIONS = frozenset({"doubtful", "uncertified", "revoked", "asked-always"})
"""Reasons with which the cloud answers because the edge's answer was not enough; others mean there was no edge."""


class Sample(msgspec.Struct, frozen=True):
    """One picture in each form it may be sent in. `tensor`: float32 little endian, of `shape`; `label` is the truth."""

    jpeg: bytes
    png: bytes
    tensor: bytes
    shape: tuple[int, ...]
    label: str


class Call(msgspec.Struct, frozen=True):
    """One request: `client` counts the places, `leased` is a property of the client."""

    at: int
    client: int
    leased: bool
    kind: Kind
    sample: Sample


class Outcome(msgspec.Struct, frozen=True):
    """What came of one call. `status` is 200 or the error's (0: nobody answered); `error` its message.

    `phases_ms` as the client saw them, `total_ms` from before asking for a lease to the whole answer; bytes are those
    of the bodies. Of a failed call only the fields up to `total_ms` say anything.
    """

    at: int
    leased: bool
    kind: Kind
    region: str
    truth: str
    status: int
    error: str
    total_ms: float
    label: str = ""
    tier: str = ""
    node: str = ""
    reason: str = ""
    bundle: str = ""
    confidence: float | None = None
    certified: bool = False
    degraded: bool = False
    attempts: int = 0
    phases_ms: dict[str, float] = {}
    sent_bytes: int = 0
    received_bytes: int = 0

    @property
    def ok(self) -> bool:
        return self.status == 200

    @property
    def escalated(self) -> bool:
        return self.tier == "cloud" and self.reason in ESCALATIONS


class Front(msgspec.Struct, frozen=True):
    """Where the load goes. `connect_to` has one map a region (see `AsyncClient`), none for no emulated distance."""

    router: str
    cloud: str
    labels: tuple[str, ...]
    connect_to: Mapping[str, Mapping[str, str]] = {}
    model: str = "digits"
    input_name: str = "image"
    output_name: str = "logits"
    deadline_ms: float = 10_000.0


def make_calls(
    samples: Sequence[Sample], clients: int, count: int, seed: int, *, leased_share: float = LEASED_SHARE
) -> tuple[Call, ...]:
    """`count` calls of `clients` clients, each as likely; samples in turn. The same for the same seed."""
    rng = random.Random(seed)
    proxied = set(rng.sample(range(clients), round(clients * (1.0 - leased_share))))
    kinds = rng.choices(list(MIX), list(MIX.values()), k=count)
    callers = [rng.randrange(clients) for _ in range(count)]
    return tuple(
        Call(at, caller, caller not in proxied, kind, samples[at % len(samples)])
        for at, (caller, kind) in enumerate(zip(callers, kinds, strict=True))
    )


class _Key(NamedTuple):
    client: int
    cloud: bool
    leased: bool


class Crowd:
    """All clients, each with connections and a lease of its own for as long as the crowd lasts."""

    def __init__(self, front: Front, places: Sequence[ClientPlace]) -> None:
        self._front = front
        self._places = places
        self._clients: dict[_Key, AsyncClient] = {}

    async def run(
        self,
        calls: Iterable[Call],
        way: Way,
        *,
        concurrency: int,
        per_second: float = math.inf,
        on_outcome: Callable[[Outcome], None] = lambda _: None,
        until: asyncio.Event | None = None,
    ) -> list[Outcome]:
        """Makes the calls until they end or `until` is set; outcomes as they came in.

        At most `concurrency` are under way, and at most `per_second` begin: at one pace, a slow way and a fast one
        meet the same load, where as many callers at a time would load the fast one more.
        """
        outcomes: list[Outcome] = []
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        pending = enumerate(calls)

        async def caller() -> None:
            for number, call in pending:
                await asyncio.sleep(began_s + number / per_second - loop.time())
                if until is not None and until.is_set():
                    return
                outcome = await self._make(call, way)
                outcomes.append(outcome)
                on_outcome(outcome)

        await asyncio.gather(*(caller() for _ in range(concurrency)))
        return outcomes

    async def close(self) -> None:
        clients, self._clients = list(self._clients.values()), {}
        await asyncio.gather(*(client.close() for client in clients))

    async def __aenter__(self) -> Crowd:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _make(self, call: Call, way: Way) -> Outcome:
        client = self._client(_Key(call.client, way == "cloud", call.leased))
        started_s = asyncio.get_running_loop().time()
        try:
            answer, label = await self._ask(client, call, way)
        except RequestError as error:
            total_ms = (asyncio.get_running_loop().time() - started_s) * 1000.0
            return self._outcome(call, status=error.status, error=str(error), total_ms=total_ms)
        return self._outcome(call, status=200, error="", total_ms=answer.total_ms, answer=answer, label=label)

    async def _ask(self, client: AsyncClient, call: Call, way: Way) -> tuple[Predicted | Inferred, str]:
        front, sample = self._front, call.sample
        escalation: Literal["never", "auto"] = "never" if way == "edge" else "auto"
        if call.kind == "tensor":
            inputs = {front.input_name: ("FP32", sample.shape, sample.tensor)}
            inferred = await client.infer(front.model, inputs, [front.output_name], escalation=escalation)
            scores = inferred.outputs[front.output_name].values()
            return inferred, front.labels[max(range(len(scores)), key=scores.__getitem__)]
        body = sample.jpeg if call.kind == "jpeg" else sample.png
        predicted = await client.predict(front.model, body, escalation=escalation)
        prediction = predicted.prediction
        return predicted, prediction.label if isinstance(prediction, Classification) else ""

    def _outcome(
        self,
        call: Call,
        *,
        status: int,
        error: str,
        total_ms: float,
        answer: Predicted | Inferred | None = None,
        label: str = "",
    ) -> Outcome:
        region = self._places[call.client].region
        outcome = Outcome(call.at, call.leased, call.kind, region, call.sample.label, status, error, total_ms)
        if answer is None:
            return outcome
        return msgspec.structs.replace(
            outcome,
            label=label,
            tier=answer.tier,
            node=answer.node,
            reason=answer.reason,
            bundle=answer.bundle,
            confidence=answer.confidence,
            certified=answer.certified,
            degraded=answer.degraded,
            attempts=answer.attempts,
            phases_ms=answer.timings_ms,
            sent_bytes=answer.sent_bytes,
            received_bytes=answer.received_bytes,
        )

    def _client(self, key: _Key) -> AsyncClient:
        if key not in self._clients:
            place = self._places[key.client]
            self._clients[key] = AsyncClient(
                self._front.cloud if key.cloud else self._front.router,
                # The router sits behind no proxy here; it is told to trust this header from this machine.
                headers={"X-Forwarded-For": place.address},
                deadline_ms=self._front.deadline_ms,
                connect_to=self._front.connect_to.get(place.region, {}),
                lease=key.leased and not key.cloud,
                trust_env=False,
            )
        return self._clients[key]
