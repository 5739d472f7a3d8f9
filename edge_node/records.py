"""What is written to a node's disk while it serves: before the next step may happen, or where the disk lets it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from contracts.errors import FoothillError
from edge_node.slots import Slot, SlotFile
from edge_node.whole import whole

log = logging.getLogger(__name__)


async def save(slots: SlotFile, model: str, slot: Slot) -> Slot:
    """Raises OSError: what comes after must not happen before this is on disk."""
    await whole(asyncio.to_thread(slots.put, model, slot))
    return slot


async def note(slots: SlotFile, model: str, slot: Slot) -> Slot:
    """As `save`, for what has to go on where the disk takes nothing."""
    if not await attempt(lambda: slots.put(model, slot)):
        slots.hold(model, slot)
    return slot


async def attempt(write: Callable[[], None]) -> bool:
    """Whether the disk took it; serving goes on without."""
    try:
        await whole(asyncio.to_thread(write))
    except OSError as error:
        log.error("%s", disk_fails(error).message)
        return False
    return True


def disk_fails(error: OSError) -> FoothillError:
    return FoothillError("unavailable", f"This node's disk fails: {error}.")
