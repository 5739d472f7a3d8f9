from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import FoothillError
from contracts.messages import Certificate, Signed, encode
from edge_node.certificates import FILE, NodeCertificates, seed_certificate
from runtime.links.trust import signatures
from tests.edge_node.bundle_factory import describe, pack

PRIVATE = signatures.generate()
KEYS = {signatures.key_id(signatures.public_key(PRIVATE)): signatures.public_key(PRIVATE)}


def issued(sequence: int, *, stratum: str = "s1", threshold: float = 0.9, revoked: bool = False) -> Certificate:
    return Certificate(
        stratum=stratum,
        model="digits",
        threshold=threshold,
        epsilon=0.05,
        delta=0.05,
        n=100,
        state="revoked" if revoked else "live",
        sequence=sequence,
        issued_at_s=0.0,
    )


def take(certificates: NodeCertificates, certificate: Certificate, private: bytes = PRIVATE) -> None:
    certificates.take(certificate, signatures.sign(certificate, private))


SEED = issued(0, threshold=0.5)


def test_the_bundles_own_rule_is_the_seed(tmp_path: Path) -> None:
    pack(tmp_path, threshold=0.7)
    manifest = describe(tmp_path)
    (artifact,) = manifest.artifacts
    seed = seed_certificate(manifest.model, artifact)
    assert seed is not None
    assert artifact.confidence is not None
    assert (seed.threshold, seed.stratum, seed.sequence) == (0.7, artifact.confidence.stratum, 0)
    assert seed_certificate("digits", msgspec.structs.replace(artifact, confidence=None)) is None


def test_the_seed_rules_until_something_is_issued(tmp_path: Path) -> None:
    certificates = NodeCertificates(tmp_path, lambda: KEYS)
    certificates.serve(SEED)
    assert certificates.live.get("s1") == SEED
    take(certificates, issued(3))
    assert certificates.live.get("s1") == issued(3)


def test_a_certificate_that_came_before_its_model_is_waiting_for_it(tmp_path: Path) -> None:
    certificates = NodeCertificates(tmp_path, lambda: KEYS)
    take(certificates, issued(3))
    take(certificates, issued(2))
    assert certificates.live.get("s1") is None
    certificates.serve(SEED)
    assert certificates.live.get("s1") == issued(3)


def test_an_older_certificate_never_replaces_a_newer_one(tmp_path: Path) -> None:
    certificates = NodeCertificates(tmp_path, lambda: KEYS)
    certificates.serve(SEED)
    for sequence in [*random.Random(0).sample(range(1, 50), 20), 49, 1]:
        take(certificates, issued(sequence))
    assert certificates.live.get("s1") == issued(49)


def test_a_revocation_outlives_a_restart_without_a_broker(tmp_path: Path) -> None:
    certificates = NodeCertificates(tmp_path, lambda: KEYS)
    certificates.serve(SEED)
    take(certificates, issued(4, revoked=True))
    restarted = NodeCertificates(tmp_path, lambda: KEYS)
    restarted.serve(SEED)
    assert restarted.live.get("s1") == issued(4, revoked=True)


def test_only_what_the_fleet_signed_is_believed_from_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    certificates = NodeCertificates(tmp_path, lambda: KEYS)
    for number, private in enumerate((PRIVATE, signatures.generate(), PRIVATE)):
        certificates.serve(issued(0, stratum=f"s{number}"))
        take(certificates, issued(4, stratum=f"s{number}", revoked=True), private)
    kept = msgspec.json.decode((tmp_path / FILE).read_bytes(), type=list[Signed])
    kept[2] = msgspec.structs.replace(kept[2], payload=encode(issued(9, stratum="s2", threshold=0.0)))
    (tmp_path / FILE).write_bytes(msgspec.json.encode(kept))
    restarted = NodeCertificates(tmp_path, lambda: KEYS)
    for number in range(3):
        restarted.serve(issued(0, stratum=f"s{number}"))
    assert [restarted.live.get(f"s{number}") for number in range(3)] == [
        issued(4, stratum="s0", revoked=True),
        issued(0, stratum="s1"),
        issued(0, stratum="s2"),
    ]
    assert caplog.text.count("is not believed") == 2


def test_a_file_without_keys_to_check_it_is_not_believed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def no_keys() -> dict[str, str]:
        raise FoothillError("unavailable", "no keys yet")

    certificates = NodeCertificates(tmp_path, no_keys)
    certificates.serve(SEED)
    take(certificates, issued(4))
    restarted = NodeCertificates(tmp_path, no_keys)
    restarted.serve(SEED)
    assert restarted.live.get("s1") == SEED
    assert "no keys yet" in caplog.text


def test_strata_of_others_stay_bounded(tmp_path: Path) -> None:
    certificates = NodeCertificates(tmp_path, lambda: KEYS)
    for number in range(5000):
        take(certificates, issued(1, stratum=f"other-{number}"))
    assert certificates.waiting == 1024
    assert not (tmp_path / FILE).exists()
    certificates.serve(issued(0, stratum="other-4999"))
    assert certificates.live.get("other-4999") == issued(1, stratum="other-4999")


@pytest.mark.parametrize("content", [b"{", b'[{"stratum":"\xff"}]'])
def test_a_damaged_file_costs_the_kept_certificates_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (tmp_path / FILE).write_bytes(content)
    certificates = NodeCertificates(tmp_path, lambda: KEYS)
    certificates.serve(SEED)
    assert certificates.live.get("s1") == SEED
    assert "cannot be read" in caplog.text


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(1, 9)), max_size=30), st.integers(0, 30))
def test_in_any_order_the_highest_sequence_of_a_served_stratum_lives(
    tmp_path_factory: pytest.TempPathFactory, arrivals: list[tuple[str, int]], served_at: int
) -> None:
    certificates = NodeCertificates(tmp_path_factory.mktemp("state"), lambda: KEYS)
    for number, (stratum, sequence) in enumerate(arrivals):
        if number == served_at:
            certificates.serve(issued(0, stratum="a"))
        take(certificates, issued(sequence, stratum=stratum))
    if served_at >= len(arrivals):
        certificates.serve(issued(0, stratum="a"))
    best = max((sequence for stratum, sequence in arrivals if stratum == "a"), default=0)
    live = certificates.live.get("a")
    assert live is not None
    assert live.sequence == best
    assert certificates.live.get("b") is None
