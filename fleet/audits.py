"""Whose evidence is believed: audits and counts that the node which answered signed; audits that the request's router
sealed, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from contracts.errors import FoothillError
from contracts.messages import Audit, Quality, Signed, decode
from contracts.topics import audit_topic, node_of
from fleet.state import NodeRow
from runtime.links.trust.signatures import HOP, key_id, open_sealed, verify

Refusal = Literal["unreadable", "node", "stratum", "signature"]


class AuditRefused(FoothillError):  # noqa: N818 - it names what became of the audit
    """`reason` is a metric's label; the message says the rest."""

    def __init__(self, reason: Refusal, message: str) -> None:
        super().__init__("forbidden", message)
        self.reason = reason


def read_audit(topic: str, payload: bytes, nodes: Mapping[str, NodeRow], hop_key: bytes) -> Audit:
    """The audit that came on `topic`. Raises AuditRefused.

    Every holder of the hop key can seal an audit of any node: it keeps strangers out, not a router or node gone bad.
    """
    try:
        signed = decode(payload, Signed)
        claimed = decode(signed.payload, Audit)
        expected = audit_topic(claimed.stratum)
    except (FoothillError, ValueError) as error:
        raise AuditRefused("unreadable", str(error)) from error
    node = nodes.get(claimed.node)
    if node is None:
        raise AuditRefused("node", f"The audit is of node {claimed.node[:80]!r}, which is not enrolled.")
    if topic != expected:
        raise AuditRefused("stratum", f"The audit of stratum {claimed.stratum} came on {topic[:200]}.")
    try:
        if signed.key_id == HOP:
            return open_sealed(signed, hop_key, Audit)
        return verify(signed, {key_id(node.public_key): node.public_key}, Audit)
    except FoothillError as error:
        raise AuditRefused(
            "signature",
            f"The audit of node {node.name} is neither signed by the key that this node enrolled nor sealed with the "
            f"hop key.",
        ) from error


def read_quality(topic: str, payload: bytes, nodes: Mapping[str, NodeRow]) -> Quality:
    """The counts that came on `topic`. Raises FoothillError or ValueError for all but a node's own."""
    node = nodes.get(node_of(topic))
    if node is None:
        raise FoothillError("forbidden", f"The counts on {topic[:200]} are of a node which is not enrolled.")
    told = verify(decode(payload, Signed), {key_id(node.public_key): node.public_key}, Quality)
    if told.node != node.name:
        raise FoothillError("forbidden", f"The counts of node {told.node[:80]!r} came on {topic[:200]}.")
    return told
