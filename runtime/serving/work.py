"""What is done with a request on either side of the model: its body becomes tensors, and tensors its answer's body."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Generic, Protocol, TypeVar

import msgspec

from contracts import oip as protocol
from contracts.errors import FoothillError
from contracts.manifest import Manifest
from runtime.serving import images, oip, postprocess
from runtime.serving.batcher import BatchResult
from runtime.serving.calls import Call
from runtime.serving.oip import Asked, Encoded
from runtime.serving.postprocess import Stamp
from runtime.serving.preprocess import INLINE_BYTES, glance
from runtime.serving.settings import ServingSettings
from runtime.serving.tensors import Array

JSON = "application/json"
MSGPACK = "application/msgpack"

T = TypeVar("T")


class Step(msgspec.Struct, Generic[T], frozen=True):
    """Something to be done; what is not `quick` must not hold up other requests."""

    run: Callable[[], T]
    quick: bool


class Work(Protocol):
    """One route's. Both raise FoothillError, as do their steps."""

    def reading(self, call: Call) -> Step[Asked]: ...

    def writing(self, call: Call, result: BatchResult, reason: str) -> Step[Encoded]: ...


class Infer:
    """The Open Inference Protocol: tensors in, the tensors asked for out."""

    def reading(self, call: Call) -> Step[Asked]:
        length = call.request.headers.get(protocol.HEADER_LENGTH)
        quick = oip.json_bytes(call.body, length) <= INLINE_BYTES
        return Step(partial(call.served.forms.read, call.body, length), quick)

    def writing(self, call: Call, result: BatchResult, reason: str) -> Step[Encoded]:
        quick = oip.written_as_json(result.outputs, call.asked.wanted) <= INLINE_BYTES
        return Step(partial(call.served.forms.write, call.asked, result.outputs), quick)


class Predict:
    """A picture or a tensor map in, a typed answer out."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings

    def reading(self, call: Call) -> Step[Asked]:
        loaded, body = call.served.loaded, call.body
        manifest, preprocessor = loaded.manifest, loaded.preprocessor
        postprocess.check_predictable(manifest)
        media_type = _media_type(call)
        if media_type == MSGPACK:
            return Step(partial(_read_packed, body, manifest), True)
        if media_type in images.MEDIA_TYPES and preprocessor is not None:
            most = self._settings.max_pixels
            seen = glance(body, media_type, max_pixels=most)
            read = partial(preprocessor.tensor, body, media_type, seen=seen, max_pixels=most)
            return Step(partial(_read_picture, read, manifest), seen is not None)
        taken = ", ".join((*(images.MEDIA_TYPES if preprocessor is not None else ()), MSGPACK))
        raise FoothillError(
            "unsupported_media_type", f"Model {call.model} takes {taken}, not {media_type[:80]!r}: set Content-Type."
        )

    def writing(self, call: Call, result: BatchResult, reason: str) -> Step[Encoded]:
        manifest = call.served.loaded.manifest
        from_tensors = _media_type(call) == MSGPACK
        postprocess.check_numbers(result.outputs, result.reading, manifest, from_tensors=from_tensors)
        stamp = Stamp(call.model, self._settings.tier, self._settings.node, reason, call.request_id)
        return Step(partial(_write_prediction, call, manifest, result, stamp), True)


def prefers_msgpack(accept: str) -> bool:
    """Whether an `Accept` header names MessagePack and not JSON, or MessagePack first. Anything else gets JSON."""
    named = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    wanted = [name for name in named if name in (JSON, MSGPACK)]
    return wanted[:1] == [MSGPACK]


def _media_type(call: Call) -> str:
    """Of the body, without parameters; that of unknown bytes where none is named (RFC 9110, section 8.3)."""
    told = call.request.headers.get("Content-Type", "application/octet-stream")
    return told.partition(";")[0].strip().lower()


def _read_packed(body: bytes, manifest: Manifest) -> Asked:
    inputs = oip.read_packed(protocol.parse_packed(body), manifest)
    postprocess.check_one_row(manifest, inputs)
    return Asked(inputs, (), "", 0, 0)


def _read_picture(read: Callable[[], Array], manifest: Manifest) -> Asked:
    return Asked({manifest.inputs[0].name: read()}, (), "", 0, 0)


def _write_prediction(call: Call, manifest: Manifest, result: BatchResult, stamp: Stamp) -> Encoded:
    prediction = postprocess.predict(result.outputs, result.reading, manifest, stamp)
    if prefers_msgpack(call.request.headers.get("Accept", "")):
        return Encoded(msgspec.msgpack.encode(prediction), MSGPACK, None)
    return Encoded(msgspec.json.encode(prediction), JSON, None)
