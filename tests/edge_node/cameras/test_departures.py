"""A line for each picture that leaves the box."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from edge_node.cameras import departures
from edge_node.cameras.departures import Departures
from tests.edge_node.cameras.small_disk import SmallDisk
from tests.edge_node.workbench import until


def lines(directory: Path) -> list[dict[str, Any]]:
    path = directory / departures.FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def test_each_is_told_with_what_it_was_and_where_it_went(tmp_path: Path) -> None:
    record = Departures(tmp_path, lambda: 1000.0)
    record.start()
    record.note("door", "escalate", "cam.door-1-1.1", "http://cloud", b"picture")
    await until(lambda: bool(lines(tmp_path)))
    assert lines(tmp_path) == [
        {
            "at_s": 1000.0,
            "camera": "door",
            "what": "escalate",
            "about": "cam.door-1-1.1",
            "to": "http://cloud",
            "bytes": 7,
            "pieces": 1,
            "sha256": hashlib.sha256(b"picture").hexdigest(),
        }
    ]
    await record.close()
    assert stat.S_IMODE((tmp_path / departures.FILE).stat().st_mode) == 0o640


async def test_who_looks_for_long_is_told_once_a_minute_and_at_the_end(tmp_path: Path) -> None:
    now_s = 0.0
    record = Departures(tmp_path, lambda: now_s)
    record.start()
    for _ in range(100):
        now_s += 1.0
        record.viewed("door", "view", "live", "10.0.0.3", 1000)
    await record.close()
    told = [(line["what"], line["to"], line["pieces"], line["bytes"]) for line in lines(tmp_path)]
    assert told == [("view", "10.0.0.3", 61, 61_000), ("view", "10.0.0.3", 39, 39_000)]


async def test_while_the_disk_refuses_lines_wait_and_none_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "state"
    directory.write_text("no directory")
    record = Departures(directory)
    record.start()
    record.note("door", "escalate", "1", "cloud", b"1")
    await until(lambda: "its lines wait" in caplog.text)
    record.note("door", "escalate", "2", "cloud", b"2")
    directory.unlink()
    await until(lambda: len(lines(directory)) == 2)
    assert [line["about"] for line in lines(directory)] == ["1", "2"]
    await record.close()
    assert len(lines(directory)) == 2


async def test_a_disk_that_takes_half_of_what_is_written_leaves_no_half_line(
    small_disk: SmallDisk, caplog: pytest.LogCaptureFixture
) -> None:
    record = Departures(small_disk.path)
    record.start()
    record.note("door", "escalate", "0", "cloud", b"0")
    await until(lambda: len(lines(small_disk.path)) == 1)
    small_disk.fill()
    for number in range(1, 35):
        record.note("door", "escalate", str(number), "cloud", b"1")
    await until(lambda: "its lines wait" in caplog.text)
    assert [line["about"] for line in lines(small_disk.path)] == ["0"]
    small_disk.make_room()
    await until(lambda: len(lines(small_disk.path)) == 35)
    await record.close()
    assert [line["about"] for line in lines(small_disk.path)] == [str(number) for number in range(35)]


async def test_what_could_not_be_written_before_the_end_is_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "state"
    directory.write_text("no directory")
    record = Departures(directory)
    record.start()
    record.note("door", "escalate", "event-1", "cloud", b"1")
    await record.close()
    assert '"about":"event-1"' in caplog.text


async def test_a_line_that_a_power_cut_has_torn_costs_no_other(tmp_path: Path) -> None:
    (tmp_path / departures.FILE).write_bytes(b'{"at_s":1.0,"cam')
    record = Departures(tmp_path)
    record.start()
    record.note("door", "escalate", "1", "cloud", b"1")
    await record.close()
    torn, whole = (tmp_path / departures.FILE).read_text().splitlines()
    assert torn == '{"at_s":1.0,"cam'
    assert json.loads(whole)["about"] == "1"


async def test_the_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departures, "FILE_BYTES", 2000)
    record = Departures(tmp_path)
    record.start()
    for number in range(60):
        record.note("door", "snapshot", str(number), "mqtt", b"x")
        if number % 5 == 4:
            waiting = number
            await until(lambda: any(line["about"] == str(waiting) for line in lines(tmp_path)))  # noqa: B023
    await record.close()
    sizes = {name: (tmp_path / name).stat().st_size for name in os.listdir(tmp_path)}
    assert sorted(sizes) == ["departures.1.jsonl", "departures.2.jsonl", "departures.3.jsonl", "departures.jsonl"]
    assert max(sizes.values()) <= 2000


async def test_a_line_that_a_crash_cut_off_costs_no_other(tmp_path: Path) -> None:
    (tmp_path / departures.FILE).write_bytes(b'{"at_s":1.0,"cam')
    record = Departures(tmp_path)
    record.start()
    record.note("door", "escalate", "1", "cloud", b"1")
    await record.close()
    _, whole = (tmp_path / departures.FILE).read_text().splitlines()
    assert json.loads(whole)["about"] == "1"


async def test_what_leaves_at_the_very_end_is_written_or_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = Departures(tmp_path / "state")
    record.start()
    await record.close()
    record.note("door", "late", "1", "cloud", b"1")
    record.viewed("door", "view", "live", "10.0.0.3", 1000)
    assert [line["about"] for line in lines(tmp_path / "state")] == ["1", "live"]
    directory = tmp_path / "other"
    directory.write_text("no directory")
    refused = Departures(directory)
    refused.start()
    refused.note("door", "escalate", "2", "cloud", b"2")
    await refused.close()
    refused.note("door", "escalate", "3", "cloud", b"3")
    left = [record.message for record in caplog.records if record.message.startswith("a picture has left")]
    assert [json.loads(line.partition(": ")[2])["about"] for line in left] == ["2", "3"]


async def test_a_clock_that_is_set_back_holds_no_view_open(tmp_path: Path) -> None:
    now_s = 10_000.0
    record = Departures(tmp_path, lambda: now_s)
    record.viewed("door", "view", "live", "10.0.0.3", 1000)
    now_s = 100.0
    record.viewed("door", "view", "live", "10.0.0.3", 1000)
    record.start()
    await until(lambda: bool(lines(tmp_path)))
    assert lines(tmp_path)[0]["pieces"] == 2
    await record.close()
