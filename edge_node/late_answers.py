"""What direct callers see of the spool: the promise on a degraded answer, and the late answer when it is there."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import msgspec
from aiohttp import web

from contracts import headers
from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from contracts.headers import Terms
from contracts.messages import Late
from edge_node.spool import Spool, SpoolAway
from edge_node.spool_file import Doubtful, LateAnswer
from runtime.links.access.grants import grant_of
from runtime.links.escalation.late import SPOOLED, Waiting, waiting_answer
from runtime.links.http.upstream import Answer, Request
from runtime.serving.answering.calls import Call

MOST_BODY_BYTES = 1 << 20
_WAIT_SHARE = 0.5


class Spooling:
    """Keeps requests within half of the time that their callers have left. `clock` is their deadlines'."""

    def __init__(self, spool: Spool, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._spool = spool
        self._clock = clock
        self._wall = wall

    async def keep(self, call: Call, request: Request, edge: Answer) -> str:
        """Of a direct caller: what the header on his answer promises."""
        kept = await self.put(call.grant.tenant, call.model, request, edge, call.terms, call.deadline)
        return SPOOLED if kept else ""

    async def put(
        self,
        tenant: str,
        model: str,
        request: Request,
        edge: Answer,
        terms: Terms,
        deadline: Deadline,
        *,
        note: bytes = b"",
    ) -> bool:
        """Whether a late answer to a request can be promised, whose headers name its id. Raises nothing."""
        doubtful = _doubtful(tenant, model, request, edge, terms, self._wall(), note)
        kept = asyncio.ensure_future(self._spool.put(doubtful))
        await asyncio.wait({kept}, timeout=_patience_s(deadline, self._clock()))
        return kept.done() and kept.result()


class LateAnswers:
    """`GET /v1/results/{request_id}`. A caller sees its own tenant's requests only."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/v1/results/{request_id}", self.answer)]

    async def answer(self, request: web.Request) -> web.Response:
        grant, request_id = grant_of(request), request.match_info["request_id"]
        try:
            # Bytes that are no text arrive as lone surrogates: they name nothing.
            found = await self._spool.find(grant.tenant, request_id) if request_id.isascii() else None
        except SpoolAway as error:
            raise FoothillError("unavailable", "The spool cannot be read now: try again, or see the log.") from error
        if found is None:
            raise FoothillError(
                "not_found",
                f"No late answer is here or on its way for request {request_id[:80]}: it was not spooled, given up, "
                "or is too old. Ask again.",
            )
        grant.check_model(found.model)
        return _waiting(found) if isinstance(found, Doubtful) else web.Response(body=found.body, headers=found.headers)


def message(node: str, late: LateAnswer) -> Late:
    """What the node publishes of a late answer."""
    return Late(
        node=node,
        request_id=late.request_id,
        model=late.model,
        stratum=late.stratum,
        confidence=late.confidence,
        edge_answer=late.edge_answer,
        cloud_answer=late.cloud_answer,
        bundle=late.headers.get(headers.MODEL, ""),
        content_type=late.headers.get("Content-Type", ""),
        body=late.body if len(late.body) <= MOST_BODY_BYTES else None,
        spooled_at_s=late.spooled_at_s,
        answered_at_s=late.answered_at_s,
    )


def _doubtful(
    tenant: str, model: str, request: Request, edge: Answer, terms: Terms, now_s: float, note: bytes
) -> Doubtful:
    """Of the caller's headers those that the cloud gets, and nothing that says who he is."""
    given = {name.lower(): value for name, value in request.headers.items()}
    sent = {name: given[name.lower()] for name in headers.RELAYED_IN if name.lower() in given}
    relayed = headers.relayed(sent, headers.RELAYED_IN)
    bare = msgspec.structs.replace(request, headers=relayed, body=bytes(request.body))
    return Doubtful(
        tenant=tenant,
        request_id=given[headers.REQUEST_ID.lower()],
        model=model,
        request=bare,
        at_s=now_s,
        stratum=edge.headers.get(headers.STRATUM, ""),
        confidence=_confidence(edge.headers.get(headers.CONFIDENCE)),
        answer=edge.headers.get(headers.ANSWER, ""),
        residency=terms.residency,
        note=note,
    )


def _confidence(told: str | None) -> float | None:
    confidence = float(told) if told is not None else math.nan
    return confidence if math.isfinite(confidence) else None


def _patience_s(deadline: Deadline, now_s: float) -> float:
    return _WAIT_SHARE * deadline.left_s(now_s)


def _waiting(doubtful: Doubtful) -> web.Response:
    told = waiting_answer(Waiting(SPOOLED, doubtful.request_id, doubtful.model, doubtful.at_s))
    return web.Response(status=told.status, body=told.body, headers=told.headers)
