from __future__ import annotations

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from contracts.acceptance import Acceptance, Check
from contracts.errors import FoothillError
from runtime.links.bundles import acceptance_reports as reports
from runtime.links.trust.signatures import generate, key_id, public_key

REPORT = Acceptance("b", "http://b", "b", "cpu-x86", "partial", 1.5, 2.0, "0.1", (Check("ready", "passed", 'ä"\\'),))
KEY = generate()
KEYS = {key_id(public_key(KEY)): public_key(KEY)}
FILE = reports.seal(REPORT, KEY)


def test_a_signed_report_is_believed_by_who_knows_the_key() -> None:
    found = reports.verify(reports.read(FILE), KEYS)
    assert found.checks == REPORT.checks
    assert found.signed_by == public_key(KEY)


def test_neither_an_unknown_key_nor_no_signature_is_believed() -> None:
    with pytest.raises(FoothillError, match="not among the trusted ones"):
        reports.verify(reports.read(FILE), {})
    with pytest.raises(FoothillError, match="not signed"):
        reports.verify(reports.read(reports.seal(REPORT, None)), KEYS)


@given(st.integers(0, len(FILE) - 2), st.integers(1, 255))
def test_no_byte_can_be_changed(at: int, by: int) -> None:
    altered = bytearray(FILE)
    altered[at] ^= by
    try:
        found = reports.verify(reports.read(bytes(altered)), KEYS)
    except FoothillError:
        return
    # What still verifies is what was signed: hex digits have two cases, and space may stand between the fields.
    assert found == reports.verify(reports.read(FILE), KEYS)


def test_a_report_that_was_formatted_anew_says_so() -> None:
    with pytest.raises(FoothillError, match="formatted anew"):
        reports.verify(reports.read(FILE.replace(b"\n  ", b"\n   ")), KEYS)


def test_who_holds_a_trusted_key_cannot_sign_in_anothers_name() -> None:
    other = generate()
    raw = bytes(reports.read(FILE).report)
    made = Ed25519PrivateKey.from_private_bytes(other).sign(b"foothill/v1/Acceptance\n" + raw)
    signature = reports.ReportSignature(key_id(public_key(other)), public_key(other), made.hex())
    trusted = {key_id(public_key(other)): public_key(other), **KEYS}
    with pytest.raises(FoothillError, match="another signer"):
        reports.verify(reports.ReportFile(msgspec.Raw(raw), signature), trusted)


@pytest.mark.parametrize("data", [b"", b"[]", b"<html>", b'{"report":1,"more":2}', b" " * (2 << 20)])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(FoothillError):
        reports.verify(reports.read(data), KEYS)
