"""A power cut at any call to the disk leaves the old state or the new one, and a node that goes on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from edge_node.slots import Slots
from tests.edge_node.power_cuts import (
    STORIES,
    Cuts,
    Inline,
    Published,
    Recording,
    allowed,
    campaign,
    cuts_of,
    fill_up,
    record_over_http,
)
from tests.edge_node.power_disk import Call, Kind, Platter

CUTS = 120


async def test_after_a_power_cut_the_node_is_old_or_new_and_goes_on(tmp_path: Path) -> None:
    """A sample over all stories; `make power-cuts` plays a hundred thousand."""
    found = await campaign(tmp_path, CUTS, seed=random.Random(7).getrandbits(16))
    assert found.wrong == []
    assert (found.cuts, found.states > 20, found.calls > 1000) == (CUTS, True, True)


@pytest.mark.parametrize(
    ("deaf", "how"),
    [(("sync", "sync file"), "nothing"), (("sync_directory",), "torn")],
    ids=["files are not synced", "directories are not synced"],
)
async def test_a_disk_that_forgets_a_sync_is_found_out(tmp_path: Path, deaf: Collection[Kind], how: str) -> None:
    asyncio.get_running_loop().set_default_executor(Inline(1))
    published = Published()
    recording = await record_over_http("update", published, tmp_path)
    cuts = Cuts("update", recording, published, tmp_path, deaf)
    await cuts.play([cut for cut in cuts_of(recording, 400, random.Random(0)) if cut.how == how][::4])
    assert cuts.wrong


@pytest.mark.parametrize("name", ["update", "revert on probation"])
async def test_on_a_full_disk_the_node_serves_on(tmp_path: Path, name: str) -> None:
    """Full from some call on, up to the last one: what serves goes on, over a restart too."""
    asyncio.get_running_loop().set_default_executor(Inline(1))
    published, number = Published(), 0
    while True:
        room = tmp_path / str(number)
        room.mkdir()
        if await fill_up(name, STORIES[name], published, room, number) < number:
            break
        number += random.Random(number).randint(8, 16)
    assert number > 50


def test_unsynced_bytes_and_names_may_be_gone() -> None:
    platter = Platter()
    platter.play(Call("open", "a", handle=1))
    platter.play(Call("write", "a", handle=1, data=b"data"))
    platter.play(Call("sync file", "a", handle=1))
    assert platter.after("nothing", random.Random(0)).files == {}, "its directory was not synced"
    platter.play(Call("sync_directory", "."))
    platter.play(Call("write", "a", handle=1, at=4, data=b" and more"))
    contents = {tuple(platter.after("torn", random.Random(seed)).contents.values()) for seed in range(50)}
    assert {(b"data",), (b"data and more",)} <= contents
    assert all(content[:4] == b"data" for (content,) in contents), "what was synced stays"


def test_a_replaced_file_is_the_old_one_or_the_new_one() -> None:
    platter = Platter()
    calls: Sequence[Call] = (
        *(Call("open", "a", handle=1), Call("write", "a", handle=1, data=b"old"), Call("sync", "a")),
        *(Call("sync_directory", "."), Call("open", "b", handle=2), Call("write", "b", handle=2, data=b"new")),
        *(Call("sync", "b"), Call("replace", "b", "a")),
    )
    for call in calls:
        platter.play(call)
    found = set()
    for seed in range(50):
        tree = platter.after("torn", random.Random(seed))
        found.add(tree.contents[tree.files["a"]])
    assert found == {b"old", b"new"}


def test_slots_on_disk_are_those_of_before_a_call_or_those_of_after() -> None:
    one, two = Slots(sequence=1), Slots(sequence=2)
    recording = Recording([], 0, [(0, Slots()), (5, one), (9, two)])
    assert allowed(recording, 4) == [Slots(), one]
    assert allowed(recording, 5) == [one, two]
    assert allowed(recording, 9) == [two]
