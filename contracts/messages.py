"""The control plane's messages. Payloads are MessagePack; what must be believed travels in a `Signed` envelope."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec

from contracts.boards import Fingerprint
from contracts.decoding import UNREADABLE
from contracts.errors import FoothillError
from contracts.manifest import MAX_THRESHOLD
from contracts.quality import Counts

MAX_MESSAGE_BYTES = 4 << 20
MAX_EPOCH = 1 << 53
"""Above every unix time in ms, and exact in JSON. A node whose name was taken at the top says its own word there too:
within one epoch the last word counts."""

Epoch = Annotated[int, msgspec.Meta(ge=0, le=MAX_EPOCH)]
InFlight = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0.0, le=86_400_000.0)]
"""Bounds are checked on what arrives: these figures are calculated with, and NaN or infinity would spread."""

Sequence = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
"""Exact in JSON, and far above every unix time in ms: there is always a higher one to correct it with."""
Threshold = Annotated[float, msgspec.Meta(ge=0.0, le=MAX_THRESHOLD)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]

Capabilities = Annotated[
    tuple[Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9\-]{0,62}\Z")], ...], msgspec.Meta(max_length=32)
]

CHUNK_BYTES = 64 << 10
"""Of every chunk of a content but its last."""
MOST_WANTED_CHUNKS = 64
MAX_CHUNK_MESSAGE_BYTES = CHUNK_BYTES + (8 << 10)
"""A chunk in its envelope, with room for its topic."""
MAX_WANT_MESSAGE_BYTES = 8 << 10

ChunkIndex = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
ContentName = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]

NodeState = Literal["online", "draining", "offline"]
ModelPhase = Literal["fetching", "verifying", "testing", "probation", "active", "failed", "reverted", "unloaded"]

T = TypeVar("T")


class Signed(msgspec.Struct, frozen=True):
    """A signature over `payload` (MessagePack of one message below) and its type, by the key `key_id`.

    Ed25519, or for `key_id` "hop" HMAC-SHA256 with the fleet's shared hop key (`runtime/links/trust/signatures.py`).
    `attachments` are content-addressed (digest to bytes) and need no signature of their own: whoever uses one checks
    its digest against the signed payload.
    """

    payload: bytes
    key_id: str
    signature: bytes
    attachments: dict[str, bytes] = {}


class Identity(msgspec.Struct, frozen=True):
    """Who and where a node is (retained, signed by the fleet manager). The router believes nothing else about place."""

    node: str
    region: str
    lat: float
    lon: float
    url: str
    reach: Literal["public", "site"]
    public_key: str
    target: str
    sequence: int


class Status(msgspec.Struct, frozen=True):
    """Whether a node lives (retained, and the last will). Readers keep the highest epoch.

    `epoch` grows with every start of the node (unix time in ms at its start). `capabilities` are names that its
    operator gave it: no promise rests on them.
    """

    node: str
    epoch: Epoch
    state: NodeState
    capabilities: Capabilities = ()


class Load(msgspec.Struct, frozen=True):
    """A node's load (QoS 0, not retained): requests in flight, and the queue's and the service's recent mean in ms."""

    node: str
    epoch: Epoch
    in_flight: InFlight
    queue_ms: Milliseconds
    service_ms: Milliseconds


class Desired(msgspec.Struct, frozen=True):
    """What a node should serve (retained, signed): logical model to bundle digest, complete.

    A node takes only its own name and only a sequence above the last it took. After `expires_at_s` (unix time) it
    starts no update; it never stops serving. The manifests ride along as attachments of the envelope.
    """

    node: str
    sequence: int
    issued_at_s: float
    expires_at_s: float
    models: dict[str, str]


class ModelReport(msgspec.Struct, frozen=True):
    """One model on a node: the digest it works on or serves, and how far it is. `serving` is what answers now, run by
    `provider`."""

    digest: str
    phase: ModelPhase
    serving: str = ""
    previous: str = ""
    bundle: str = ""
    stratum: str = ""
    error: str = ""
    provider: str = ""


MIN_CELSIUS, MAX_CELSIUS = -100.0, 300.0
FreeBytes = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
Celsius = Annotated[float, msgspec.Meta(ge=MIN_CELSIUS, le=MAX_CELSIUS)]


