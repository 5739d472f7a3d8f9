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

    @property
    def awaited(self) -> bool:
        """Whether a caller that sends no more may still wait for an answer. One that reads an answer without an end, or
        speaks HTTP/1.0, is taken to be gone."""
        ...

    def probe(self) -> None:
        """Says to a caller that waits that it may go on, where it can be told."""
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
