"""Ed25519 envelopes around the control plane's messages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from contracts.errors import FoothillError
from contracts.messages import Signed, decode, encode

T = TypeVar("T")


def generate() -> bytes:
    """A new private key: 32 secret bytes."""
    return Ed25519PrivateKey.generate().private_bytes_raw()


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


def _signed_bytes(kind: type, payload: bytes) -> bytes:
    return f"foothill/v1/{kind.__name__}\n".encode() + payload
