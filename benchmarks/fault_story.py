"""A fault and what it costs: a steady load, something that breaks and is mended under it, and what callers saw."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.arrivals import Came, Floats, arrive
from benchmarks.faulty_nodes import Behaviour, FaultyNode
from benchmarks.load import Target

Act = Callable[[], Awaitable[None]]
_CHUNK_S = 0.25
_FLAP_S = 0.15
_SLOW = 10.0


class Fault(NamedTuple):
    """`keep` is what goes on between `begin` and `mend`."""

    begin: Act
    mend: Act
    keep: Act | None = None


class Times(NamedTuple):
    """For how many seconds there is load before, during and after a fault; `patience`: after it only until the sick
    node answers again."""

    before_s: float
    during_s: float
    after_s: float
    patience: bool = False


class Story(NamedTuple):
    """What callers saw before, during and after a fault. `asked` counts requests at all upstreams, `back_after_s` is
    how long after it was mended the sick one answered again; None: not while anybody looked."""

    before: Came
    during: Came
    after: Came
    asked: int
    back_after_s: float | None

    @property
    def requests(self) -> int:
        return len(self.before.status) + len(self.during.status) + len(self.after.status)

    @property
    def failed(self) -> int:
        return sum(int((came.status != 200).sum()) for came in (self.before, self.during, self.after))


async def tell(
    target: Target, nodes: Sequence[FaultyNode], sick: FaultyNode, fault: Fault, rate: float, times: Times
) -> Story:
    """Raises LoadError where the router breaks a connection."""
    asked = _asked(nodes)
    before = await arrive(target, evenly(rate, times.before_s))
    await fault.begin()
    keeping = asyncio.ensure_future(fault.keep()) if fault.keep is not None else None
    load = asyncio.ensure_future(arrive(target, evenly(rate, times.during_s)))
    await asyncio.sleep(times.during_s)
    if keeping is not None:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
    await fault.mend()
    mended_s = time.monotonic()
    after = await _after(target, sick, mended_s, rate, times)
    during = await load
    return Story(before, during, after, _asked(nodes) - asked, _back_after_s(sick, mended_s))


async def _after(target: Target, sick: FaultyNode, mended_s: float, rate: float, times: Times) -> Came:
    if not times.patience:
        return await arrive(target, evenly(rate, times.after_s))
    came: list[Came] = []
    while not came or (time.monotonic() < mended_s + times.after_s and _back_after_s(sick, mended_s) is None):
        came.append(await arrive(target, evenly(rate, _CHUNK_S)))
    return Came(*map(np.concatenate, zip(*came, strict=True)))


def evenly(rate: float, seconds: float) -> Floats:
    return np.arange(0.0, seconds, 1.0 / rate)


def _asked(nodes: Sequence[FaultyNode]) -> int:
    return sum(len(node.asked_s) for node in nodes)


def _back_after_s(sick: FaultyNode, mended_s: float) -> float | None:
    return next((one.at_s - mended_s for one in sick.answered if one.asked_s >= mended_s), None)


def _doing(node: FaultyNode, act: Callable[[FaultyNode], object]) -> Act:
    async def do() -> None:
        act(node)

    return do


def _killed(node: FaultyNode) -> Fault:
    return Fault(_doing(node, FaultyNode.kill), node.start)


def _half_open(node: FaultyNode) -> Fault:
    return Fault(_doing(node, FaultyNode.forget), node.start)


def _dropping(node: FaultyNode) -> Fault:
    return Fault(node.drop, node.start)


def _slow(node: FaultyNode) -> Fault:
    async def begin() -> None:
        node.slow = _SLOW

    return Fault(begin, node.start)


def _turned(does: Behaviour) -> Callable[[FaultyNode], Fault]:
    def fault(node: FaultyNode) -> Fault:
        async def begin() -> None:
            node.does = does

        return Fault(begin, node.start)

    return fault


def _flapping(node: FaultyNode) -> Fault:
    async def flap() -> None:
        while True:
            await asyncio.sleep(_FLAP_S)
            await node.start()
            await asyncio.sleep(_FLAP_S)
            node.kill()

    return Fault(_doing(node, FaultyNode.kill), node.start, flap)


FAULTS: Mapping[str, Callable[[FaultyNode], Fault]] = {
    "killed": _killed,
    "silent": _turned("silent"),
    "packets dropped": _dropping,
    "slow x10": _slow,
    "failing fast": _turned("failing"),
    "resetting": _turned("resetting"),
    "half-open": _half_open,
    "flapping": _flapping,
}
"""What may befall one node."""
