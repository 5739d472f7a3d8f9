"""What RTSP says in text: requests and responses (RFC 2326, 6 and 7)."""

from __future__ import annotations

import string
from typing import NamedTuple
from urllib.parse import quote

from edge_node.cameras.sources.trouble import Trouble

VERSION = "RTSP/1.0"
MOST_HEAD_BYTES = 64 << 10
MOST_BODY_BYTES = 1 << 20
NO_RTSP = "it does not speak RTSP: correct the port in the address"


class Said(NamedTuple):
    """A response, or a request of the camera's (`status` 0). Names of headers are in lower case."""

    status: int
    headers: dict[str, tuple[str, ...]]
    body: bytes = b""

    def header(self, name: str) -> str:
        """The first of that name; "" where there is none."""
        return self.headers.get(name, ("",))[0]

    @property
    def sequence(self) -> int:
        """-1 where it says none."""
        said = self.header("cseq")
        return int(said) if said.isascii() and said.isdecimal() and len(said) < 10 else -1


def target(url: str) -> str:
    """An address that stays on its line."""
    return quote(url, safe=string.punctuation)


def asked(method: str, url: str, headers: dict[str, str]) -> bytes:
    lines = (f"{method} {url} {VERSION}", *(f"{name}: {value}" for name, value in headers.items()))
    return "\r\n".join((*lines, "", "")).encode()


def head_of(text: bytes) -> tuple[Said, int]:
    """All but the body, and how long that is. Raises Trouble."""
    first, *lines = text.decode("utf-8", "replace").splitlines() or [""]
    headers: dict[str, tuple[str, ...]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        key = name.strip().lower()
        headers[key] = (*headers.get(key, ()), value.strip())
    said = Said(_status(first), headers)
    length = said.header("content-length") or "0"
    if not (length.isascii() and length.isdecimal()) or len(length) > 9 or int(length) > MOST_BODY_BYTES:
        raise Trouble("lost", NO_RTSP)
    return said, int(length)


def _status(first: str) -> int:
    parts = first.split(" ", 2)
    if parts[0].startswith("RTSP/") and len(parts) > 1 and parts[1].isascii() and parts[1].isdecimal():
        return int(parts[1][:3])
    if len(parts) == 3 and parts[2].startswith("RTSP/"):
        return 0
    raise Trouble("lost", NO_RTSP)
