"""Envelopes around the control plane's messages: signed with Ed25519, or sealed with a key that both sides share."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from contracts.errors import FoothillError
from contracts.messages import Signed, decode, encode

T = TypeVar("T")

HOP = "hop"
"""The key id of an envelope that is sealed with the fleet's hop key; no Ed25519 key is named so."""


def generate() -> bytes:
    """A new private key: 32 secret bytes."""
    return Ed25519PrivateKey.generate().private_bytes_raw()


def checked_private(text: str) -> bytes:
    """A private key as its file holds it: 64 hex digits. Raises ValueError."""
    key = bytes.fromhex(text)
    if len(key) != 32:
        raise ValueError(f"{len(key)} bytes are no Ed25519 key, which has 32")
    return key


def public_key(private: bytes) -> str:
    """The public half, 64 hex digits."""
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw().hex()


def key_id(public_hex: str) -> str:
    """A key's name: the first 16 hex digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(bytes.fromhex(public_hex)).hexdigest()[:16]


def sign(message: msgspec.Struct, private: bytes, attachments: Mapping[str, bytes] | None = None) -> Signed:
    """Signs the message's type together with its bytes, so that no message passes for one of another kind."""
    payload = encode(message)
    signature = Ed25519PrivateKey.from_private_bytes(private).sign(_signed_bytes(type(message), payload))
    return Signed(payload, key_id(public_key(private)), signature, dict(attachments or {}))


def verify(signed: Signed, keys: Mapping[str, str], kind: type[T]) -> T:
    """The message inside, when one of `keys` (key id to public hex) signed it as a `kind`.

    Raises FoothillError `forbidden` for an unknown key or a bad signature, `bad_request` for a malformed payload.
    """
    public_hex = keys.get(signed.key_id)
    if public_hex is None:
        raise FoothillError(
            "forbidden",
            f"The {kind.__name__} is signed by key {signed.key_id[:32]!r}, which the fleet's signed metadata does not "
            f"allow for it. Refresh the metadata; if it stays so, the sender is not this fleet.",
        )
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_hex))
        key.verify(signed.signature, _signed_bytes(kind, signed.payload))
    except (InvalidSignature, ValueError) as error:
        raise FoothillError(
            "forbidden",
            f"The signature of key {signed.key_id} on this {kind.__name__} is wrong: it was altered or forged.",
        ) from error
    return decode(signed.payload, kind)


def seal(message: msgspec.Struct, hop_key: bytes) -> Signed:
    """An envelope by whoever holds the hop key (HMAC-SHA256, RFC 2104): routers, nodes, the cloud tier, the fleet."""
    payload = encode(message)
    return Signed(payload, HOP, _mac(hop_key, type(message), payload))


def open_sealed(signed: Signed, hop_key: bytes, kind: type[T]) -> T:
    """The message inside, when it was sealed as a `kind` with `hop_key`.

    Raises FoothillError `forbidden` for anything else, `bad_request` for a malformed payload.
    """
    if signed.key_id != HOP or not hmac.compare_digest(signed.signature, _mac(hop_key, kind, signed.payload)):
        raise FoothillError(
            "forbidden",
            f"The seal on this {kind.__name__} is wrong: it was altered or forged, or its sender's hop_key_file is not "
            f"this fleet's.",
        )
    return decode(signed.payload, kind)


def _mac(hop_key: bytes, kind: type, payload: bytes) -> bytes:
    return hmac.digest(hop_key, _signed_bytes(kind, payload), "sha256")


def _signed_bytes(kind: type, payload: bytes) -> bytes:
    return f"foothill/v1/{kind.__name__}\n".encode() + payload
