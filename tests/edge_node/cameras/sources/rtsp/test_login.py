"""The examples of RFC 7616 and RFC 2069, and what cameras offer."""

from __future__ import annotations

import hashlib
import re

import pytest

from edge_node.cameras.sources.rtsp.login import answer_to


def test_digest_without_qop_is_that_of_rfc_2069() -> None:
    # RFC 2069, 2.4, with the response that its erratum 749 gives.
    nonce, opaque = "dcd98b7102dd2f0e8b11d0f600bfb0c093", "5ccc069c403ebaf9f0171e9517f40e41"
    told = f'Digest realm="testrealm@host.com", nonce="{nonce}", opaque="{opaque}"'
    answer = answer_to([told], ("Mufasa", "CircleOfLife"))
    assert answer is not None
    shown = answer("GET", "/dir/index.html")
    assert 'response="1949323746fe6a43ef61f9606e7febea"' in shown
    assert f'opaque="{opaque}"' in shown
    assert "qop" not in shown


@pytest.mark.parametrize(("algorithm", "name"), [("MD5", "md5"), ("SHA-256", "sha256")])
def test_digest_with_qop_counts_and_mixes_in_a_number_of_its_own(algorithm: str, name: str) -> None:
    answer = answer_to([f'Digest realm="a \\"b\\"", nonce="n", qop="auth,auth-int", algorithm={algorithm}'], ("u", "p"))
    assert answer is not None

    def hashed(text: str) -> str:
        return hashlib.new(name, text.encode()).hexdigest()

    for count in ("00000001", "00000002"):
        shown = answer("PLAY", "rtsp://h/a")
        own = re.search(r'cnonce="(\w+)"', shown)
        assert own is not None
        who, what = hashed('u:a "b":p'), hashed("PLAY:rtsp://h/a")
        expected = hashed(f"{who}:n:{count}:{own[1]}:auth:{what}")
        assert f'response="{expected}"' in shown
        assert f"qop=auth, nc={count}, algorithm={algorithm}" in shown
        assert 'realm="a \\"b\\""' in shown


def test_the_best_of_what_is_offered_is_taken() -> None:
    basic, md5, sha = 'Basic realm="a"', 'Digest realm="a", nonce="n"', 'Digest realm="a", nonce="n", algorithm=SHA-256'
    for offered, seen in (
        ([basic], "Basic dTpwOnc="),
        ([basic, md5], "Digest"),
        ([md5, sha], "algorithm=SHA-256"),
        ([sha, md5, basic], "SHA-256"),
    ):
        answer = answer_to(offered, ("u", "p:w"))
        assert answer is not None
        assert seen in answer("PLAY", "x")


@pytest.mark.parametrize("offered", [[], [""], ["Negotiate"], ['Digest realm="a", nonce="n", algorithm=SHA-512-256']])
def test_what_is_not_known_is_not_answered(offered: list[str]) -> None:
    assert answer_to(offered, ("u", "p")) is None
