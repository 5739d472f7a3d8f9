"""The blocking client."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TypeVar

from contracts.headers import Escalation
from contracts.leases import Lease
from contracts.places import Place
from foothill.client import wishes
from foothill.client.answers import Inferred, Predicted, Settled, read_inferred, read_predicted
from foothill.client.connections import SyncConnections, Wiring
from foothill.client.failures import reading
from foothill.client.lease_book import Subject
from foothill.client.session import DEFAULT_DEADLINE_MS, Exchange, Session, Started
from foothill.client.tensors import Given
from foothill.client.wishes import Terms, Wish

T = TypeVar("T")


class Client:
    """Asks the router at `url` once where to go, then talks to the nearest node; may be shared between threads.

    `headers` go with every request. `deadline_ms` bounds a whole call, falling back included. `place` says where the
    caller is, when its address does not. `lease=False` sends everything to `url` itself: a router (which then
    proxies), a node, or a cloud. `connect_to` maps an origin to the one to connect to instead (a tunnel), as curl's
    --connect-to does. `tls` replaces the trust in public authorities; `trust_env` reads proxies from the environment.
    `token` says who calls; leased servers get the lease's ticket in its place, if it has one.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        deadline_ms: float | None = None,
        connect_to: Mapping[str, str] | None = None,
        place: Place | None = None,
        lease: bool = True,
        tls: ssl.SSLContext | None = None,
        trust_env: bool = True,
        token: str = "",
    ) -> None:
        self._session = Session(
            url,
            direct=not lease,
            own_headers=headers or {},
            deadline_ms=deadline_ms or DEFAULT_DEADLINE_MS,
            place=place,
            clock=time.monotonic,
            token=token,
        )
        self._connections = SyncConnections(Wiring(connect_to or {}, tls, trust_env=trust_env))
        self._asking = threading.Lock()

    def predict(
        self,
        model: str,
        image: bytes,
        media_type: str | None = None,
        *,
        escalation: Escalation = "auto",
        residency: Sequence[str] | None = None,
        deadline_ms: float | None = None,
        capabilities: Sequence[str] = (),
    ) -> Predicted:
        """What the model sees in a picture. `media_type` None: JPEG or PNG, told by the first bytes.

        `residency` names the regions that may see the request, `capabilities` what a node has to have for it. Raises
        RequestError.
        """
        terms = Terms(escalation=escalation, residency=residency, deadline_ms=deadline_ms, capabilities=capabilities)
        wish = wishes.predict(model, image, media_type, self._session.own_headers, terms)
        settled = self._perform(wish)
        with reading(wish.request_id):
            return read_predicted(settled)

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Given],
        outputs: Sequence[str] = (),
        *,
        escalation: Escalation = "auto",
        residency: Sequence[str] | None = None,
        deadline_ms: float | None = None,
        capabilities: Sequence[str] = (),
    ) -> Inferred:
        """Tensors in, tensors out: Open Inference Protocol v2. `outputs` empty: all of them. Raises RequestError."""
        terms = Terms(escalation=escalation, residency=residency, deadline_ms=deadline_ms, capabilities=capabilities)
        wish = wishes.infer(model, inputs, outputs, self._session.own_headers, terms)
        settled = self._perform(wish)
        with reading(wish.request_id):
            return read_inferred(settled)

    def lease(self, model: str, *, residency: Sequence[str] | None = None, capabilities: Sequence[str] = ()) -> Lease:
        """The lease in hand for a model, asked for if there is none. Raises RequestError."""
        subject = Subject.of(model, residency, capabilities)
        self._ask_if_needed(subject, self._session.start(None))
        return self._session.leased(subject)

    def close(self) -> None:
        self._connections.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _perform(self, wish: Wish) -> Settled:
        started = self._session.start(wish.deadline_ms)
        asked = self._ask_if_needed(wish.subject, started)
        return self._drive(self._session.call(wish, started, asked=asked))

    def _ask_if_needed(self, subject: Subject, started: Started) -> bool:
        """Whether the call had to wait for a lease."""
        if not self._session.must_ask(subject, renews_behind=False):
            return False
        with self._asking:
            if self._session.must_ask(subject, renews_behind=False):
                self._drive(self._session.ask(subject, started.deadline))
        return True

    def _drive(self, exchange: Exchange[T]) -> T:
        try:
            send = next(exchange)
            while True:
                send = exchange.send(self._connections.send(send))
        except StopIteration as end:
            result: T = end.value
            return result
