"""The story of a request for an answer: who asks and on which terms, where it goes, what of it is told and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from contracts import headers
from contracts.headers import Terms
from contracts.timing import TOTAL, format_server_timing
from router.answers import settled_answer
from router.calls import Calls
from router.nodes import Nodes
from router.proxy import Proxy
from router.shortcut import Ways
from router.tries import Trail
from runtime.links.access.admission import Admission
from runtime.links.http.accounts import Account, Accounts, Rim
from runtime.links.http.exchanges import Incoming, Outgoing
from runtime.links.http.hot_routes import Route

INFER, INFER_VERSION = "/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"
PREDICT = "/v1/predict/{model}"
PART = "router"
"""Its name in the metrics."""
ASKING = (PREDICT, INFER, INFER_VERSION)
"""The routes whose story asks by itself who calls."""
REDIRECTED = "redirected"
REDIRECT = "foothill-redirect"
"""The preference (RFC 7240) with which a plain client asks to be sent to a node instead of being proxied."""

NodeFor = Callable[[Incoming, Terms], "str | None"]
"""The URL of the node to which a caller is best sent; None where there is none."""


class Stories:
    """`node_for` finds the node for callers who would rather be sent there. Without `admission` nobody is asked who he
    is. `ways` makes the short ways of a route. `clock` of the rim is monotonic, in seconds."""

    def __init__(
        self,
        calls: Calls,
        proxy: Proxy,
        nodes: Nodes,
        node_for: NodeFor,
        rim: Rim,
        admission: Admission | None,
        ways: Callable[[Accounts], Ways],
    ) -> None:
        self._calls = calls
        self._proxy = proxy
        self._nodes = nodes
        self._node_for = node_for
        self._rim = rim
        self._admission = admission
        self._ways = ways

    def routes(self) -> list[Route]:
        return [self._route(PREDICT, "predict"), self._route(INFER, "infer"), self._route(INFER_VERSION, "infer")]

    def _route(self, pattern: str, name: str) -> Route:
        accounts = Accounts(name, self._rim, pattern)

        async def story(request: Incoming) -> Outgoing:
            return await accounts.tell(self._answer, request)

        return Route("POST", pattern, story, self._ways(accounts).prepare, relays=True)

    async def _answer(self, request: Incoming, account: Account) -> Outgoing:
        """The request's own time starts when its body is there: what came before was the network's."""
        clock, model = self._rim.clock, request.params["model"]
        if self._admission is not None and request.grant is None:
            request.grant = await self._admission.check(request.headers, request.request_id, model)
        if self._nodes.serving(model):
            account.model = model  # of others callers could make up any number
        terms, deadline = self._calls.terms(request)
        if account.recording is not None:
            terms = msgspec.structs.replace(terms, traceparent=account.recording.traceparent)
        redirect = self._redirected(request, terms)
        if redirect is not None:
            total_ms = {TOTAL: (clock() - account.started_s) * 1000.0}
            account.answered("none", REDIRECTED, total_ms, redirect.status)
            redirect.headers[headers.SERVER_TIMING] = format_server_timing(total_ms)
            return redirect
        call = await self._calls.read(request, terms, deadline)
        account.body_bytes = call.request.size
        account.started_s = clock()
        settled = await self._proxy.answer(call, Trail(account.hops))
        phases_ms = {**settled.phases, TOTAL: (clock() - account.started_s) * 1000.0}
        if settled.answer.status == 200:
            account.model = model
        account.answered(settled.tier, settled.reason, phases_ms, settled.answer.status, region=settled.region)
        return settled_answer(settled, phases_ms, terms.request_id)

    def _redirected(self, request: Incoming, terms: Terms) -> Outgoing | None:
        """Where the caller prefers it and a node is in reach: `307` to the best node for its place."""
        if not _prefers_redirect(request.headers.getall("Prefer", ())):
            return None
        url = self._node_for(request, terms)
        if url is None:
            return None
        told = {
            "Location": url.rstrip("/") + request.target,
            "Preference-Applied": REDIRECT,
            headers.REASON: REDIRECTED,
            headers.REQUEST_ID: terms.request_id,
        }
        return Outgoing(307, told, b"")


def _prefers_redirect(told: Iterable[str]) -> bool:
    return any(wish.strip() == REDIRECT for line in told for wish in line.lower().split(","))
