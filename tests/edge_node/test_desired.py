from __future__ import annotations

import pytest

from edge_node.desired import order_of, refusal
from tests.edge_node.workbench import desired


@pytest.mark.parametrize(
    ("node", "sequence", "expires_in_s", "taken", "reason"),
    [
        ("tokyo", 8, 60.0, {}, "node 'tokyo'"),
        ("frankfurt", 6, 60.0, {}, "below 7"),
        ("frankfurt", 8, -1.0, {}, "expired"),
        ("frankfurt", 7, 60.0, {}, ""),
        ("frankfurt", 7, 60.0, None, ""),
        ("frankfurt", 7, 60.0, {"digits": "sha256:" + "0" * 64}, "asks for something else"),
        ("frankfurt", 8, 60.0, {"digits": "sha256:" + "0" * 64}, ""),
    ],
)
def test_only_ones_own_fresh_documents_are_followed(
    node: str, sequence: int, expires_in_s: float, taken: dict[str, str] | None, reason: str
) -> None:
    """`taken`: what the document with sequence 7 had asked for; None where that is not known any more."""
    document = desired(sequence, {}, node=node, expires_in_s=expires_in_s)
    known = "" if taken is None else order_of(desired(7, taken))
    why = refusal(document, node="frankfurt", taken=7, document=known, now_s=document.issued_at_s)
    assert reason in why
    assert bool(why) == bool(reason)
