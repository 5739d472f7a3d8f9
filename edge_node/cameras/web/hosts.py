"""By which names pictures are shown to a browser, where nothing asks who calls.

The page of a stranger can have its own name mean this machine from one moment to the next, and then read all that is
here as its own (DNS rebinding: Jackson et al. 2007, "Protecting Browsers from DNS Rebinding Attacks"). Such a name is
one that somebody can register: an address, a name without a dot and those that only a local network resolves are not.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from contracts.errors import FoothillError

PATHS = ("/cameras", "/v1/cameras")
_LOCAL = ("localhost", "local", "lan", "home", "internal", "home.arpa")
"""RFC 6761, RFC 6762 (appendix G too), RFC 8375, and ICANN's resolution 2024.07.29.06 for `internal`."""
_PORT = re.compile(r":\d{1,5}$")


def known_hosts(allowed: Collection[str], own: str | None = None) -> Middleware:
    """Refuses calls of camera routes under any other name. `own` is the machine's name."""
    names = frozenset(name.lower().rstrip(".") for name in (*allowed, own or socket.gethostname()))

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        if host and request.path.startswith(PATHS) and not is_known(host, names):
            raise FoothillError(
                "forbidden",
                f"{host[:80]!r} is a name that anybody could have sent you here by. Use the node's address, or add the "
                "name to allowed_hosts.",
            )
        return await handler(request)

    return check


def is_known(host: str, names: Collection[str]) -> bool:
    """`host` as a caller sends it, with or without a port."""
    name = _PORT.sub("", host).strip("[]").lower().rstrip(".")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in name or name in names or name.endswith(tuple(f".{local}" for local in _LOCAL))
    return True
