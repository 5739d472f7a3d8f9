from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.messages import Certificate
from edge_node.certificates import FILE, NodeCertificates, seed_certificate
from tests.edge_node.bundle_factory import describe, pack


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
    certificates = NodeCertificates(tmp_path)
    certificates.serve(SEED)
    assert certificates.live.get("s1") == SEED
    certificates.take(issued(3))
    assert certificates.live.get("s1") == issued(3)


def test_a_certificate_that_came_before_its_model_is_waiting_for_it(tmp_path: Path) -> None:
    certificates = NodeCertificates(tmp_path)
    certificates.take(issued(3))
    certificates.take(issued(2))
    assert certificates.live.get("s1") is None
    certificates.serve(SEED)
    assert certificates.live.get("s1") == issued(3)


def test_an_older_certificate_never_replaces_a_newer_one(tmp_path: Path) -> None:
    certificates = NodeCertificates(tmp_path)
    certificates.serve(SEED)
    for sequence in [*random.Random(0).sample(range(1, 50), 20), 49, 1]:
        certificates.take(issued(sequence))
    assert certificates.live.get("s1") == issued(49)


def test_a_revocation_outlives_a_restart_without_a_broker(tmp_path: Path) -> None:
    certificates = NodeCertificates(tmp_path)
    certificates.serve(SEED)
    certificates.take(issued(4, revoked=True))
    restarted = NodeCertificates(tmp_path)
    restarted.serve(SEED)
    assert restarted.live.get("s1") == issued(4, revoked=True)


def test_strata_of_others_stay_bounded(tmp_path: Path) -> None:
    certificates = NodeCertificates(tmp_path)
    for number in range(5000):
        certificates.take(issued(1, stratum=f"other-{number}"))
    assert certificates.waiting == 1024
    assert not (tmp_path / FILE).exists()
    certificates.serve(issued(0, stratum="other-4999"))
    assert certificates.live.get("other-4999") == issued(1, stratum="other-4999")


@pytest.mark.parametrize("content", [b"{", b'[{"stratum":"\xff"}]'])
def test_a_damaged_file_costs_the_kept_certificates_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (tmp_path / FILE).write_bytes(content)
    certificates = NodeCertificates(tmp_path)
    certificates.serve(SEED)
    assert certificates.live.get("s1") == SEED
    assert "cannot be read" in caplog.text


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(1, 9)), max_size=30), st.integers(0, 30))
def test_in_any_order_the_highest_sequence_of_a_served_stratum_lives(
    tmp_path_factory: pytest.TempPathFactory, arrivals: list[tuple[str, int]], served_at: int
) -> None:
    certificates = NodeCertificates(tmp_path_factory.mktemp("state"))
    for number, (stratum, sequence) in enumerate(arrivals):
        if number == served_at:
            certificates.serve(issued(0, stratum="a"))
        certificates.take(issued(sequence, stratum=stratum))
    if served_at >= len(arrivals):
        certificates.serve(issued(0, stratum="a"))
    best = max((sequence for stratum, sequence in arrivals if stratum == "a"), default=0)
    live = certificates.live.get("a")
    assert live is not None
    assert live.sequence == best
    assert certificates.live.get("b") is None
