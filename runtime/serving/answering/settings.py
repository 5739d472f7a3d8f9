"""What a server of models is told about itself."""

from __future__ import annotations

from typing import Literal

import msgspec

from contracts import headers
from runtime.links.http.accounts import Rim
from runtime.links.http.exchanges import Clock
from runtime.links.process.telemetry import Telemetry
from runtime.serving.pictures import images


class ServingSettings(msgspec.Struct, frozen=True):
    """`hop_key` None believes no hop; `admin_token` empty closes the admin routes. Sizes in bytes and pixels.

    `region` is where this server stands, as enrolled or configured; "" lies in no residency claim.
    """

    node: str
    tier: Literal["edge", "cloud"]
    region: str = ""
    max_body_bytes: int = 16 << 20
    default_deadline_ms: float = 10_000.0
    hop_key: bytes | None = None
    admin_token: str = ""
    max_pixels: int = images.MAX_PIXELS
    decode_threads: int = 2

    def rim(self, telemetry: Telemetry, clock: Clock) -> Rim:
        named = {headers.NODE: self.node, headers.TIER: self.tier}
        return Rim(self.tier, self.node, self.tier, named, telemetry, clock, self.region)
