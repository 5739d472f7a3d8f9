"""The other protocol on a connection with hot routes: it answers the requests for all other routes."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Theirs(Protocol):
    """It calls `their_answer_ended` of the HotConnection behind each of its answers, and says there that it `ends`."""

    @property
    def answering(self) -> bool:
        """A whole request is, or will be without another byte."""
        ...

    def data_received(self, data: bytes) -> None:
        """Bytes of such requests."""
        ...

    def note_free(self) -> None:
        """No answer to a hot route is under way any more. To be told once it ends; it may be told before."""
        ...

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def eof_received(self) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...
