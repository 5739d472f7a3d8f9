"""The Open Inference Protocol over arrays: a request's tensors in, a response's tensors out, JSON or binary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from contracts import oip
from contracts.errors import FoothillError
from contracts.manifest import Manifest, TensorSpec
from contracts.oip import bad_tensor
from runtime.serving.engines import tensors
from runtime.serving.engines.tensors import Array
from runtime.serving.pictures.picture import Size

JSON = "application/json"
OCTETS = "application/octet-stream"
_MAX_LENGTH_DIGITS = 15


class Encoded(NamedTuple):
    """A body with what its header must say; `header_length` is None when the body is JSON alone."""

    body: bytes
    content_type: str
    header_length: int | None


class Wanted(NamedTuple):
    """One output as the caller wants it: as binary or JSON, and as a tensor or as its `classes` best labels."""

    name: str
    binary: bool
    classes: int


class Asked(NamedTuple):
    """What a request wants to have run. `timeout_us` in microseconds and `priority`: 0 for none. `picture` is the size
    of the one that was sent, where one was."""

    inputs: dict[str, Array]
    wanted: tuple[Wanted, ...]
    id: str
    timeout_us: int
    priority: int
    picture: Size | None = None


def json_bytes(body: oip.Buffer, header_length: str | None) -> int:
    """How much of a body is JSON, which takes long to read; tensors behind it are only pointed at."""
    told = header_length is not None and header_length.isdecimal() and len(header_length) <= _MAX_LENGTH_DIGITS
    return min(len(body), int(header_length or "")) if told else len(body)


def read(body: oip.Buffer, header_length: str | None, manifest: Manifest) -> Asked:
    """Reads a whole request. Raises FoothillError `bad_request` or `bad_tensor`."""
    request, parts = oip.parse_request(body, header_length)
    wanted = wanted_outputs(request, manifest)
    wishes = request.parameters
    return Asked(read_inputs(request, parts, manifest), wanted, request.id, wishes.timeout, wishes.priority)


def written_as_json(outputs: Mapping[str, Array], wanted: Sequence[Wanted]) -> int:
    """How many bytes of arrays are to become JSON."""
    return sum(outputs[want.name].nbytes for want in wanted if not want.binary)


def read_inputs(request: oip.InferRequest, parts: Mapping[str, memoryview], manifest: Manifest) -> dict[str, Array]:
    """The request's input arrays, each checked against the manifest. Raises FoothillError `bad_tensor`."""
    given = {tensor.name: tensor for tensor in request.inputs}
    _check_names(list(given), len(request.inputs), manifest)
    inputs = {
        spec.name: _read_input(given[spec.name], parts.get(spec.name), spec, manifest.max_batch)
        for spec in manifest.inputs
    }
    _check_rows(inputs, manifest)
    return inputs


def read_packed(packed: Mapping[str, oip.PackedTensor], manifest: Manifest) -> dict[str, Array]:
    """The input arrays of a MessagePack tensor map, checked alike."""
    _check_names(list(packed), len(packed), manifest)
    inputs: dict[str, Array] = {}
    for spec in manifest.inputs:
        tensor = packed[spec.name]
        _check(tensor.datatype, tensor.shape, spec, manifest.max_batch)
        inputs[spec.name] = tensors.from_bytes(spec.name, tensor.datatype, tensor.shape, tensor.data)
    _check_rows(inputs, manifest)
    return inputs


def check_arrays(inputs: Mapping[str, Array], manifest: Manifest) -> None:
    """The same of arrays that come from this process. Raises FoothillError `bad_tensor`."""
    _check_names(list(inputs), len(inputs), manifest)
    for spec in manifest.inputs:
        array, wanted = inputs[spec.name], tensors.NUMPY[spec.datatype]
        if array.dtype != wanted:
            raise bad_tensor(spec.name, f"an array of {wanted}", f"{array.dtype}")
        tensors.check_shape(spec.name, array.shape, spec, manifest.max_batch)
    _check_rows(inputs, manifest)


def wanted_outputs(request: oip.InferRequest, manifest: Manifest) -> tuple[Wanted, ...]:
    """What the caller asks to have back; raises FoothillError `bad_tensor` for an output the model lacks."""
    binary = request.parameters.binary_data_output
    if not request.outputs:
        return tuple(Wanted(spec.name, binary, 0) for spec in manifest.outputs)
    known = [spec.name for spec in manifest.outputs]
    wanted = tuple(_wanted(output, known, binary) for output in request.outputs)
    if len({want.name for want in wanted}) != len(wanted):
        raise FoothillError("bad_tensor", "An output is asked for twice. Ask for each once.")
    return wanted


