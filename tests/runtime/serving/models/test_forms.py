"""What is remembered of requests and answers changes nothing about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import oip as protocol
from contracts.errors import FoothillError
from contracts.manifest import Manifest, Postprocess, TensorSpec
from runtime.links.process.few import MOST, Few
from runtime.serving.models import oip
from runtime.serving.models.forms import Forms
from runtime.serving.models.oip import Asked, Encoded, Wanted

Array = npt.NDArray[Any]
LABELS = tuple("abcdef")
TYPES = ("FP32", "INT64", "BOOL", "UINT8", "FP16", "BF16", "BYTES")


def manifest(*, version: str = "1", types: Sequence[str] = TYPES) -> Manifest:
    """Every type comes in as `x_TYPE` [batch, 2] and goes out as `y_TYPE` [batch, any]; nothing of it is run."""
    return Manifest(
        name="m",
        version=version,
        model="m",
        task="embedding",
        tier="edge",
        inputs=tuple(TensorSpec(f"x_{name}", name, (-1, 2)) for name in types),
        outputs=tuple(TensorSpec(f"y_{name}", name, (-1, -1)) for name in types),
        postprocess=Postprocess(f"y_{types[0]}", "vector"),
        labels=LABELS,
        max_batch=4,
        files={},
        artifacts=(),
        golden=None,  # type: ignore[arg-type]
    )


@st.composite
def tensors(draw: st.DrawFn, name: str, rows: int) -> tuple[dict[str, Any], bytes]:
    """One input as JSON says it, and its binary part; sometimes not what the model takes."""
    count = 2 * rows
    told: dict[str, Any] = {"name": f"x_{name}", "datatype": name, "shape": [rows, 2]}
    if draw(st.booleans()):
        values = {"BOOL": True, "BYTES": "ab"}.get(name, draw(st.integers(0, 3)))
        told["data"] = [values] * count
        return told, b""
    if name == "BYTES":
        part = protocol.join_bytes(draw(st.lists(st.binary(max_size=2), min_size=count, max_size=count)))
    else:
        part = draw(st.binary(min_size=count * protocol.ITEM_BYTES[name], max_size=count * protocol.ITEM_BYTES[name]))
    told["parameters"] = {"binary_data_size": len(part) + draw(st.sampled_from([0, 0, 0, 0, 1, -1]))}
    return told, part


@st.composite
def requests(draw: st.DrawFn, types: Sequence[str]) -> tuple[bytes, str | None]:
    rows = draw(st.sampled_from([1, 1, 2, 5]))
    drawn = [draw(tensors(name, rows)) for name in draw(st.permutations(types))]
    told: dict[str, Any] = {"inputs": [head for head, _ in drawn]}
    if draw(st.booleans()):
        told["id"] = draw(st.sampled_from(["", "1", "another"]))
    if draw(st.booleans()):
        told["parameters"] = {"binary_data_output": draw(st.booleans()), "priority": draw(st.integers(0, 3))}
        told["parameters"] |= {"timeout": draw(st.integers(0, 9))}
    if draw(st.booleans()):
        wishes = draw(st.lists(st.sampled_from([*types, "NONE"]), max_size=2))
        told["outputs"] = [{"name": f"y_{name}", "parameters": {"binary_data": draw(st.booleans())}} for name in wishes]
    head = json.dumps(told).encode()
    body = head + b"".join(part for _, part in drawn) + draw(st.sampled_from([b"", b"", b"", b"x"]))
    length = draw(
        st.sampled_from([str(len(head))] * 6 + [f"0{len(head)}", str(len(body) + 1), "", "x", "-1", "²", None])
    )
    return body, length


def outcome(read: Any, *given: Any) -> tuple[Any, ...]:
    """What was asked, comparable; or what was refused, in the same words."""
    try:
        asked: Asked = read(*given)
    except FoothillError as error:
        return error.code, error.message
    told = [(name, each.dtype, each.shape, each.tobytes() if each.dtype != object else each.tolist())
            for name, each in asked.inputs.items()]  # fmt: skip
    return told, asked[1:]


@given(st.data())
def test_a_request_is_read_as_by_the_protocol_whatever_was_read_before(data: st.DataObject) -> None:
    types = data.draw(
        st.sampled_from(
            [("FP32",), ("FP32", "INT64"), ("UINT8", "FP16"), ("BOOL",), ("FP32", "BYTES"), ("BF16", "FP32")]
        )
    )
    described = manifest(types=types)
    forms = Forms(described, batches=True)
    for body, length in data.draw(st.lists(requests(types), max_size=4)):
        # The second time from memory; then with another tensor, and with more and fewer bytes behind the same JSON.
        for each in (body, body, body[:-1] + b"\x01", body + b"\x00", body[:-1]):
            assert outcome(forms.read, each, length) == outcome(oip.read, each, length, described)


def binary(name: str, rows: int, part: bytes, **wishes: Any) -> tuple[bytes, str]:
    told = {"name": f"x_{name}", "datatype": name, "shape": [rows, 2], "parameters": {"binary_data_size": len(part)}}
    head = json.dumps({"inputs": [told], **wishes}).encode()
    return head + part, str(len(head))


def test_a_form_is_remembered_and_only_the_tensors_are_read_again() -> None:
    forms = Forms(manifest(types=("FP32",)), batches=True)
    body, length = binary("FP32", 1, np.array([1, 2], "<f4").tobytes())
    first = forms.read(body, length)
    other = body[: int(length)] + np.array([3, 4], "<f4").tobytes()
    again = forms.read(other, length)
    assert (first.inputs["x_FP32"].tolist(), again.inputs["x_FP32"].tolist()) == ([[1, 2]], [[3, 4]])
    assert again.wanted is first.wanted


def test_bytes_that_are_no_truth_values_become_some_every_time() -> None:
    """Compiled code takes any other byte in a bool for whatever it likes."""
    forms = Forms(manifest(types=("BOOL",)), batches=True)
    body, length = binary("BOOL", 1, b"\x02\x00")
    for _ in range(3):
        assert forms.read(body, length).inputs["x_BOOL"].view(np.uint8).tolist() == [[1, 0]]


def test_a_request_with_an_id_gets_its_own_id_back() -> None:
    forms = Forms(manifest(types=("FP32",)), batches=True)
    outputs = {"y_FP32": np.ones((1, 2), np.float32)}
    for sent in ("a", "b", "", "a"):
        body, length = binary("FP32", 1, bytes(8), id=sent, parameters={"binary_data_output": True})
        asked = forms.read(body, length)
        written = forms.write(asked, outputs)
        assert (asked.id, json.loads(written.body[: written.header_length]).get("id", "")) == (sent, sent)


OUTPUTS: dict[str, Array] = {
    "y_FP32": np.array([[1, 2, 3], [4, np.nan, 6]], np.float32),
    "y_INT64": np.array([[1, -2], [3, 4]], np.int64),
    "y_BOOL": np.array([[True], [False]]),
    "y_UINT8": np.zeros((2, 0), np.uint8),
    "y_FP16": np.array([[1, 2], [3, 4]], np.float16),
    "y_BF16": np.array([[1.5, -2], [3, 4]], np.float32),
    "y_BYTES": np.array([["a", "é"], ["", "longer"]], dtype=object),
}
WANTED = st.builds(
    Wanted, st.sampled_from([f"y_{name}" for name in TYPES]), st.booleans(), st.sampled_from([0, 0, 0, 1, 9])
)
ASKED = st.builds(
    Asked,
    st.just({}),
    st.lists(WANTED, min_size=1, max_size=3, unique_by=lambda want: want.name).map(tuple),
    st.sampled_from(["", "", "1"]),
    st.just(0),
    st.just(0),
)


def written(write: Any, *given: Any) -> Encoded | str:
    try:
        return Encoded(*write(*given))
    except FoothillError as error:
        return error.message


@given(st.lists(st.tuples(ASKED, st.sampled_from(["as they are", "one row", "turned", "strided"])), max_size=6))
def test_an_answer_is_written_as_by_the_protocol_whatever_was_written_before(rounds: list[tuple[Asked, str]]) -> None:
    described = manifest()
    forms = Forms(described, batches=True)
    ways: dict[str, Callable[[Array], Array]] = {
        "as they are": lambda array: array,
        "one row": lambda array: array[:1],
        "turned": lambda array: array.T,
        "strided": lambda array: np.repeat(array, 2, axis=1)[:, ::2],
    }
    for asked, way in rounds:
        outputs = {name: ways[way](array) for name, array in OUTPUTS.items()}
        expected = written(oip.write_response, outputs, asked.wanted, described, "m", asked.id)
        for _ in range(2):
            assert written(forms.write, asked, outputs) == expected


def test_what_one_bundle_remembers_is_not_said_of_another() -> None:
    old, new = (
        Forms(manifest(version="1", types=("FP32",)), batches=True),
        Forms(manifest(version="2", types=("FP32",)), batches=True),
    )
    body, length = binary("FP32", 1, bytes(8), parameters={"binary_data_output": True})
    outputs = {"y_FP32": np.ones((1, 2), np.float32)}
    for _ in range(2):
        for forms, version in ((old, "1"), (new, "2")):
            answer = forms.write(forms.read(body, length), outputs)
            assert json.loads(answer.body[: answer.header_length])["model_version"] == version


def test_forms_that_somebody_makes_up_are_forgotten_and_none_above_ten_thousand_bytes_is_kept() -> None:
    forms = Forms(manifest(types=("FP32",)), batches=True)
    outputs = {"y_FP32": np.ones((1, 2), np.float32)}
    for at in range(3 * MOST):
        asked = forms.read(*binary("FP32", 1, bytes(8), parameters={"timeout": at, "binary_data_output": True}))
        forms.write(asked, {"y_FP32": np.ones((1, at + 1), np.float32)})
    assert len(forms._forms._known) <= MOST
    assert len(forms._heads._known) <= MOST
    before = {*forms._forms._known}
    body, length = binary("FP32", 1, bytes(8), parameters={"binary_data_output": True}, ignored="x" * 10_000)
    assert forms.write(forms.read(body, length), outputs).header_length
    assert {*forms._forms._known} == before


@given(st.lists(st.integers(0, 2 * MOST)))
def test_few_things_are_known_and_each_is_the_one_that_was_put_last(keys: list[int]) -> None:
    few: Few[int, int] = Few()
    last: dict[int, int] = {}
    for at, key in enumerate(keys):
        last[key] = at
        assert few.put(key, at) == at
        assert few.get(key) == at
        assert all(few.get(known) in (None, value) for known, value in last.items())
        assert len(few._known) <= MOST


def test_a_length_in_other_digits_is_refused_even_when_its_form_is_known() -> None:
    described = manifest(types=("FP32",))
    forms = Forms(described, batches=True)
    body, length = binary("FP32", 1, bytes(8))
    forms.read(body, length)
    for odd in (length.translate(str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")), f" {length}", f"+{length}", f"{length}.0"):
        with pytest.raises(FoothillError, match="is not a number of bytes"):
            forms.read(body, odd)
