"""A GET to this machine, for readiness and counters: no pool, no proxy, no TLS, standard library only."""

from __future__ import annotations

import http.client
from typing import NamedTuple
from urllib.parse import urlsplit


class Got(NamedTuple):
    status: int
    body: bytes


def get(url: str, *, timeout_s: float) -> Got:
    """Raises OSError or http.client.HTTPException when nobody, or nobody sensible, answers; ValueError for no URL."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{url!r} is no http URL.")
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
    try:
        connection.request("GET", f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}")
        answer = connection.getresponse()
        return Got(answer.status, answer.read())
    finally:
        connection.close()
