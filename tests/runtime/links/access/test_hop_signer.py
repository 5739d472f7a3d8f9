"""The quick signer signs as the plain function does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.links.access.hop import HopSigner, sign_hop, verify_hop


@given(st.binary(min_size=1, max_size=200), st.lists(st.tuples(st.text(max_size=50), st.floats(0, 2e9)), max_size=8))
def test_it_signs_as_hmac_does(key: bytes, drawn: list[tuple[str, float]]) -> None:
    signer = HopSigner(key, "router")
    for request_id, now_s in drawn:
        request_id = request_id.encode("ascii", "ignore").decode()
        mark = signer.sign(request_id, now_s)
        assert mark == sign_hop(key, "router", request_id, now_s)
        assert verify_hop(key, mark, request_id, now_s) == "router"
