"""Ports of servers whose number must be known before they start."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack, closing, suppress
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST, _USUAL_FLOOR = 10_240, 32_768
_TRIES = 1_000


def check_free(host: str, port: int) -> None:
    """Raises OSError where a server could not listen on the TCP port now; what is only closing does not count."""
    with closing(_socket(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def free_ports(number: int, host: str = "127.0.0.1") -> list[int]:
    """So many distinct TCP ports that are free on `host` now, none of which the system gives to outgoing connections.

    Such a one may be taken again before the server starts. Prefer port 0 where a server can tell which port it got.
    Raises OSError for a host that is not this machine's.
    """
    floor, rng = _ephemeral_floor(), random.SystemRandom()
    with ExitStack() as held:
        sockets = [held.enter_context(closing(_socket(host))) for _ in range(number)]
        return [_bind(one, host, floor, rng) for one in sockets]


def _bind(one: socket.socket, host: str, floor: int, rng: random.Random) -> int:
    for _ in range(_TRIES if floor > _LOWEST else 0):
        port = rng.randrange(_LOWEST, floor)
        with suppress(OSError):
            one.bind((host, port))
            return port
    one.bind((host, 0))
    return int(one.getsockname()[1])


def _socket(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)


def _ephemeral_floor() -> int:
    """The lowest port of outgoing connections; where the system does not tell, that of Linux, below most others'."""
    try:
        return int(_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _USUAL_FLOOR
