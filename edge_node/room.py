"""Whether a second copy of a model fits into memory while the first one serves, and what is done when it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from contracts.errors import FoothillError
from contracts.manifest import Artifact, Manifest

WhenShort = Literal["wait", "unload"]
"""`wait`: what serves goes on, and the update is tried again later. `unload`: what serves makes room first; nothing
answers meanwhile, and should the new one fail, the old one is loaded again."""

Way = Literal["beside", "instead"]

LOADING_BASE_BYTES = 32 << 20
LOADING_COPIES = 4
"""Reading, optimizing and packing weights keeps copies of a file: 3.2 to 3.8 of them in ONNX Runtime 1.31 on a CPU."""


class Room(msgspec.Struct, frozen=True):
    """`available_bytes` reads what can be taken without swapping; 0 where nobody says, and then nothing is checked.

    `reserve_bytes` must stay free.
    """

    available_bytes: Callable[[], int]
    reserve_bytes: int = 64 << 20
    when_short: WhenShort = "wait"


def needed_bytes(manifest: Manifest, artifact: Artifact) -> int:
    """What loading an artifact is taken to need at its peak. An estimate from its file."""
    return loading_bytes(manifest.files[artifact.file].bytes)


def loading_bytes(file_bytes: int) -> int:
    """The same for a file of that size."""
    return LOADING_BASE_BYTES + LOADING_COPIES * file_bytes


def way_in(needed: int, room: Room, *, replaces: bool) -> Way:
    """How a bundle is to be loaded. Raises FoothillError `unavailable` where it has to wait for memory."""
    available = room.available_bytes()
    if not available or needed + room.reserve_bytes <= available:
        return "beside"
    if room.when_short == "unload" and replaces:
        return "instead"
    raise FoothillError(
        "unavailable",
        f"Loading it needs about {needed >> 20} MiB of memory and {room.reserve_bytes >> 20} MiB must stay free, but "
        f"{available >> 20} MiB are left. Give the machine more room, or set memory_short to unload.",
    )
