"""On what a stream is decoded."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from edge_node.cameras.sources.trouble import Trouble

if TYPE_CHECKING:
    from av.codec.hwaccel import HWAccel

_DEVICES = {"cuda": "/dev/nvidia0", "vaapi": "/dev/dri/renderD128"}
"""Of the kinds of hardware that FFmpeg knows, those that are tried unasked, where their device is there."""


class Hardware(NamedTuple):
    """`name` is "" and `hwaccel` None for software."""

    name: str = ""
    hwaccel: HWAccel | None = None


def hardware_for(wanted: str) -> Hardware:
    """`auto`, `software`, or the name of one of FFmpeg's kinds. Raises Trouble where it is not here."""
    from av.codec.hwaccel import HWAccel, hwdevices_available

    if wanted == "software":
        return Hardware()
    offered = hwdevices_available()
    if wanted != "auto":
        if wanted not in offered:
            told = ", ".join(offered) or "none"
            raise Trouble("lost", f"FFmpeg here knows no decoder {wanted!r}; it has {told}: use auto or software")
        return Hardware(wanted, HWAccel(wanted))
    there = (name for name, device in _DEVICES.items() if name in offered and os.path.exists(device))
    found = next(there, None)
    return Hardware(found, HWAccel(found, allow_software_fallback=True)) if found else Hardware()
