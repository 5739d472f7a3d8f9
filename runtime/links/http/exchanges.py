"""A request and its answer as the stories of the data plane see them, whichever protocol carried them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import msgspec
from multidict import CIMultiDictProxy

from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from runtime.links.access.grants import Grant
from runtime.links.http.spool import Spool

Clock = Callable[[], float]
Body = bytes | bytearray | memoryview
"""All of it, which nobody changes."""
Varied = Mapping[str, str]
"""Of headers that callers give anew with every request, the values of one request, by name."""


class Incoming(Protocol):
    """One request. `target` is its path with the query, as it was sent; `params` what its route found in it.

    `grant` is what its caller may do, once somebody has asked. `waited_s`: for so long it was here before its story
    began.
    """

    grant: Grant | None
    waited_s: float

    @property
    def remote(self) -> str:
        """The address at the other end of the connection; "" where it has none."""
        ...

    @property
    def method(self) -> str: ...

    @property
    def target(self) -> str: ...

    @property
    def headers(self) -> CIMultiDictProxy[str]: ...

    @property
    def params(self) -> Mapping[str, str]: ...

    @property
    def request_id(self) -> str:
        """The caller's when it is in form, else a new one; always the same."""
        ...

    def expect(self, count: int) -> tuple[bytes, int]:
        """The first `count` bytes of a body that is still on its way, as far as they are here, and how long it is to
        be; nothing of one that is here, or that does not come plainly."""
        ...

    async def read(self, limit: int, deadline: Deadline, clock: Clock) -> Body:
        """The whole body, decompressed. Raises as `runtime.links.http.bodies.read_body`."""
        ...

    async def store(self, limit: int, above: int, deadline: Deadline, clock: Clock) -> Body | Spool:
        """As `read`, but what is longer than `above` bytes goes to disk. Raises FoothillError `unavailable` too."""
        ...


class Known(Incoming, Protocol):
    """One whose head others may have too, but for what is `varied`."""

    def again(self, request_id: str, varied: Varied) -> Known:
        """Another one with such a head."""
        ...


def header_lines(headers: Mapping[str, str]) -> str:
    """As they go over the wire. Raises FoothillError `internal` for a value that would begin another header."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise FoothillError("internal", f"One of the headers {', '.join(headers)} has a line break in its value.")
    return lines


class Fixed:
    """Headers that many answers share, written once."""

    __slots__ = ("headers", "lines")

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = dict(headers)
        self.lines = header_lines(headers)


_NONE = Fixed({})


class Outgoing(msgspec.Struct):
    """One answer; its protocol adds length and date.

    Its headers are the `fixed` ones, those in `lines` as they go over the wire, which must come from nobody else, and
    `headers`. A body that lies on disk is its `spool`, and `body` is empty.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    fixed: Fixed = _NONE
    lines: str = ""
    spool: Spool | None = None

    @property
    def size(self) -> int:
        """Of the body, in bytes."""
        return len(self.body) if self.spool is None else len(self.spool)

    def all_headers(self) -> dict[str, str]:
        named = dict(line.split(": ", 1) for line in self.lines.splitlines())
        return {**self.fixed.headers, **named, **self.headers}


Story = Callable[[Incoming], Awaitable[Outgoing]]
