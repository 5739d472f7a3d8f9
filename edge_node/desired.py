"""Which desired documents a node follows. Pure."""

from __future__ import annotations

import msgspec

from contracts.manifest import digest_of
from contracts.messages import Desired


def refusal(desired: Desired, *, node: str, taken: int, document: str, now_s: float) -> str:
    """Why a desired document is not followed; "" when it is. The one taken last may come again, asking for the same:
    `document` is its `order_of`, "" where that is not known."""
    if desired.node != node:
        return f"it is for node {desired.node[:80]!r}"
    if desired.sequence < taken:
        return f"its sequence {desired.sequence} is below {taken}, which was taken before"
    if desired.sequence == taken and document and order_of(desired) != document:
        return (
            f"another document of sequence {taken} was taken before, and this one asks for something else: two fleet "
            f"managers sign with one key, or one was restored from a copy. Start the rollout again"
        )
    if now_s > desired.expires_at_s:
        return f"it expired {now_s - desired.expires_at_s:.0f} s ago; the fleet must issue it again"
    return ""


def order_of(desired: Desired) -> str:
    """The digest of what a document asks for. It may be issued anew under its sequence to live longer."""
    return digest_of(msgspec.json.encode(desired.models, order="sorted"))
