"""Envelopes: what is signed is believed, anything else is not."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import FoothillError
from contracts.messages import Desired, Identity, Signed, decode, encode
from runtime.links.trust import signatures

PRIVATE = signatures.generate()
PUBLIC = signatures.public_key(PRIVATE)
KEYS = {signatures.key_id(PUBLIC): PUBLIC}
DESIRED = Desired("frankfurt-1", 7, 1.0, 2.0, {"digits": "sha256:" + "0" * 64})


def refused(signed: Signed, keys: dict[str, str] = KEYS) -> str:
    with pytest.raises(FoothillError) as caught:
        signatures.verify(signed, keys, Desired)
    return caught.value.code


def test_a_signed_document_survives_the_wire() -> None:
    signed = signatures.sign(DESIRED, PRIVATE, {"sha256:aa": b"manifest"})
    arrived = decode(encode(signed), Signed)
    assert signatures.verify(arrived, KEYS, Desired) == DESIRED
    assert arrived.attachments == {"sha256:aa": b"manifest"}


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_any_changed_byte_of_payload_or_signature_is_refused(where: int, flip: int) -> None:
    signed = signatures.sign(DESIRED, PRIVATE)
    payload = bytearray(signed.payload)
    payload[where % len(payload)] ^= flip
    assert refused(msgspec.structs.replace(signed, payload=bytes(payload))) == "forbidden"
    signature = bytearray(signed.signature)
    signature[where % len(signature)] ^= flip
    assert refused(msgspec.structs.replace(signed, signature=bytes(signature))) == "forbidden"


def test_an_unknown_key_and_a_forged_key_id_are_refused() -> None:
    other = signatures.generate()
    assert refused(signatures.sign(DESIRED, other)) == "forbidden"
    forged = msgspec.structs.replace(signatures.sign(DESIRED, other), key_id=signatures.key_id(PUBLIC))
    assert refused(forged) == "forbidden"


def test_a_message_of_one_kind_never_passes_for_another() -> None:
    identity = Identity("frankfurt-1", "eu", 50.0, 8.5, "http://x", "public", PUBLIC, "cpu-x86", 1)
    assert refused(signatures.sign(identity, PRIVATE)) == "forbidden"


def test_a_signature_that_is_no_signature_is_refused() -> None:
    assert refused(Signed(encode(DESIRED), signatures.key_id(PUBLIC), b"short")) == "forbidden"
    assert refused(Signed(b"", "", b"")) == "forbidden"


HOP_KEY = b"h" * 32
SEALED = signatures.seal(DESIRED, HOP_KEY)


def unsealed(signed: Signed, key: bytes = HOP_KEY) -> str:
    with pytest.raises(FoothillError) as caught:
        signatures.open_sealed(signed, key, Desired)
    return caught.value.code


def test_what_was_sealed_opens_with_the_same_key() -> None:
    arrived = decode(encode(SEALED), Signed)
    assert arrived.key_id == signatures.HOP
    assert signatures.open_sealed(arrived, HOP_KEY, Desired) == DESIRED


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_a_seal_stands_for_every_byte_the_kind_and_the_key(where: int, flip: int) -> None:
    payload = bytearray(SEALED.payload)
    payload[where % len(payload)] ^= flip
    assert unsealed(msgspec.structs.replace(SEALED, payload=bytes(payload))) == "forbidden"
    seal = bytearray(SEALED.signature)
    seal[where % len(seal)] ^= flip
    assert unsealed(msgspec.structs.replace(SEALED, signature=bytes(seal))) == "forbidden"


def test_a_seal_of_another_key_another_kind_or_none_is_refused() -> None:
    identity = Identity("frankfurt-1", "eu", 50.0, 8.5, "http://x", "public", PUBLIC, "cpu-x86", 1)
    assert unsealed(SEALED, b"k" * 32) == "forbidden"
    assert unsealed(signatures.seal(identity, HOP_KEY)) == "forbidden"
    assert unsealed(msgspec.structs.replace(SEALED, signature=b"")) == "forbidden"


def test_a_signature_is_no_seal_and_a_seal_no_signature() -> None:
    assert unsealed(signatures.sign(DESIRED, PRIVATE)) == "forbidden"
    assert refused(SEALED) == "forbidden"
