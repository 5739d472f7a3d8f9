"""What people see of a camera now."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.edge_node.cameras.house import House, pattern

ALL = [[0, 0], [1, 0], [1, 1], [0, 1]]


@pytest.mark.parametrize(
    ("privacy", "goes_on"),
    [({}, True), ({"black": [ALL]}, True), ({"black_labels": ["person"]}, False), ({"blur_labels": ["person"]}, False)],
)
async def test_where_labels_are_hidden_no_picture_is_shown_that_the_detector_has_not_seen(
    house: House, privacy: dict[str, Any], goes_on: bool
) -> None:
    await house.serve_detector()
    unwatched = [{"name": "all", "polygon": ALL, "hides": ["motion"]}]
    await house.cameras.put(pattern("door", model="things", privacy=privacy, masks=unwatched))
    door = house.cameras.get("door")
    await house.until(lambda: door.figures.gated["still"] > 5)
    first = await door.live.look()
    seen = door.figures.gated["still"]
    await house.until(lambda: door.figures.gated["still"] > seen + 5)
    later = await asyncio.wait_for(door.live.look(), 5)
    assert (later.at_s > first.at_s) == goes_on


async def test_where_nobody_looks_what_would_be_hidden_by_label_is_hidden_whole(house: House) -> None:
    await house.cameras.put(pattern("door", model="", privacy={"black_labels": ["person"]}))
    door = house.cameras.get("door")
    first = await asyncio.wait_for(door.live.look(), 5)
    later = await asyncio.wait_for(door.live.look(first.number), 5)
    assert later.at_s > first.at_s
    assert len(later.jpeg) < 10_000
