"""How the tier's models come up: what is tried again, how often, and what is said."""

from __future__ import annotations

import asyncio
import logging
import random
from pathlib import Path

import pytest

from cloud_tier.tier import LONGEST_PAUSE_S, Tier
from contracts.errors import FoothillError

DIGEST = "sha256:" + "a" * 64


class World:
    """A fleet that fails as often as it is told to, and notes what it was asked for."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.asked: list[tuple[str, ...]] = []
        self.pauses: list[float] = []

    def resolve(self, model: str, reference: str) -> str:
        self.asked.append(("resolve", model, reference))
        return DIGEST

    async def trust(self) -> World:
        if self.failures:
            raise self.failures.pop(0)
        return self

    async def fetch(self, model: str, digest: str) -> Path:
        self.asked.append(("fetch", model, digest))
        return Path()

    async def serve(self, model: str, digest: str) -> None:
        self.asked.append(("serve", model, digest))

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)

    def tier(self, **models: str) -> Tier:
        return Tier(
            models, trust=self.trust, fetch=self.fetch, serve=self.serve, rng=random.Random(1), sleep=self.sleep
        )


async def test_a_reference_is_resolved_fetched_and_served() -> None:
    world = World()
    await world.tier(digits="digits-cloud@1").bring_up()
    assert world.asked == [
        ("resolve", "digits", "digits-cloud@1"),
        ("fetch", "digits", DIGEST),
        ("serve", "digits", DIGEST),
    ]
    assert not world.pauses


async def test_a_digest_needs_no_resolving() -> None:
    world = World(FoothillError("unavailable", "must not be asked"))
    await world.tier(digits=DIGEST).bring_up()
    assert [step[0] for step in world.asked] == ["fetch", "serve"]


async def test_failures_are_tried_again_with_growing_bounded_pauses_and_each_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    away = [FoothillError("unavailable", "The fleet is away.")] * 12
    world = World(*away, FoothillError("forbidden", "Not signed yet."), OSError(28, "No space left on device"))
    with caplog.at_level(logging.INFO, "cloud_tier.tier"):
        await world.tier(digits="digits-cloud@1").bring_up()
    assert world.asked[-1] == ("serve", "digits", DIGEST)
    assert len(world.pauses) == 14
    assert world.pauses[0] <= 0.2
    assert max(world.pauses) <= LONGEST_PAUSE_S
    assert world.pauses[8] > world.pauses[0]
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "digits waits for bundle digits-cloud@1: The fleet is away.",
        "digits waits for bundle digits-cloud@1: Not signed yet.",
        "digits waits for bundle digits-cloud@1: the disk fails: [Errno 28] No space left on device",
        "every model is served: digits",
    ]


async def test_one_model_does_not_wait_for_another() -> None:
    world = World()
    stuck = asyncio.Event()

    async def fetch(model: str, digest: str) -> Path:
        if model == "faces":
            await stuck.wait()
        return await World.fetch(world, model, digest)

    tier = Tier(
        {"faces": DIGEST, "digits": DIGEST}, trust=world.trust, fetch=fetch, serve=world.serve, rng=random.Random(1)
    )
    rising = asyncio.create_task(tier.bring_up())
    while ("serve", "digits", DIGEST) not in world.asked:  # noqa: ASYNC110 - the task takes its turns meanwhile
        await asyncio.sleep(0)
    assert not rising.done()
    stuck.set()
    await rising
