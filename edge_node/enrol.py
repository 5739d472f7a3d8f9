"""Joining a fleet: a key made here, a token used once, and everything the node needs from then on in one file."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import aiohttp
import msgspec

from contracts.boards import Fingerprint
from contracts.decoding import UNREADABLE
from contracts.enrolment import EnrolAnswer, EnrolRequest
from contracts.errors import KINDS, ErrorBody, FoothillError
from contracts.messages import Identity, Signed, decode
from contracts.topics import NODE_NAME
from runtime.links.bundles.blob_http import aiohttp_tls
from runtime.links.process.durable import write_file
from runtime.links.trust import signatures
from runtime.links.trust.tls import SYSTEM, TlsConfig, told
from runtime.links.trust.tuf import HttpFetcher, TrustedFleet
from runtime.serving.engines.fingerprint import detect

FILE = "enrolment.json"
TRUST_DIR = "trust"
MAX_ANSWER_BYTES = 4 << 20
_TIMEOUT = aiohttp.ClientTimeout(total=30)
_HEX_KEY = re.compile(r"(?:[0-9a-f]{2}){16,64}")


class Enrolment(msgspec.Struct, frozen=True):
    """What a node knows of its fleet and of itself there. Secrets: `hop_key` and `private_key` (hex)."""

    node: str
    region: str
    lat: float
    lon: float
    url: str
    fleet_url: str
    broker_url: str
    cloud_urls: tuple[str, ...]
    root: bytes
    hop_key: str
    private_key: str
    identity: bytes


async def enrol(
    fleet_url: str,
    token: str,
    state_dir: Path,
    url: str,
    *,
    reach: Literal["public", "site"] = "public",
    fingerprint: Fingerprint | None = None,
    tls: TlsConfig = SYSTEM,
) -> Enrolment:
    """Joins the fleet with a one-time token and saves the enrolment in `state_dir`, readable by its owner only.

    `url` is where this node's own routes will answer; `fingerprint` None looks at this machine; `tls` is for a fleet
    at https.

    Raises FoothillError: `conflict` when this directory is enrolled already, the fleet's own error as it is,
    `unavailable` when the fleet cannot be reached, `forbidden` when its answer cannot be trusted.
    """
    _check_urls(fleet_url, url)
    refuse_second(state_dir)
    _prepare(state_dir)
    machine = fingerprint if fingerprint is not None else await asyncio.to_thread(detect)
    private = signatures.generate()
    public = signatures.public_key(private)
    answer = await _ask(fleet_url, EnrolRequest(token, public, url, reach, machine), tls)
    _check_answer(answer)
    trust = TrustedFleet(state_dir / TRUST_DIR, fleet_url, answer.root, fetcher=HttpFetcher(tls=tls))
    await asyncio.to_thread(_check_identity, answer, trust, public)
    enrolment = Enrolment(
        node=answer.node,
        region=answer.region,
        lat=answer.lat,
        lon=answer.lon,
        url=url,
        fleet_url=fleet_url.rstrip("/"),
        broker_url=answer.broker_url,
        cloud_urls=answer.cloud_urls,
        root=answer.root,
        hop_key=answer.hop_key,
        private_key=private.hex(),
        identity=answer.identity,
    )
    write_file(state_dir / FILE, msgspec.json.encode(enrolment), mode=0o600)
    return enrolment


def load_enrolment(state_dir: Path) -> Enrolment:
    """Raises FoothillError `not_found` when the node has never joined, `internal` when the file cannot be read."""
    path = state_dir / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Enrolment)
    except FileNotFoundError as error:
        raise FoothillError(
            "not_found",
            f"This node has joined no fleet yet ({path} is missing). Get a token with `foothill fleet node enrol`, "
            f"then run `foothill edge enrol --fleet URL --token ONCE --url NODE_URL --state {state_dir}`.",
        ) from error
    except (OSError, *UNREADABLE) as error:
        raise FoothillError(
            "internal", f"{path} cannot be read: {error}. Restore it, or remove it and enrol this node again."
        ) from error


def refuse_second(state_dir: Path) -> None:
    path = state_dir / FILE
    if path.exists():
        enrolment = load_enrolment(state_dir)
        raise FoothillError(
            "conflict",
            f"This directory is enrolled already: node {enrolment.node} of {enrolment.fleet_url}. Run it with "
            f"`foothill edge run`, give another --state, or remove {path} to join anew.",
        )


def _prepare(state_dir: Path) -> None:
    """Finds out that the directory cannot be written before the token is spent."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        write_file(state_dir / ".writable", b"")
        (state_dir / ".writable").unlink()
    except OSError as error:
        raise FoothillError(
            "bad_request", f"{state_dir} cannot be written ({error.strerror}). Give a writable --state directory."
        ) from error


async def _ask(fleet_url: str, request: EnrolRequest, tls: TlsConfig) -> EnrolAnswer:
    target = f"{fleet_url.rstrip('/')}/v1/enrol"
    body = msgspec.json.encode(request)
    try:
        connector = aiohttp.TCPConnector(ssl=await aiohttp_tls(target, tls))
        async with aiohttp.ClientSession(timeout=_TIMEOUT, connector=connector) as session:
            headers = {"Content-Type": "application/json"}
            async with session.post(target, data=body, headers=headers, allow_redirects=False) as response:
                status = response.status
                data = await response.content.read(MAX_ANSWER_BYTES)
                while more := await response.content.read(MAX_ANSWER_BYTES - len(data)):
                    data += more
    except (aiohttp.ClientError, asyncio.TimeoutError, ValueError) as error:
        raise FoothillError(
            "unavailable",
            f"The fleet at {fleet_url} cannot be reached: {told(error)}. Check --fleet, and that it runs.",
        ) from error
    if status not in (200, 201):
        raise _fleet_error(status, data, target)
    try:
        return msgspec.json.decode(data, type=EnrolAnswer)
    except UNREADABLE as error:
        raise FoothillError("upstream_failed", f"{target} did not answer like a Foothill fleet: {error}.") from error


def _fleet_error(status: int, data: bytes, target: str) -> FoothillError:
    try:
        body = msgspec.json.decode(data, type=ErrorBody)
    except UNREADABLE:
        return FoothillError("upstream_failed", f"{target} answered HTTP {status}. Is --fleet the fleet manager's URL?")
    code = body.code if body.code in KINDS else "upstream_failed"
    return FoothillError(code, body.message, source=body.source)


def _check_answer(answer: EnrolAnswer) -> None:
    if not NODE_NAME.fullmatch(answer.node):
        raise FoothillError("forbidden", f"The fleet gave {answer.node[:80]!r}, which is no node name.")
    if not _HEX_KEY.fullmatch(answer.hop_key):
        raise FoothillError("forbidden", "The fleet gave a hop key that is not 16 to 64 bytes of hex digits.")


def _check_identity(answer: EnrolAnswer, trust: TrustedFleet, public: str) -> None:
    """The identity must be signed by the very fleet whose root came with it, and speak of this node and its key."""
    trust.refresh()
    identity = signatures.verify(decode(answer.identity, Signed), trust.keys("identity"), Identity)
    if (identity.node, identity.public_key, identity.region) != (answer.node, public, answer.region):
        raise FoothillError(
            "forbidden",
            "The identity that the fleet signed is not this node's, or places it in another region. "
            "Ask for a new token.",
        )


def _check_urls(fleet_url: str, url: str) -> None:
    for name, value in (("--fleet", fleet_url), ("--url", url)):
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise FoothillError("bad_request", f"{name} {value!r} is no URL: write http://HOST:PORT.")
