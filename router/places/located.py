"""Who asks: an address, and a place with its error and who says so."""

from __future__ import annotations

from typing import Literal

import msgspec

from contracts.places import Place
from router.places.client_address import Address

Source = Literal["caller", "geoip"]


class Located(msgspec.Struct, frozen=True):
    """A place that is off by about `error_km`; 0 for what a caller says of itself, which nobody checks."""

    place: Place
    error_km: float
    source: Source


class Caller(msgspec.Struct, frozen=True):
    """Whose request it is. `address` None: nobody knows, or it does not matter; `located` None: nobody knows."""

    address: Address | None
    located: Located | None

    @property
    def place(self) -> Place | None:
        return self.located.place if self.located is not None else None
