"""Who may use this server: the admin token, a static token, a lease's ticket, or another hop's mark."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from contracts import headers
from contracts.errors import FoothillError
from contracts.tickets import looks_like_ticket
from runtime.links.access.grants import ANYBODY, GRANT, Grant
from runtime.links.access.hop import verify_hop
from runtime.links.access.ticket_keys import TicketKeys
from runtime.links.access.tickets import TicketBook
from runtime.links.access.tokens import TokenFile, Unleased, hash_of
from runtime.links.http.errors import request_id_of

OPEN = frozenset({"/healthz", "/v2/health/live", "/v2/health/ready"})
"""What probes and load balancers ask: it tells names of models, and takes nothing."""
_OF_ONE_REQUEST = frozenset({"/v1/route", "/v1/explain", "/v1/results/{request_id}"})
"""Routes without a model in their path whose handlers check it."""
HOW_TO_ASK = "name the tokens that may call in `auth.tokens_file`, or set `auth.tickets = true`"
_SCHEME = "bearer "
_ADMIN = Grant("admin")


class AuthConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[auth]` of nodes and the cloud tier. With neither key nobody is asked who he is."""

    tokens_file: str = ""
    tickets: bool = False

    @property
    def asks(self) -> bool:
        return bool(self.tokens_file) or self.tickets


class Admission:
    """Admits a request by its `Authorization`, or by a verified mark of another hop. `wall` is unix time.

    Without `hop_key` no mark is believed; without `tokens` or `tickets` none of these are taken.
    """

    def __init__(
        self,
        *,
        tokens: TokenFile | None,
        tickets: TicketBook | None,
        admin_token: str = "",
        hop_key: bytes | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._tokens = tokens
        self._tickets = tickets
        self._admin_token = admin_token.encode()
        self._hop_key = hop_key
        self._wall = wall

    async def check(self, sent: Mapping[str, str], request_id: str, model: str | None) -> Grant:
        """What the sender of a request with these headers may do; a router or node that sends one on has asked its
        caller. `model`: "" is a route about the server itself, None leaves the check to the route.

        Raises FoothillError `unauthorized`, `ticket_expired`, `forbidden`, `rate_limited` or `unavailable`.
        """
        while True:
            try:
                known = self._known(sent, request_id, model)
            except Unleased as error:
                await error.ask()
                continue
            if known is not None:
                return known
            assert self._tickets is not None
            return await self._tickets.grant(bearer(sent.get("Authorization")), model)

    def check_now(self, sent: Mapping[str, str], request_id: str, model: str | None) -> Grant | None:
        """As `check`, where nothing has to be waited for; None where something has."""
        try:
            return self._known(sent, request_id, model)
        except Unleased:
            return None

    def _known(self, sent: Mapping[str, str], request_id: str, model: str | None) -> Grant | None:
        """None for a ticket that was not seen before."""
        if self._passes(sent.get(headers.HOP), request_id):
            return ANYBODY
        token = bearer(sent.get("Authorization"))
        if not token:
            raise FoothillError("unauthorized", f"This server asks who calls: send `Authorization: {self._wanted()}`.")
        if self._admin_token and hmac.compare_digest(token.encode(errors="replace"), self._admin_token):
            return _ADMIN
        if looks_like_ticket(token) and self._tickets is not None:
            return self._tickets.remembered(token, model)
        if looks_like_ticket(token) or self._tokens is None:
            raise FoothillError("unauthorized", f"This is not what this server takes: send `{self._wanted()}`.")
        return self._tokens.grant(token, model)

    def token_of(self, sent: Mapping[str, str]) -> str:
        """The hash of the static token among these headers; "" where there is none that could be one."""
        token = bearer(sent.get("Authorization"))
        return hash_of(token) if token and not looks_like_ticket(token) else ""

    def token_grant(self, token_hash: str, model: str) -> Grant | None:
        """As `check_now`, for a caller with this static token, whose requests are all alike."""
        try:
            return self._tokens.known(token_hash, model) if token_hash and self._tokens is not None else None
        except Unleased:
            return None

    def _passes(self, hop: str | None, request_id: str) -> bool:
        if hop is None or self._hop_key is None:
            return False
        return verify_hop(self._hop_key, hop, request_id, self._wall()) is not None

    def _wanted(self) -> str:
        if self._tickets is None:
            return "Bearer TOKEN"
        ticket = "Bearer TICKET, of a lease from POST /v1/route"
        return f"{ticket}, or Bearer TOKEN" if self._tokens is not None else ticket


def open_admission(
    auth: AuthConfig,
    *,
    keys: TicketKeys | None,
    audience: str,
    admin_token: str = "",
    hop_key: bytes | None = None,
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
) -> Admission | None:
    """As configured; None where nobody is asked. Raises SettingsError for a tokens file that cannot be read."""
    if not auth.asks:
        return None
    return Admission(
        tokens=TokenFile(Path(auth.tokens_file), clock) if auth.tokens_file else None,
        tickets=TicketBook(keys, audience, wall) if keys is not None else None,
        admin_token=admin_token,
        hop_key=hop_key,
        wall=wall,
    )


def bearer(authorization: str | None) -> str:
    """The token of an `Authorization` header; "" without one."""
    given = authorization or ""
    return given[len(_SCHEME) :].strip() if given[: len(_SCHEME)].lower() == _SCHEME else ""


def admission_middleware(admission: Admission, *, asking: Collection[str] = ()) -> Middleware:
    """Asks before a handler reads anything; handlers of the paths (with their patterns) in `asking` ask by themselves.

    Stands inside the error middleware.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        path = "" if resource is None else resource.canonical
        if path not in OPEN and path not in asking:
            model = None if path in _OF_ONE_REQUEST else request.match_info.get("model", "")
            request[GRANT] = await admission.check(request.headers, request_id_of(request), model)
        return await handler(request)

    return middleware
