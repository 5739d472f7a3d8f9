"""The JSON around the tensors of one model's requests and answers, read and written once for all that are alike.

A caller asks again and again with the same names, shapes and wishes: what differs is in the binary tensors behind.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from contracts import oip as protocol
from contracts.manifest import Manifest
from runtime.links.http.exchanges import Body
from runtime.links.process.few import Few
from runtime.serving.engines import tensors
from runtime.serving.engines.tensors import Array
from runtime.serving.models import oip
from runtime.serving.models.batcher import key_of
from runtime.serving.models.oip import Asked, Encoded, Wanted

_MAX_LENGTH_DIGITS = 4
_READ_ANEW = (protocol.BYTES, protocol.BF16, "BOOL")
_WRITTEN_ANEW = (protocol.BYTES, protocol.BF16)
"""Whose bytes in a body are not those of their arrays."""


class _Input(NamedTuple):
    """Where a tensor lies: `offset` in bytes from the start of the body."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int


class Form(NamedTuple):
    """A request but for its tensors: its JSON, and how long its body is. `wishes` is what it asks besides.

    `rows` of its tensors, where they have rows; `key` is what may share a run.
    """

    json: bytes
    body_bytes: int
    inputs: Sequence[_Input]
    wishes: tuple[tuple[Wanted, ...], str, int, int]
    rows: int
    key: Hashable

    def tensors(self, body: Body) -> dict[str, Array]:
        """Views of those in a body of this form."""
        return {name: np.ndarray(shape, dtype, body, offset) for name, dtype, shape, offset in self.inputs}


class Forms:
    """For one model, which `batches` or not.

    Reads and writes as `runtime.serving.models.oip` does, which is asked about every form that is new.
    """

    def __init__(self, manifest: Manifest, *, batches: bool) -> None:
        self._manifest = manifest
        self._batches = batches
        self._anew = {spec.name for spec in manifest.outputs if spec.datatype in _WRITTEN_ANEW}
        self._forms: Few[bytes, Form] = Few()
        self._heads: Few[tuple[object, ...], bytes] = Few()

    def find(self, json: bytes, body_bytes: int) -> Form | None:
        """Of a request with this JSON, in a body so long, that is like one that was read before."""
        form = self._forms.get(json)
        return form if form is not None and form.body_bytes == body_bytes else None

    def read(self, body: Body, header_length: str | None) -> Asked:
        """A whole request. Raises FoothillError `bad_request` or `bad_tensor`."""
        json_bytes = short_length(header_length)
        form = self.find(bytes(body[:json_bytes]), len(body)) if json_bytes else None
        if form is not None:
            return Asked(form.tensors(body), *form.wishes)
        asked = oip.read(body, header_length, self._manifest)
        new = self._form(body, header_length, asked) if json_bytes and not asked.id else None
        if new is not None:
            self._forms.put(new.json, new)
        return asked

    def write(self, asked: Asked, outputs: Mapping[str, Array]) -> Encoded:
        """A whole answer."""
        if asked.id:
            return self._written(asked, outputs)
        arrays = [outputs[want.name] for want in asked.wanted]
        shapes = [(array.dtype, array.shape) for array in arrays]
        head = self.head(asked.wanted, shapes)
        if head is not None:
            return Encoded(b"".join((head, *[array.tobytes() for array in arrays])), oip.OCTETS, len(head))
        written = self._written(asked, outputs)
        if all(want.binary and not want.classes and want.name not in self._anew for want in asked.wanted):
            self._heads.put((asked.wanted, *shapes), written.body[: written.header_length])
        return written

    def head(self, wanted: tuple[Wanted, ...], shapes: Sequence[tuple[np.dtype[Any], tuple[int, ...]]]) -> bytes | None:
        """The JSON before binary outputs of these types and shapes, where such an answer was written before."""
        return self._heads.get((wanted, *shapes))

    def _written(self, asked: Asked, outputs: Mapping[str, Array]) -> Encoded:
        return oip.write_response(outputs, asked.wanted, self._manifest, self._manifest.model, asked.id)

    def _form(self, body: Body, header_length: str | None, asked: Asked) -> Form | None:
        """Of a request that was read; None where its JSON has values in it, or a tensor is no view of its bytes."""
        request, _ = protocol.parse_request(body, header_length)
        json_bytes = offset = short_length(header_length)
        found = {}
        for tensor in request.inputs:
            size, dtype = tensor.parameters.binary_data_size, tensors.NUMPY[tensor.datatype]
            if size is None or tensor.datatype in _READ_ANEW:
                return None
            found[tensor.name] = _Input(tensor.name, dtype, tensor.shape, offset)
            offset += size
        inputs = [found[name] for name in asked.inputs]
        rows = inputs[0].shape[0] if self._batches else 1
        return Form(bytes(body[:json_bytes]), len(body), inputs, asked[1:5], rows, key_of(asked.inputs))


def short_length(told: str | None) -> int:
    """Of the JSON in bytes; 0 where nobody says, or where it is long."""
    short = told is not None and len(told) <= _MAX_LENGTH_DIGITS and told.isascii() and told.isdigit()
    return int(told or "") if short else 0
