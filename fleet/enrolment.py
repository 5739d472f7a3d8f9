"""How a node joins: an operator's token, used once, becomes a signed identity."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from urllib.parse import urlsplit

from contracts.enrolment import EnrolRequest, TokenAnswer, TokenRequest
from contracts.errors import FoothillError
from contracts.messages import Identity, encode
from contracts.places import Place
from contracts.topics import NODE_NAME
from fleet.auditing.entries import Enrolled, TokenIssued
from fleet.signing import Signing
from fleet.state import NodeRow, State, TokenRow
from runtime.links.trust.signatures import key_id

_MAX_URL = 2048


class Enrolment:
    """Synchronous, on the fleet's state thread. `clock` gives unix time."""

    def __init__(self, state: State, signing: Signing, clock: Callable[[], float], token_ttl_s: float) -> None:
        self._state = state
        self._signing = signing
        self._clock = clock
        self._token_ttl_s = token_ttl_s

    def issue(self, request: TokenRequest) -> TokenAnswer:
        """A token for one node. Only its hash is kept."""
        _check_place(request)
        now_s, token = self._clock(), secrets.token_urlsafe(32)
        self._state.drop_tokens(now_s - self._token_ttl_s)
        row = TokenRow(request.node, request.region, request.lat, request.lon)
        with self._state.transaction():
            self._state.put_token(_hash(token), row, now_s + self._token_ttl_s)
            self._state.log(TokenIssued(request.node, request.region, now_s + self._token_ttl_s))
        return TokenAnswer(token, request.node, now_s + self._token_ttl_s)

    def enrol(self, request: EnrolRequest) -> NodeRow:
        """Uses the token up and signs the node's identity. A node that joins again gets a new one.

        Raises FoothillError `unauthorized`, or `bad_request` before the token is touched.
        """
        _check_request(request)
        now_s = self._clock()
        with self._state.transaction():
            token = self._state.take_token(_hash(request.token), now_s)
            if token is None:
                raise FoothillError(
                    "unauthorized",
                    "The token is unknown, used or expired. Ask the operator for another: foothill fleet node enrol.",
                )
            node = self._sign(token, request, now_s)
            self._state.put_node(node)
            self._state.log(_enrolled(node))
        return node

    def _sign(self, token: TokenRow, request: EnrolRequest, now_s: float) -> NodeRow:
        before = self._state.node(token.node)
        sequence = next_sequence(before.sequence if before else 0, now_s)
        url = request.url.rstrip("/")
        identity = Identity(
            node=token.node,
            region=token.region,
            lat=token.lat,
            lon=token.lon,
            url=url,
            reach=request.reach,
            public_key=request.public_key,
            target=request.fingerprint.target,
            sequence=sequence,
        )
        return NodeRow(
            name=token.node,
            region=token.region,
            lat=token.lat,
            lon=token.lon,
            url=url,
            reach=request.reach,
            public_key=request.public_key,
            fingerprint=request.fingerprint,
            sequence=sequence,
            identity=encode(self._signing.sign(identity)),
            enrolled_at_s=now_s,
        )


def _enrolled(node: NodeRow) -> Enrolled:
    return Enrolled(node.name, node.region, node.url, node.reach, key_id(node.public_key), node.sequence)


def next_sequence(last: int, now_s: float) -> int:
    """Above the last one, and above all that a lost database may have given out: unix milliseconds at least."""
    return max(last + 1, int(now_s * 1000))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _check_place(request: TokenRequest) -> None:
    for what, name in (("node", request.node), ("region", request.region)):
        if not NODE_NAME.fullmatch(name):
            raise FoothillError(
                "bad_request", f"{what} {name[:80]!r} must be lower-case letters, digits and '-', at most 63."
            )
    try:
        Place(request.lat, request.lon)
    except ValueError as error:
        raise FoothillError("bad_request", str(error)) from error


def _check_request(request: EnrolRequest) -> None:
    try:
        key_bytes = len(bytes.fromhex(request.public_key))
    except ValueError:
        key_bytes = 0
    if key_bytes != 32:
        raise FoothillError("bad_request", "public_key must be an Ed25519 public key: 64 hex digits.")
    if not _is_base(request.url):
        raise FoothillError(
            "bad_request",
            f"url {request.url[:80]!r} must be the node's own http:// or https:// URL, without user or query.",
        )


def _is_base(url: str) -> bool:
    """Whether routers can put the paths of requests behind it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = len(url) <= _MAX_URL and url.isascii() and url.isprintable() and not set(url) & set(" @?#\\")
    return plain and bool(parts.hostname) and port != 0 and parts.scheme in ("http", "https")
