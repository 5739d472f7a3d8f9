"""One check that fails leaves the others to be made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from contracts.acceptance import Check, CheckName
from hil.bench import Bench
from hil.http_port import plain
from hil.node import FAULTS, Subject

Make = Callable[[Bench, Subject], Awaitable[Check]]


async def guarded(name: CheckName, model: str, work: Awaitable[Check]) -> Check:
    """The check, or its failure in words where the node or its fleet is away or out of form."""
    try:
        return await work
    except FAULTS as error:
        return Check(name, "failed", plain(str(error) or type(error).__name__), plain(model, 63))


async def of_each(bench: Bench, name: CheckName, make: Make) -> list[Check]:
    """For every model that the node serves."""
    return [await guarded(name, subject.name, make(bench, subject)) for subject in bench.subjects]
