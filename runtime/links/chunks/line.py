"""A node's line to its fleet for contents in chunks: what it asks for over MQTT, and which answers it takes.

An answer is taken when a chunk that was asked for comes signed by the fleet under the number of the asking. So nobody
else at the broker can bring wrong bytes in, an old answer cannot be played again, and a flood of other messages costs
no more than looking at them.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Literal, NamedTuple

from contracts.errors import FoothillError
from contracts.manifest import digest_of
from contracts.messages import (
    CHUNK_BYTES,
    MAX_CHUNK_MESSAGE_BYTES,
    MOST_WANTED_CHUNKS,
    Chunk,
    ChunkWant,
    Signed,
    chunks_of,
    decode,
    encode,
)
from contracts.topics import chunk_topic
from runtime.links.chunks.window import Window
from runtime.links.mqtt.port import MqttPort
from runtime.links.process.within import within
from runtime.links.trust import signatures

log = logging.getLogger(__name__)

CONNECT_S = 10.0
GIVE_UP_S = 60.0
_DOUBT_S = 5.0

Keys = Callable[[], Mapping[str, str]]
"""Key id to public key (hex) of those who may sign chunks, as far as this node knows; never asks the fleet."""

Outcome = Literal["taken", "unasked", "unsigned", "unreadable"]


class Piece(NamedTuple):
    number: int
    data: bytes


class Terms(NamedTuple):
    """How long a line is patient, in seconds: for a connection, and for the next chunk."""

    connect_s: float = CONNECT_S
    give_up_s: float = GIVE_UP_S


PATIENT = Terms()


class ChunkLine:
    """One connection of a node's own for chunks, open while somebody fetches: what goes on for minutes must not hold
    up the node's other messages. Use it on its event loop only; `clock` is monotonic, in seconds."""

    def __init__(
        self,
        *,
        node: str,
        private_key: bytes,
        open_port: Callable[[], MqttPort],
        keys: Keys,
        terms: Terms = PATIENT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._private_key = private_key
        self._open_port = open_port
        self._read_keys = keys
        self._keys: Mapping[str, str] = {}
        self._terms = terms
        self._clock = clock
        self._port: MqttPort | None = None
        self._users = 0
        self._changing = asyncio.Lock()
        self._pulls: dict[int, Pull] = {}
        self.heard: Counter[Outcome] = Counter()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """The line stands meanwhile. Raises FoothillError `unavailable` where no broker answers."""
        async with self._changing:
            self._users += 1
            # Not in a thread: those may all be waiting for metadata that comes over this line.
            self._keys = self._read_keys()
        try:
            await self._connect()
            yield
        finally:
            await self._release()

    def pull(self, content: str, missing: Iterable[int], size: int | None, *, lenient: bool = False) -> Pull:
        """Begins to fetch chunks of a content; `size` None: the answers tell. Close it at the end.

        `lenient` also takes answers by a key that this node does not know, after it has waited for known ones: for
        signed metadata, which proves itself and may be what makes the key known.
        """
        pull = Pull(self, secrets.randbits(53), content, deque(missing), size, lenient)
        self._pulls[pull.ask] = pull
        return pull

    def want(self, ask: int, content: str, chunks: tuple[int, ...]) -> None:
        wanted = signatures.sign(ChunkWant(self._node, ask, content, chunks), self._private_key)
        if self._port is not None:
            self._port.publish(chunk_topic(self._node, "want"), encode(wanted), qos=0)

    def end(self, pull: Pull) -> None:
        self._pulls.pop(pull.ask, None)

    @property
    def terms(self) -> Terms:
        return self._terms

    def now_s(self) -> float:
        return self._clock()

    async def _connect(self) -> None:
        async with self._changing:
            if self._port is None:
                port = self._open_port()
                port.subscribe(chunk_topic(self._node, "piece"), self._hear, qos=0)
                port.on_connect(self._ask_again)
                await port.start()
                self._port = port
            port = self._port
        try:
            await port.wait_connected(self._terms.connect_s)
        except TimeoutError as error:
            raise FoothillError("unavailable", f"Nothing can be fetched over MQTT: {error}") from error

    async def _release(self) -> None:
        async with self._changing:
            self._users -= 1
            port, self._port = self._port, self._port if self._users else None
            if port is not None and self._port is None:
                await port.stop()

    def _ask_again(self) -> None:
        for pull in self._pulls.values():
            pull.reconnected()

    def _hear(self, _: str, payload: bytes) -> None:
        outcome = self._take(payload)
        self.heard[outcome] += 1
        if outcome not in ("taken", "unasked") and self.heard[outcome] == 1:
            log.warning(
                "a chunk for this node is %s, and others like it will be dropped without a word: somebody who is not "
                "this fleet publishes at the broker",
                outcome,
            )

    def _take(self, payload: bytes) -> Outcome:
        """The cheap questions first: a flood must not cost a signature each."""
        if len(payload) > MAX_CHUNK_MESSAGE_BYTES:
            return "unreadable"
        try:
            signed = decode(payload, Signed)
            claimed = decode(signed.payload, Chunk)
        except FoothillError:
            return "unreadable"
        pull = self._pulls.get(claimed.ask)
        if pull is None or not pull.waits_for(claimed):
            return "unasked"
        data = signed.attachments.get(claimed.data, b"")
        if not self._believed(signed, pull) or (claimed.data and digest_of(data) != claimed.data):
            return "unsigned"
        return "taken" if pull.take(claimed, data) else "unreadable"

    def _believed(self, signed: Signed, pull: Pull) -> bool:
        if pull.lenient and signed.key_id not in self._keys:
            return not self._keys or self._clock() - pull.began_s > _DOUBT_S
        try:
            signatures.verify(signed, self._keys, Chunk)
        except FoothillError:
            return False
        return True


class Pull:
    """The fetch of one content's chunks: what is missing, under way, and here."""

    def __init__(
        self, line: ChunkLine, ask: int, content: str, missing: deque[int], size: int | None, lenient: bool
    ) -> None:
        self.ask = ask
        self.size = size
        self.lenient = lenient
        self.began_s = self._heard_s = line.now_s()
        self._line = line
        self._content = content
        self._missing = missing
        self._window = Window(most=MOST_WANTED_CHUNKS)
        self._here: list[Piece] = []
        self._error = ""
        self._news = asyncio.Event()

    async def next(self) -> list[Piece]:
        """The chunks that have come since, one at least, in any order.

        Raises FoothillError: `not_found` when the fleet has no such content for this node, `unavailable` when nothing
        has come for a minute.
        """
        while not self._here:
            if self._error:
                raise FoothillError("not_found", f"The fleet has no {self._content} for this node: {self._error}.")
            self._ask_again()
            self._ask_more()
            await self._wait()
        here, self._here = self._here, []
        return here

    def close(self) -> None:
        self._line.end(self)

    def reconnected(self) -> None:
        """What was asked for over a connection that broke is asked for again at once."""
        self._missing.extendleft(reversed(self._window.forget()))
        self._news.set()

    def waits_for(self, chunk: Chunk) -> bool:
        return chunk.content == self._content and (bool(chunk.error) or self._window.knows(chunk.index))

    def take(self, chunk: Chunk, data: bytes) -> bool:
        """One that it waits for. False when its length is wrong."""
        self._heard_s = self._line.now_s()
        if chunk.error:
            self._error = chunk.error[:200]
        elif not self._fits(chunk, data):
            return False
        else:
            if self.size is None:
                self.size = chunk.size
                self._missing.extend(range(1, chunks_of(chunk.size)))
            if not self._window.arrived(chunk.index, self._heard_s):
                self._missing.remove(chunk.index)
            self._here.append(Piece(chunk.index, data))
        self._news.set()
        return True

    def _fits(self, chunk: Chunk, data: bytes) -> bool:
        size = chunk.size if self.size is None else self.size
        return chunk.size == size and len(data) == min(CHUNK_BYTES, size - chunk.index * CHUNK_BYTES)

    def _ask_again(self) -> None:
        now_s = self._line.now_s()
        if now_s - self._heard_s > self._line.terms.give_up_s:
            raise FoothillError(
                "unavailable",
                f"{self._content} does not come over MQTT: no chunk for {now_s - self._heard_s:.0f} s. What came is "
                f"kept. Is the fleet manager connected to this broker?",
            )
        self._missing.extendleft(reversed(self._window.late(now_s)))

    def _ask_more(self) -> None:
        """In groups of a quarter of the window: a want for each chunk would be as many messages again."""
        while self._missing and self._window.room >= max(1, min(self._window.size // 4, len(self._missing))):
            chunks = tuple(self._next_missing())
            if chunks:
                self._line.want(self.ask, self._content, chunks)

    def _next_missing(self) -> Iterable[int]:
        now_s = self._line.now_s()
        for _ in range(min(self._window.room, len(self._missing), MOST_WANTED_CHUNKS)):
            index = self._missing.popleft()
            self._window.ask(index, now_s)
            yield index

    async def _wait(self) -> None:
        self._news.clear()
        wait_s = min(self._window.wait_s(self._line.now_s()), self._line.terms.give_up_s)
        try:
            await within(self._news.wait(), max(0.001, wait_s))
        except asyncio.TimeoutError:
            return