class Vitals(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a node's machine is. None: it does not say.

    `free_memory_bytes` can be taken without swapping and within the limits of control groups, `free_disk_bytes` is of
    the disk of the node's store, `temperature_c` that of the hottest zone; `throttled`: slowed down against heat.
    """

    free_memory_bytes: FreeBytes | None = None
    free_disk_bytes: FreeBytes | None = None
    temperature_c: Celsius | None = None
    throttled: bool | None = None


class Reported(msgspec.Struct, frozen=True):
    """What a node really runs (retained). `sequence` is that of the desired document it speaks of.

    Published when anything of it changes; for `vitals` alone, at most every 30 s, and only for changes that matter.
    """

    node: str
    epoch: Epoch
    sequence: int
    models: dict[str, ModelReport]
    fingerprint: Fingerprint
    at_s: float
    vitals: Vitals = Vitals()


class Audit(msgspec.Struct, frozen=True):
    """One request answered by both tiers, drawn at random (not retained). The evidence of gates and certificates.

    Signed by the node that answered, with the key it enrolled; or, where the router held the request, sealed with the
    hop key. `node` is the node that answered.
    """

    stratum: str
    model: str
    digest: str
    node: str
    request_id: str
    confidence: float
    kept: bool
    edge_answer: str
    cloud_answer: str
    at_s: float

    @property
    def agree(self) -> bool:
        return self.edge_answer == self.cloud_answer


class Late(msgspec.Struct, frozen=True):
    """What the cloud said to a request that had left the node with a degraded answer (not retained, at least once).

    Signed by the node. `confidence` and `edge_answer` are the edge's (None and "" where it told none); both answers
    are those of an audit. `body` is the cloud's, of `content_type`; None above 1 MiB: ask the node for it.
    """

    node: str
    request_id: str
    model: str
    stratum: str
    confidence: float | None
    edge_answer: str
    cloud_answer: str
    bundle: str
    content_type: str
    body: bytes | None
    spooled_at_s: float
    answered_at_s: float


class Quality(msgspec.Struct, frozen=True):
    """How versions serve on a node: totals since its start `epoch`, by bundle digest (retained, signed by the node).

    At most every 5 s, and only what has changed since is worth another one. Totals, so that none is counted twice or
    missed, however often they are told.
    """

    node: str
    epoch: Epoch
    versions: Annotated[dict[str, Counts], msgspec.Meta(max_length=64)]


class Certificate(msgspec.Struct, frozen=True):
    """The live promise of a stratum (retained, signed by the fleet manager, on the topic of its own stratum).

    Accept at the edge when confidence >= threshold. Readers keep the highest sequence.

    `revoked` escalates everything, whatever the threshold; a stratum's certificate is never deleted.
    """

    stratum: str
    model: str
    threshold: Threshold
    epsilon: Share
    delta: Share
    n: Annotated[int, msgspec.Meta(ge=0)]
    state: Literal["live", "revoked"]
    sequence: Sequence
    issued_at_s: float


class ChunkWant(msgspec.Struct, frozen=True):
    """Chunks of one content that a node asks its fleet for (QoS 0, not retained, signed with the key it enrolled).

    `content` is a digest, or the name of signed metadata below `/tuf/`, such as `metadata/timestamp.json`. `ask` is
    drawn at random for each content that is fetched: only answers which carry it are taken.
    """

    node: str
    ask: Sequence
    content: ContentName
    chunks: Annotated[tuple[ChunkIndex, ...], msgspec.Meta(min_length=1, max_length=MOST_WANTED_CHUNKS)]


class Chunk(msgspec.Struct, frozen=True):
    """A piece of a content (QoS 0, not retained, signed by the fleet manager), or why there is none.

    Its bytes are the envelope's attachment `data` (a digest): 64 KiB from byte `index` * 64 KiB on, or what is left of
    the `size` bytes of the whole. With an `error` there are none.
    """

    ask: Sequence
    content: ContentName
    index: ChunkIndex
    size: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
    data: str = ""
    error: str = ""


def chunks_of(size: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """How many chunks a content of `size` bytes has."""
    return -(-size // chunk_bytes)


def encode(message: msgspec.Struct) -> bytes:
    return msgspec.msgpack.encode(message)


def decode(data: bytes, kind: type[T]) -> T:
    """Raises FoothillError `bad_request` for anything but a well-formed message of `kind`."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise FoothillError("bad_request", f"A {kind.__name__} of {len(data)} bytes is over {MAX_MESSAGE_BYTES}.")
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except UNREADABLE as error:
        raise FoothillError("bad_request", f"This is no {kind.__name__}: {error}.") from error
