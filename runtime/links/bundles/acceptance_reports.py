"""The file of an acceptance report: the report as JSON, and a signature over those very bytes (Ed25519, RFC 8032).

`{"report": {...}, "signature": {...}}`. The signature covers the bytes of `report` as they stand in the file, so that
nobody has to agree on how JSON is written; a file that was formatted anew is no longer signed.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from contracts.acceptance import MAX_REPORT_BYTES, Acceptance, decode
from contracts.decoding import UNREADABLE
from contracts.errors import FoothillError
from runtime.links.trust.signatures import key_id, public_key

_CONTEXT = b"foothill/v1/Acceptance\n"
MAX_FILE_BYTES = MAX_REPORT_BYTES + 4096


class ReportSignature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`public_key` and `signature` in hex; the key is believed only by those who know it already."""

    key_id: str
    public_key: str
    signature: str


class ReportFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    report: msgspec.Raw
    signature: ReportSignature | None = None


def seal(report: Acceptance, private: bytes | None) -> bytes:
    """The content of the file; without a key it is not signed. `signed_by` is filled in here."""
    if private is None:
        return msgspec.json.encode(ReportFile(_raw(msgspec.structs.replace(report, signed_by="")))) + b"\n"
    public = public_key(private)
    raw = _raw(msgspec.structs.replace(report, signed_by=public))
    made = Ed25519PrivateKey.from_private_bytes(private).sign(_CONTEXT + bytes(raw))
    return msgspec.json.encode(ReportFile(raw, ReportSignature(key_id(public), public, made.hex()))) + b"\n"


def read(data: bytes) -> ReportFile:
    """Raises FoothillError `bad_request` for a file of another kind. Nothing is checked yet."""
    if len(data) > MAX_FILE_BYTES:
        raise FoothillError("bad_request", f"A report file of {len(data)} bytes is over {MAX_FILE_BYTES}.")
    try:
        return msgspec.json.decode(data, type=ReportFile)
    except UNREADABLE as error:
        raise FoothillError(
            "bad_request", f"This is no report of `foothill hil run`: {error}. Give the JSON file, not the page."
        ) from error


def verify(file: ReportFile, keys: Mapping[str, str]) -> Acceptance:
    """The report, when one of `keys` (key id to public hex) signed these very bytes.

    Raises FoothillError `forbidden` for a missing or wrong signature or an unknown key, `bad_request` for a report
    out of form.
    """
    signature = file.signature
    if signature is None:
        raise FoothillError("forbidden", "The report is not signed. Run the suite with --key FILE.")
    public = keys.get(signature.key_id)
    if public is None:
        raise FoothillError(
            "forbidden",
            f"The report is signed by key {signature.key_id[:32]!r}, which is not among the trusted ones: "
            f"{', '.join(sorted(keys)) or 'none'}.",
        )
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        key.verify(bytes.fromhex(signature.signature), _CONTEXT + bytes(file.report))
    except (InvalidSignature, ValueError) as error:
        raise FoothillError(
            "forbidden",
            f"The signature of key {signature.key_id} is wrong: the report was altered, formatted anew, or forged.",
        ) from error
    report = decode(file.report)
    if report.signed_by != public:
        raise FoothillError("forbidden", "The report names another signer than the one who signed it.")
    return report


def _raw(report: Acceptance) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.format(msgspec.json.encode(report), indent=2))
