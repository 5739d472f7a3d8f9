"""MQTT topics: built and taken apart here and nowhere else."""

from __future__ import annotations

import re
from typing import Literal

PREFIX = "foothill/v1"
DENY = f"{PREFIX}/deny"

NODE_NAME = re.compile(r"[a-z0-9][a-z0-9\-]{0,62}")
"""Node, model and region names: lower-case letters, digits and '-', at most 63, safe in topics, paths and hosts."""

STRATUM = re.compile(r"[A-Za-z0-9_\-]{1,64}")
"""What may stand for a stratum in a topic; `contracts.strata.stratum_of` gives 32 hex digits."""

NODE_KINDS = ("identity", "status", "desired", "reported", "load", "late", "quality")


def node_topic(node: str, kind: str) -> str:
    """`nodes/{node}/{kind}`; raises ValueError for a name that would break out of its level."""
    _checked_node(node)
    if kind not in NODE_KINDS:
        raise ValueError(f"{kind!r} is not one of {', '.join(NODE_KINDS)}.")
    return f"{PREFIX}/nodes/{node}/{kind}"


def every_node(kind: str) -> str:
    """The subscription for one kind of message of all nodes."""
    return f"{PREFIX}/nodes/+/{kind}"


def node_of(topic: str) -> str:
    """The node a topic speaks of; raises ValueError when it is no node topic."""
    parts = topic.split("/")
    if len(parts) != 5 or "/".join(parts[:2]) != PREFIX or parts[2] != "nodes" or not NODE_NAME.fullmatch(parts[3]):
        raise ValueError(f"{topic!r} is not a node topic.")
    return parts[3]


def audit_topic(stratum: str) -> str:
    return f"{PREFIX}/audits/{_level(stratum)}"


EVERY_AUDIT = f"{PREFIX}/audits/+"


CERTIFICATES = f"{PREFIX}/certificates"
EVERY_CERTIFICATE = f"{CERTIFICATES}/+"


def certificate_topic(stratum: str) -> str:
    return f"{CERTIFICATES}/{_level(stratum)}"


ChunkKind = Literal["want", "piece"]
"""What a node asks for, and what the fleet manager answers with."""

EVERY_WANT = f"{PREFIX}/chunks/+/want"


def chunk_topic(node: str, kind: ChunkKind) -> str:
    """`chunks/{node}/{kind}`; raises ValueError for a name that would break out of its level."""
    return f"{PREFIX}/chunks/{_checked_node(node)}/{kind}"


def wanting_node(topic: str) -> str:
    """The node whose wants come on `topic`; raises ValueError for any other topic."""
    parts = topic.split("/")
    if len(parts) != 5 or "/".join(parts[:3]) != f"{PREFIX}/chunks" or parts[4] != "want":
        raise ValueError(f"{topic[:200]!r} is no topic of wants.")
    return _checked_node(parts[3])


CameraKind = Literal["events", "counts", "state", "snapshot"]
"""Of one camera; all but `events` are retained. `snapshot` is a JPEG, the others are JSON."""


def camera_topic(node: str, camera: str, kind: CameraKind) -> str:
    """`cameras/{node}/{camera}/{kind}`; raises ValueError for a name that would break out of its level."""
    if not NODE_NAME.fullmatch(camera):
        raise ValueError(f"{camera[:80]!r} is not a camera's name: use lower-case letters, digits and '-', at most 63.")
    return f"{PREFIX}/cameras/{_checked_node(node)}/{camera}/{kind}"


def cameras_topic(node: str) -> str:
    """`cameras/{node}/status`, where a node says whether it watches; raises ValueError as `camera_topic`."""
    return f"{PREFIX}/cameras/{_checked_node(node)}/status"


def every_camera(node: str, kind: CameraKind) -> str:
    """The subscription for one kind of message of all cameras of a node; raises ValueError as `camera_topic`."""
    return f"{PREFIX}/cameras/{_checked_node(node)}/+/{kind}"


def camera_of(topic: str) -> str:
    """The camera a topic speaks of; raises ValueError when it is none of a camera."""
    parts = topic.split("/")
    if len(parts) != 6 or "/".join(parts[:3]) != f"{PREFIX}/cameras" or not NODE_NAME.fullmatch(parts[4]):
        raise ValueError(f"{topic[:200]!r} is no topic of a camera.")
    return parts[4]


def _checked_node(node: str) -> str:
    if not NODE_NAME.fullmatch(node):
        raise ValueError(f"{node[:80]!r} is not a node name: use lower-case letters, digits and '-', at most 63.")
    return node


def _level(stratum: str) -> str:
    """Raises ValueError for a stratum that would break out of its level."""
    if not STRATUM.fullmatch(stratum):
        raise ValueError(f"{stratum[:80]!r} is not a stratum: use letters, digits, '-' and '_', at most 64.")
    return stratum
