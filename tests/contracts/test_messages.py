"""Messages survive the wire, grow without breaking readers, and bad ones are refused with a reason."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.boards import Fingerprint
from contracts.enrolment import EnrolAnswer, EnrolRequest, TokenRequest
from contracts.errors import FoothillError
from contracts.messages import (
    MAX_EPOCH,
    MAX_MESSAGE_BYTES,
    Audit,
    Certificate,
    Desired,
    Identity,
    Load,
    ModelReport,
    Reported,
    Signed,
    Status,
    decode,
    encode,
)

FINGERPRINT = Fingerprint("cpu-x86", "x86_64", "linux", 2, 8 << 30, "CPUExecutionProvider", "onnxruntime 1.23")
DIGEST = "sha256:" + "0" * 64
AUDIT = Audit("s" * 32, "digits", DIGEST, "tokyo-1", "r1", 0.7, True, "3", "5", 1.5)
REPORT = ModelReport(DIGEST, "active", DIGEST, "", "digits-edge@1", "s" * 32)
MESSAGES = [
    AUDIT,
    Signed(b"payload", "k", b"signature", {DIGEST: b"manifest"}),
    Identity("tokyo-1", "jp", 35.7, 139.7, "http://t:8100", "public", "ab" * 32, "cpu-x86", 1_800_000_000_000),
    Status("tokyo-1", 1_800_000_000_000, "online"),
    Load("tokyo-1", 1_800_000_000_000, 3, 0.2, 1.9),
    Desired("tokyo-1", 7, 1.0, 2.0, {"digits": DIGEST}),
    Reported("tokyo-1", 1, 7, {"digits": REPORT}, FINGERPRINT, 3.0),
    Certificate("s" * 32, "digits", 0.93, 0.02, 0.05, 1000, "revoked", 4, 5.0),
]
by_kind = pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)


@by_kind
def test_every_message_survives_the_wire(message: Any) -> None:
    assert decode(encode(message), type(message)) == message


@by_kind
@given(noise=st.binary(max_size=200))
def test_noise_is_refused_as_a_bad_request(message: Any, noise: bytes) -> None:
    kind = type(message)
    with pytest.raises(FoothillError, match=kind.__name__) as caught:
        decode(b"\xc1" + noise, kind)  # 0xc1 is never used in MessagePack
    assert caught.value.code == "bad_request"


@by_kind
def test_half_a_message_is_refused(message: Any) -> None:
    with pytest.raises(FoothillError, match="This is no"):
        decode(encode(message)[:-1], type(message))


def test_a_reader_takes_a_newer_message_with_fields_it_does_not_know() -> None:
    newer = msgspec.to_builtins(AUDIT) | {"added_later": [1, 2, 3]}
    assert decode(msgspec.msgpack.encode(newer), Audit) == AUDIT


def test_a_missing_field_is_named() -> None:
    older = msgspec.to_builtins(AUDIT)
    del older["digest"]
    with pytest.raises(FoothillError, match="digest"):
        decode(msgspec.msgpack.encode(older), Audit)


def test_an_oversized_message_is_refused_unread() -> None:
    with pytest.raises(FoothillError, match="over"):
        decode(b"\x00" * (MAX_MESSAGE_BYTES + 1), Audit)


def test_agreement_is_equality_of_answers() -> None:
    assert not AUDIT.agree
    assert msgspec.structs.replace(AUDIT, cloud_answer="3").agree


def test_a_report_says_by_default_only_what_it_works_on() -> None:
    report = ModelReport("sha256:" + "1" * 64, "fetching")
    reported = Reported("tokyo-1", 1, 2, {"digits": report}, FINGERPRINT, 3.0)
    assert decode(encode(reported), Reported).models["digits"].serving == ""


def test_enrolment_goes_as_json_with_its_bytes_in_base64() -> None:
    answer = EnrolAnswer(
        "tokyo-1", "jp", 35.7, 139.7, "mqtt://b:1883", ("http://c",), b"\x00root", "ab" * 32, b"\xffidentity"
    )
    data = msgspec.json.encode(answer)
    assert b'"root":"AHJvb3Q="' in data
    assert msgspec.json.decode(data, type=EnrolAnswer) == answer


@pytest.mark.parametrize("kind", [EnrolRequest, TokenRequest])
def test_a_misspelt_field_of_a_request_is_refused(kind: type[Any]) -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.json.decode(b'{"tokn": "x"}', type=kind)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (Load, "queue_ms", float("nan")),
        (Load, "service_ms", float("inf")),
        (Load, "service_ms", -1.0),
        (Load, "in_flight", -1),
        (Load, "in_flight", 1 << 40),
        (Status, "epoch", MAX_EPOCH + 1),
        (Status, "epoch", -1),
        (Certificate, "threshold", float("nan")),
        (Certificate, "threshold", -0.1),
        (Certificate, "threshold", float("inf")),
        (Certificate, "epsilon", float("nan")),
        (Certificate, "delta", 1.5),
        (Certificate, "n", -1),
        (Certificate, "sequence", -1),
        (Certificate, "sequence", 1 << 53),
    ],
)
def test_figures_out_of_bounds_are_refused(kind: type[Any], field: str, value: float) -> None:
    good = next(message for message in MESSAGES if isinstance(message, kind))
    with pytest.raises(FoothillError, match=f"This is no {kind.__name__}"):
        decode(encode(msgspec.structs.replace(good, **{field: value})), kind)
