"""Built engines that nodes of one kind leave for each other, countersigned by the fleet.

An engine is code: whoever may put one here runs it on every node of the same kind. So nothing is taken unless the
configuration says from whom, and a node believes none that the fleet's control key has not signed.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from contracts.engines import Endorsement, EngineRecord
from contracts.errors import FoothillError
from contracts.messages import Signed, decode, encode
from fleet.oci import OciLayout
from fleet.signing import Signing
from fleet.state import NodeRow, State
from runtime.links.process.durable import write_file
from runtime.links.trust import signatures

log = logging.getLogger(__name__)

OPERATOR = "operator"
MAX_OFFER_BYTES = 64 << 10


class EngineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`accept` says whose engines are taken: nobody's, those that come with the admin token, or enrolled nodes' too.

    Above `max_bytes` in all, the oldest engines go.
    """

    accept: Literal["no", "operators", "nodes"] = "no"
    max_engine_bytes: int = 2 << 30
    max_bytes: int = 16 << 30


class Offer(NamedTuple):
    """A record that may come in, and who brings it."""

    record: EngineRecord
    offered_by: str


class EngineShelf:
    """Synchronous, on the fleet's state thread, but for `files`, into which bytes stream. `clock` gives unix time."""

    def __init__(
        self,
        directory: Path,
        settings: EngineSettings,
        *,
        state: State,
        blobs: OciLayout,
        signing: Signing,
        clock: Callable[[], float],
    ) -> None:
        """`blobs` are those of the registry: only what is published there has engines."""
        self.files = OciLayout(directory)
        self._endorsed = directory / "endorsed"
        self._settings = settings
        self._state = state
        self._blobs = blobs
        self._signing = signing
        self._clock = clock

    def open(self) -> None:
        self._endorsed.mkdir(parents=True, exist_ok=True)
        self.files.open()

    def admit(self, engine: str, offer: bytes, *, operator: bool) -> Offer:
        """What may come in as `engine`, before a byte of it is read.

        `offer` is the MessagePack of an operator's EngineRecord, or of a node's `Signed` one. Raises FoothillError
        `forbidden`, `bad_request`, `body_too_large`, or `conflict` when the place is taken.
        """
        wanted = "operators" if operator else "nodes"
        if self._settings.accept == "no" or (self._settings.accept == "operators" and not operator):
            raise FoothillError(
                "forbidden", f'This fleet takes no engines from {wanted}. Set engines.accept to "{wanted}".'
            )
        found = Offer(decode(offer, EngineRecord), OPERATOR) if operator else self._by_node(decode(offer, Signed))
        if found.record.engine != engine:
            raise FoothillError("bad_request", f"The record speaks of {found.record.engine[:80]}, the URL of {engine}.")
        self._check_size(found.record)
        self._check_wanted(found.record)
        return found

    def endorse(self, offer: Offer) -> None:
        """Signs an engine whose bytes are here, and makes room. A second time nothing changes."""
        if self._endorsement(offer.record.engine).exists():
            return
        endorsement = Endorsement(offer.record, offer.offered_by, self._clock())
        write_file(self._endorsement(offer.record.engine), encode(self._signing.sign(endorsement)))
        machine = offer.record.machine
        log.info("engine %s for %s, from %s", offer.record.engine, machine.gpu or machine.target, offer.offered_by)
        self._make_room(offer.record.engine)

    def find(self, onnx: str) -> list[bytes]:
        """The envelopes (MessagePack) of all engines of an ONNX file."""
        return [envelope for envelope, endorsement in self._all() if endorsement.record.onnx == onnx]

    def has(self, engine: str) -> bool:
        return self.files.size(engine) is not None and self._endorsement(engine).exists()

    def _by_node(self, signed: Signed) -> Offer:
        """Raises FoothillError `forbidden` for what no enrolled node signed, or that is for another kind of machine."""
        nodes = {signatures.key_id(node.public_key): node for node in self._state.nodes()}
        keys = {key_id: node.public_key for key_id, node in nodes.items()}
        record = signatures.verify(signed, keys, EngineRecord)
        _check_builder(record, nodes[signed.key_id])
        return Offer(record, nodes[signed.key_id].name)

    def _check_size(self, record: EngineRecord) -> None:
        limit = min(self._settings.max_engine_bytes, self._settings.max_bytes)
        if not 0 < record.bytes <= limit:
            raise FoothillError(
                "body_too_large", f"An engine of {record.bytes} bytes is not taken; raise engines.max_engine_bytes."
            )

    def _check_wanted(self, record: EngineRecord) -> None:
        """An engine is of something published, and the first of its kind: nobody replaces what others run."""
        if self._blobs.size(record.onnx) is None:
            raise FoothillError("bad_request", f"No bundle with the ONNX file {record.onnx} is published here.")
        for _, endorsement in self._all():
            other = endorsement.record
            if other.engine != record.engine and _place(other) == _place(record):
                raise FoothillError(
                    "conflict",
                    f"Engine {other.engine} is here for the same machine, ONNX file and options. Fetch that.",
                )

    def _make_room(self, newest: str) -> None:
        there = sorted((endorsement for _, endorsement in self._all()), key=lambda one: one.at_s)
        size = sum(endorsement.record.bytes for endorsement in there)
        for engine in (endorsement.record for endorsement in there):
            if size > self._settings.max_bytes and engine.engine != newest:
                size -= engine.bytes
                log.info("engine %s makes room", engine.engine)
                self._endorsement(engine.engine).unlink()
                self.files.path(engine.engine).unlink()

    def _all(self) -> Iterator[tuple[bytes, Endorsement]]:
        for path in sorted(self._endorsed.iterdir()):
            envelope = path.read_bytes()
            try:
                endorsement = decode(decode(envelope, Signed).payload, Endorsement)
            except FoothillError as error:
                log.error("endorsement %s cannot be read: %s", path.name, error.message)
                continue
            if self.files.size(endorsement.record.engine) is not None:
                yield envelope, endorsement

    def _endorsement(self, engine: str) -> Path:
        return self._endorsed / self.files.path(engine).name


def read_offer(text: str) -> bytes:
    """The value of `Foothill-Engine`: base64. Raises FoothillError `bad_header`."""
    try:
        offer = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise FoothillError("bad_header", "Foothill-Engine must be the engine's record in base64.") from error
    if len(offer) > MAX_OFFER_BYTES:
        raise FoothillError(
            "bad_header", f"Foothill-Engine has {len(offer)} bytes; at most {MAX_OFFER_BYTES} are read."
        )
    return offer


def _check_builder(record: EngineRecord, node: NodeRow) -> None:
    enrolled = node.fingerprint
    if (record.machine.arch, record.machine.target) != (enrolled.arch, enrolled.target):
        raise FoothillError(
            "forbidden",
            f"Node {node.name} enrolled as {enrolled.target} ({enrolled.arch}) and offers an engine for "
            f"{record.machine.target} ({record.machine.arch}). Enrol it anew if it became another machine.",
        )


def _place(record: EngineRecord) -> tuple[object, ...]:
    return (record.onnx, record.machine, record.options)
