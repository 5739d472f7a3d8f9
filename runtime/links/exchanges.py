"""A request and its answer as the stories of the data plane see them, whichever protocol carried them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import msgspec
from multidict import CIMultiDictProxy

from contracts.deadlines import Deadline

Clock = Callable[[], float]


class Incoming(Protocol):
    """One request. `target` is its path with the query, as it was sent; `params` what its route found in it."""

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

    async def read(self, limit: int, deadline: Deadline, clock: Clock) -> bytes:
        """The whole body, decompressed. Raises as `runtime.links.bodies.read_body`."""
        ...


class Outgoing(msgspec.Struct):
    """One answer; its headers are the story's own, and its protocol adds length and date."""

    status: int
    headers: dict[str, str]
    body: bytes


Story = Callable[[Incoming], Awaitable[Outgoing]]
