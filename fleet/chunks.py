"""Contents in chunks for nodes that reach the broker and not the registry.

A node is given the files of the bundles that are assigned to it, and the signed metadata, which is public. Nothing
here remembers a transfer: what is lost, the node asks for again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from contracts import manifest as manifests
from contracts.errors import FoothillError
from contracts.manifest import digest_of, is_digest
from contracts.messages import CHUNK_BYTES, Chunk, ChunkWant, Signed, chunks_of, decode, encode
from contracts.topics import EVERY_WANT, chunk_topic, wanting_node
from fleet.chunk_queue import ChunkQueue, Wanted
from fleet.metrics import Metrics
from fleet.oci import OciLayout
from fleet.signing import Signing
from fleet.state import NodeRow, State, Worker
from runtime.links.mqtt.port import MqttPort
from runtime.links.trust import signatures

log = logging.getLogger(__name__)

_AT_A_TIME = 8
_MOST_UNDER_WAY = 24
_BELIEVED_S, _ASK_AGAIN_S = 60.0, 1.0
_METADATA = re.compile(
    r"metadata/[0-9a-z\-]{1,80}(\.[0-9a-z\-]{1,80})?\.json"
    r"|targets/keys/[0-9a-f]{64}\.control\.json"
    r"|targets/bundles/[0-9a-z\-]{1,63}/[0-9a-f]{64}\.[0-9a-f]{64}\.json"
)
_NOT_HERE = "it is not published, or not assigned to this node"


class ChunkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether chunks are served, and how many of their bytes a second at most, to all nodes together; 0: no bound."""

    serve: bool = True
    max_bytes_per_s: Annotated[int, msgspec.Meta(ge=0)] = 0


class _Allowed(NamedTuple):
    """The digests that a node may read, as they were at a time."""

    digests: frozenset[str]
    at_s: float


class ChunkService:
    """Serves on an MQTT connection of its own. `node` finds enrolled nodes; `state` is used on `worker`.

    `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        *,
        port: MqttPort,
        worker: Worker,
        state: State,
        signing: Signing,
        blobs: OciLayout,
        tuf_directory: Path,
        settings: ChunkSettings,
        metrics: Metrics,
        node: Callable[[str], NodeRow | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._port = port
        self._worker = worker
        self._state = state
        self._signing = signing
        self._blobs = blobs
        self._tuf = tuf_directory
        self._settings = settings
        self._metrics = metrics
        self._node = node
        self._clock = clock
        self._queue = ChunkQueue()
        self._reading = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chunks")
        self._waiting = asyncio.Event()
        self._allowed: dict[str, _Allowed] = {}
        self._free_at_s = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Returns at once. Does nothing where chunks are not to be served."""
        if self._settings.serve:
            self._port.subscribe(EVERY_WANT, self._on_want, qos=0)
            await self._port.start()
            self._tasks = [asyncio.ensure_future(self._serve())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._port.stop()
        self._reading.shutdown(wait=False)

    async def _on_want(self, topic: str, payload: bytes) -> None:
        try:
            want = self._read(topic, payload)
        except (FoothillError, ValueError):
            self._metrics.want_refused()
            raise
        known = await self._may_read(want.node, want.content) if is_digest(want.content) else True
        if known:
            self._queue.add(want)
            self._waiting.set()
        elif known is not None:
            self._metrics.want_refused()
            self._send(want.node, self._answer(want.ask, want.content, error=_NOT_HERE))

    def _read(self, topic: str, payload: bytes) -> ChunkWant:
        """A want that the node of this topic signed. Raises FoothillError or ValueError."""
        name = wanting_node(topic)
        node = self._node(name)
        if node is None:
            raise FoothillError("forbidden", f"Node {name} is not enrolled.")
        keys = {signatures.key_id(node.public_key): node.public_key}
        want = signatures.verify(decode(payload, Signed), keys, ChunkWant)
        if want.node != name:
            raise FoothillError("forbidden", f"A want of node {want.node[:80]!r} came on {topic}.")
        if not is_digest(want.content) and not _METADATA.fullmatch(want.content):
            raise FoothillError("bad_request", f"{want.content!r} is neither a digest nor signed metadata.")
        return want

    async def _may_read(self, node: str, digest: str) -> bool | None:
        """None where nobody can tell now: the database is asked once a second for each node at most."""
        allowed, now_s = self._allowed.get(node), self._clock()
        if allowed is not None and digest in allowed.digests and now_s - allowed.at_s < _BELIEVED_S:
            return True
        if allowed is not None and now_s - allowed.at_s < _ASK_AGAIN_S:
            return None
        digests = await self._worker.run(self._assigned_files, node)
        self._allowed[node] = _Allowed(digests, now_s)
        return digest in digests

    def _assigned_files(self, node: str) -> frozenset[str]:
        bundles = map(self._state.bundle_by_digest, self._state.assigned(node).values())
        decoded = [manifests.decode(bundle.manifest) for bundle in bundles if bundle is not None]
        return frozenset(file.sha256 for manifest in decoded for file in manifest.files.values())

    async def _serve(self) -> None:
        while True:
            await self._waiting.wait()
            self._waiting.clear()
            while self._queue:
                if not self._port.connected:
                    self._queue.clear()
                    break
                await self._port.drained(_MOST_UNDER_WAY)
                await self._send_some(self._queue.take(_AT_A_TIME))

    async def _send_some(self, wanted: Sequence[Wanted]) -> None:
        try:
            loop = asyncio.get_running_loop()
            for node, payload in await loop.run_in_executor(self._reading, self._prepare, wanted):
                await self._pace(len(payload))
                self._send(node, payload)
        except Exception:
            log.exception("chunks: some were not sent; their nodes ask for them again")

    async def _pace(self, size: int) -> None:
        if not self._settings.max_bytes_per_s:
            return
        now_s = self._clock()
        self._free_at_s = max(self._free_at_s, now_s) + size / self._settings.max_bytes_per_s
        await asyncio.sleep(self._free_at_s - now_s)

    def _send(self, node: str, payload: bytes) -> None:
        self._port.publish(chunk_topic(node, "piece"), payload, qos=0)
        self._metrics.chunk_sent(len(payload))

    def _prepare(self, wanted: Sequence[Wanted]) -> list[tuple[str, bytes]]:
        """Reads and signs; what is beyond a content's end is not answered."""
        answers = [(chunk.node, self._chunk(chunk)) for chunk in wanted]
        return [(node, payload) for node, payload in answers if payload]

    def _chunk(self, wanted: Wanted) -> bytes:
        path = self._blobs.path(wanted.content) if is_digest(wanted.content) else self._tuf / wanted.content
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                data = os.pread(file.fileno(), CHUNK_BYTES, wanted.number * CHUNK_BYTES)
        except FileNotFoundError:
            return self._answer(wanted.ask, wanted.content, error=_NOT_HERE)
        except OSError as error:
            log.error("chunk %d of %s cannot be read: %s", wanted.number, wanted.content, error)
            return b""
        if wanted.number >= max(1, chunks_of(size)):
            return b""
        chunk = Chunk(wanted.ask, wanted.content, wanted.number, size, digest_of(data))
        return encode(self._signing.sign(chunk, {chunk.data: data}))

    def _answer(self, ask: int, content: str, *, error: str) -> bytes:
        return encode(self._signing.sign(Chunk(ask, content, 0, 0, error=error)))
