"""How a node joins: what the operator asks a token for, what the node sends with it, what it gets back."""

from __future__ import annotations

from typing import Literal

import msgspec

from contracts.boards import Fingerprint


class TokenRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/tokens`: the operator says which node may join, and where it stands (degrees, WGS 84)."""

    node: str
    region: str
    lat: float
    lon: float


class TokenAnswer(msgspec.Struct, frozen=True):
    """A token for one enrolment of one node. `expires_at_s` is unix time; the fleet keeps only the token's hash."""

    token: str
    node: str
    expires_at_s: float


class EnrolRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/enrol`: the node's own part. `public_key` is Ed25519 in hex, `url` where its HTTP routes answer."""

    token: str
    public_key: str
    url: str
    reach: Literal["public", "site"]
    fingerprint: Fingerprint


class EnrolAnswer(msgspec.Struct, frozen=True):
    """Everything a node needs to take part. In JSON, `root` and `identity` are base64.

    `root` is the TUF root metadata to trust from now on, `identity` the MessagePack of the node's `Signed` identity,
    `hop_key` (hex) the key of `Foothill-Hop`.
    """

    node: str
    region: str
    lat: float
    lon: float
    broker_url: str
    cloud_urls: tuple[str, ...]
    root: bytes
    hop_key: str
    identity: bytes
