"""The root of trust of a process that did not enrol: named in its configuration, or pinned at first sight."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root

from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from runtime.links.http.upstream import Request, Upstreams, UpstreamUnreachable
from runtime.links.process.durable import write_file
from runtime.links.trust.tls import SYSTEM, TlsConfig, TlsFilesError, client_context
from runtime.links.trust.tuf import HttpFetcher, TrustedFleet

log = logging.getLogger(__name__)

PINNED = "root.json"
TRUST_DIR = "trust"
_ROOT_PATH = "/tuf/metadata/1.root.json"
_TIMEOUT_MS = 5_000.0


async def open_fleet(
    root: Path | None, state_dir: Path, fleet_url: str, upstreams: Upstreams, tls: TlsConfig = SYSTEM
) -> TrustedFleet:
    """The fleet's signed metadata under `state_dir`, by the root of `pinned_root`. Raises as that does.

    A `fleet_url` of https is reached with `tls` alone.
    """
    if fleet_url.startswith("https:"):
        upstreams = Upstreams(ssl=await asyncio.to_thread(_context, tls))
        try:
            trusted = await pinned_root(root, state_dir, fleet_url, upstreams)
        finally:
            await upstreams.close()
    else:
        trusted = await pinned_root(root, state_dir, fleet_url, upstreams)
    return await asyncio.to_thread(_trusted, state_dir / TRUST_DIR, fleet_url, trusted, tls)


def _trusted(directory: Path, fleet_url: str, root: bytes, tls: TlsConfig) -> TrustedFleet:
    return TrustedFleet(directory, fleet_url, root, fetcher=HttpFetcher(tls=tls))


def _context(tls: TlsConfig) -> ssl.SSLContext:
    try:
        return client_context(tls)
    except TlsFilesError as error:
        raise FoothillError("unavailable", f"{error}. Correct the path, or the file.") from error


async def pinned_root(
    root: Path | None,
    state_dir: Path,
    fleet_url: str,
    upstreams: Upstreams,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> bytes:
    """The fleet's TUF root metadata: the file `root`, else what the fleet answered the first time it was asked.

    Whoever answers at `fleet_url` that day is believed from then on. Raises FoothillError `unavailable`.
    """
    if root is not None:
        return await asyncio.to_thread(_read, root)
    pinned = state_dir / PINNED
    if not pinned.exists():
        data = await _first_root(fleet_url, upstreams, clock)
        await asyncio.to_thread(_pin, pinned, data)
        log.warning(
            "trusting %s from now on, as it answered first: its root is pinned in %s; name a `root` to avoid this",
            fleet_url,
            pinned,
        )
    return await asyncio.to_thread(_read, pinned)


async def _first_root(fleet_url: str, upstreams: Upstreams, clock: Callable[[], float]) -> bytes:
    deadline = Deadline.after(_TIMEOUT_MS, now_s=clock())
    try:
        answer = await upstreams.send(fleet_url, Request("GET", _ROOT_PATH, {}), deadline=deadline, clock=clock)
    except UpstreamUnreachable as error:
        raise FoothillError("unavailable", f"No root metadata yet: {error}. Start the fleet manager.") from error
    if answer.status != 200:
        raise FoothillError("unavailable", f"{fleet_url}{_ROOT_PATH} answered HTTP {answer.status}. Is it a fleet?")
    _check(answer.body, fleet_url)
    return answer.body


def _check(data: bytes, fleet_url: str) -> None:
    """What is pinned stays: it must at least be root metadata that its own keys have signed."""
    try:
        root = Metadata[Root].from_bytes(data)
        root.signed.verify_delegate(Root.type, root.signed_bytes, root.signatures)
    except RepositoryError as error:
        raise FoothillError("unavailable", f"{fleet_url}{_ROOT_PATH} is no root metadata: {error}.") from error


def _pin(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, data)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FoothillError("unavailable", f"root {path} cannot be read ({error.strerror}). Correct it.") from error