def write_response(
    outputs: Mapping[str, Array], wanted: Sequence[Wanted], manifest: Manifest, model: str, request_id: str
) -> Encoded:
    """The response body. Binary outputs follow the JSON in the order of `wanted`."""
    datatypes = {spec.name: spec.datatype for spec in manifest.outputs}
    heads: list[oip.OutputTensor] = []
    parts: list[oip.Buffer] = []
    for want in wanted:
        array, datatype = outputs[want.name], datatypes[want.name]
        if want.classes:
            array, datatype = best_labels(want.name, array, want.classes, manifest.labels), oip.BYTES
        heads.append(_write_output(want, array, datatype, parts))
    response = oip.InferResponse(model_name=model, model_version=manifest.version, outputs=tuple(heads), id=request_id)
    if not any(want.binary for want in wanted):
        return Encoded(msgspec.json.encode(response), JSON, None)
    body, header_length = oip.frame(response, parts)
    return Encoded(body, OCTETS, header_length)


def best_labels(name: str, array: Array, classes: int, labels: Sequence[str]) -> Array:
    """Triton's classification extension: the best values of each row as `value:index:label`, best first.

    https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_classification.md
    """
    if array.ndim != 2 or array.dtype.kind not in "iuf":
        raise bad_tensor(name, "an output of rows of numbers to ask a classification of", f"rank {array.ndim}")
    count = min(classes, array.shape[1])
    order = np.argsort(-array.astype(np.float64), axis=1, kind="stable")[:, :count]
    best = np.empty(order.shape, dtype=object)
    for (row, rank), index in np.ndenumerate(order):
        label = f":{labels[index]}" if index < len(labels) else ""
        best[row, rank] = f"{array[row, index]:f}:{index}{label}"
    return best


def _check_names(given: Sequence[str], count: int, manifest: Manifest) -> None:
    expected = [spec.name for spec in manifest.inputs]
    if count != len(given):
        raise FoothillError("bad_tensor", "An input tensor is given twice. Send each once.")
    if set(given) != set(expected):
        shown = ", ".join(repr(name[:80]) for name in given) or "none"
        raise FoothillError("bad_tensor", f"Input tensors: expected {', '.join(map(repr, expected))}, got {shown}.")


def _check_rows(inputs: Mapping[str, Array], manifest: Manifest) -> None:
    """All batched inputs of one request have the same number of rows."""
    rows = {spec.name: len(inputs[spec.name]) for spec in manifest.inputs if spec.shape[:1] == (-1,)}
    first = next(iter(rows.values()), 0)
    for name, count in rows.items():
        if count != first:
            raise bad_tensor(name, f"{first} rows, as in the input before it", f"{count}")


def _read_input(tensor: oip.InputTensor, part: memoryview | None, spec: TensorSpec, max_batch: int) -> Array:
    _check(tensor.datatype, tensor.shape, spec, max_batch)
    if part is not None:
        return tensors.from_bytes(tensor.name, tensor.datatype, tensor.shape, part)
    return tensors.from_values(tensor.name, tensor.datatype, tensor.shape, tensor.data)


def _check(datatype: str, shape: Sequence[int], spec: TensorSpec, max_batch: int) -> None:
    tensors.check_datatype(spec.name, datatype, spec)
    tensors.check_shape(spec.name, shape, spec, max_batch)


def _wanted(output: oip.RequestedOutput, known: Sequence[str], binary: bool) -> Wanted:
    if output.name not in known:
        raise bad_tensor(output.name, f"one of the outputs {', '.join(known)}", "an output the model does not have")
    if output.parameters.shared_memory_region is not None:
        raise bad_tensor(output.name, "an output in the response (shared memory is not served)", "a region")
    own = output.parameters.binary_data
    return Wanted(output.name, binary if own is None else own, output.parameters.classification)


def _write_output(want: Wanted, array: Array, datatype: str, parts: list[oip.Buffer]) -> oip.OutputTensor:
    if not want.binary:
        return oip.OutputTensor(want.name, datatype, array.shape, data=tensors.to_values(want.name, array))
    part = tensors.to_bytes(array, datatype)
    parts.append(part)
    size = part.nbytes if isinstance(part, memoryview) else len(part)
    return oip.OutputTensor(want.name, datatype, array.shape, parameters=oip.BinarySize(size))
