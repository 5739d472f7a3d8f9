"""What is done with a request on either side of the model: its body becomes tensors, and tensors its answer's body."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Generic, NamedTuple, Protocol, TypeVar

import msgspec

from contracts import oip as protocol
from contracts.errors import FoothillError
from contracts.manifest import Manifest
from runtime.serving.answering.calls import Call
from runtime.serving.answering.settings import ServingSettings
from runtime.serving.models import oip, postprocess
from runtime.serving.models.batcher import BatchResult
from runtime.serving.models.forms import short_length
from runtime.serving.models.oip import Asked, Encoded
from runtime.serving.models.postprocess import Stamp
from runtime.serving.pictures import images
from runtime.serving.pictures.images import Look
from runtime.serving.pictures.preprocess import INLINE_BYTES, Preprocessor, glance

JSON = "application/json"
MSGPACK = "application/msgpack"

T = TypeVar("T")


class Later(msgspec.Struct, Generic[T], frozen=True):
    """What takes long enough to hold up other requests: it is to be run elsewhere."""

    run: Callable[[], T]


class Foreseen(NamedTuple):
    """What is known of a request before its body is here: the rows and the priority of what it asks to run."""

    rows: int
    priority: int


class Work(Protocol):
    """One route's. `read` and `write` raise FoothillError, at once or when they are run. `wants_reading`: its answers
    are made of more than tensors."""

    wants_reading: bool

    def foresee(self, call: Call) -> Foreseen | None: ...

    def read(self, call: Call) -> Asked | Later[Asked]: ...

    def write(self, call: Call, result: BatchResult, reason: str) -> Encoded | Later[Encoded]: ...


class Infer:
    """The Open Inference Protocol: tensors in, the tensors asked for out."""

    wants_reading = False

    def foresee(self, call: Call) -> Foreseen | None:
        """What its JSON says, where others have said the same before."""
        json, length = call.request.expect(short_length(call.request.headers.get(protocol.HEADER_LENGTH)))
        form = call.served.forms.find(json, length) if json else None
        return Foreseen(form.rows, form.wishes[-1]) if form is not None else None

    def read(self, call: Call) -> Asked | Later[Asked]:
        body, length, forms = call.body, call.request.headers.get(protocol.HEADER_LENGTH), call.served.forms
        if oip.json_bytes(body, length) > INLINE_BYTES:
            return Later(partial(forms.read, body, length))
        return forms.read(body, length)

    def write(self, call: Call, result: BatchResult, reason: str) -> Encoded | Later[Encoded]:
        asked, forms = call.asked, call.served.forms
        if oip.written_as_json(result.outputs, asked.wanted) > INLINE_BYTES:
            return Later(partial(forms.write, asked, result.outputs))
        return forms.write(asked, result.outputs)


class Predict:
    """A picture or a tensor map in, a typed answer out."""

    wants_reading = True

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings

    def foresee(self, call: Call) -> Foreseen | None:
        _, length = call.request.expect(0)
        return Foreseen(1, 0) if length else None

    def read(self, call: Call) -> Asked | Later[Asked]:
        loaded, body = call.served.loaded, bytes(call.body)
        manifest, preprocessor = loaded.manifest, loaded.preprocessor
        postprocess.check_predictable(manifest)
        media_type = _media_type(call)
        if media_type == MSGPACK:
            return _read_packed(body, manifest)
        if media_type in images.MEDIA_TYPES and preprocessor is not None:
            most = self._settings.max_pixels
            seen = glance(body, media_type, max_pixels=most)
            read = partial(_read_picture, preprocessor, body, media_type, seen, most, manifest)
            return Later(read) if seen is None else read()
        taken = ", ".join((*(images.MEDIA_TYPES if preprocessor is not None else ()), MSGPACK))
        raise FoothillError(
            "unsupported_media_type", f"Model {call.model} takes {taken}, not {media_type[:80]!r}: set Content-Type."
        )

    def write(self, call: Call, result: BatchResult, reason: str) -> Encoded | Later[Encoded]:
        manifest = call.served.loaded.manifest
        from_tensors = _media_type(call) == MSGPACK
        postprocess.check_numbers(result.outputs, result.reading, manifest, from_tensors=from_tensors)
        stamp = Stamp(call.model, self._settings.tier, self._settings.node, reason, call.request_id)
        return _write_prediction(call, manifest, result, stamp)


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


def _read_picture(
    preprocessor: Preprocessor, body: bytes, media_type: str, seen: Look | None, max_pixels: int, manifest: Manifest
) -> Asked:
    seen = seen or images.look(body, media_type, max_pixels=max_pixels)
    tensor = preprocessor.tensor(body, media_type, seen=seen, max_pixels=max_pixels)
    return Asked({manifest.inputs[0].name: tensor}, (), "", 0, 0, seen.size)


def _write_prediction(call: Call, manifest: Manifest, result: BatchResult, stamp: Stamp) -> Encoded:
    prediction = postprocess.predict(result.outputs, result.reading, manifest, stamp, call.asked.picture)
    if prefers_msgpack(call.request.headers.get("Accept", "")):
        return Encoded(msgspec.msgpack.encode(prediction), MSGPACK, None)
    return Encoded(msgspec.json.encode(prediction), JSON, None)
