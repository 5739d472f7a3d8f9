"""A box that is started while its disk is full: it watches, and says what it sees."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.edge_node.cameras.small_disk import SmallDisk
from tests.edge_node.cameras.test_alone_process import Site, until

pytestmark = pytest.mark.integration


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "site")
    yield site
    for process in site.processes:
        process.end()


def test_a_box_starts_on_a_full_disk_and_keeps_things_once_there_is_room(site: Site, small_disk: SmallDisk) -> None:
    (site.directory / "state").symlink_to(small_disk.path)
    more = "[snapshots]\nkeep_days = 1.0\n[recording]\non = true\nreserve_bytes = 0\n"
    site.head = "reserve_bytes = 0\n"
    path = site.write("door", more=more, last='[cameras.snapshots]\nevents = ["picture"]\n')
    process = site.start(path)
    process.url()
    process.end(signal.SIGKILL)
    small_disk.fill()
    process = site.start(path)
    url = process.url()
    with httpx.stream("GET", f"{url}/v1/cameras/events?recent=10&type=picture", timeout=20) as events:
        told = next(json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: "))
    assert (told["phase"], told["label"]) == ("start", "7")
    until(lambda: "snapshots are not kept now" in process.said)
    small_disk.make_room()
    site.write("door", "yard", more=more, last='[cameras.snapshots]\nevents = ["picture"]\n')
    until(lambda: list((site.directory / "state" / "snapshots" / "yard").glob("*.jpg")))
    assert process.end() == 0
    assert "Traceback" not in process.said
