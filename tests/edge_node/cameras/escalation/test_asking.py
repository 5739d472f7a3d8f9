"""What the cloud is asked by cameras, and what becomes of its word: a real model, a real cloud, a real socket."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import msgspec
import numpy as np
import pytest

from contracts.camera_events import RuleEvent, TrackEvent
from contracts.messages import Certificate
from edge_node.cameras.departures import Departure
from edge_node.cameras.escalation.doubts import camera_of
from runtime.serving.engines.tensors import Array
from tests.edge_node.cameras.escalation.street import SEVEN, Street
from tests.edge_node.workbench import until

BRIEF = {"look_s": 0.2, "again_s": 60.0, "deadline_ms": 2000.0}
DOUBTS_ALL = {**BRIEF, "below": 1.0, "send": "whole"}
"""No score is 1: whatever is seen is asked about."""


@pytest.fixture
async def street(tmp_path: Path) -> AsyncIterator[Street]:
    """Its edge calls what it finds blocks; its cloud is away."""
    street = await Street(tmp_path).open()
    loaded = await street.serve()
    street.certificates.put(Certificate(loaded.stratum, "things", 0.0, 0.05, 0.05, 100, "live", 0, 0.0))
    yield street
    await street.close()


def picture_of(jpeg: bytes) -> Array:
    return np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))


async def test_the_edge_speaks_first_and_the_cloud_amends_it_once_under_the_same_event(street: Street) -> None:
    await street.start_cloud()
    camera = await street.watch(escalation=DOUBTS_ALL)
    await until(lambda: bool(street.tracks("amended")))
    amended = street.tracks("amended")[0]
    await until(lambda: any(isinstance(said, TrackEvent) and said.phase == "end" for said in street.of(amended.event)))
    told = [said for said in street.of(amended.event) if isinstance(said, TrackEvent)]
    assert [said.phase for said in told if said.phase != "update"] == ["start", "amended", "end"]
    assert (told[0].label, told[0].verdict.tier) == ("block", "edge")
    assert (amended.label, amended.verdict.tier, amended.verdict.edge_label) == ("person", "cloud", "block")
    assert (amended.verdict.reason, amended.verdict.late, amended.size) == ("below", False, (320, 240))
    assert (told[-1].label, told[-1].verdict) == ("person", amended.verdict)
    assert amended.track == told[0].track
    assert camera.figures.judged["escalated"] == len(street.tracks("amended"))
    assert camera.figures.sent_bytes == {"escalate": sum(len(request.body) for request in street.sent)}
    assert camera_of(street.sent[0].headers["Foothill-Request-Id"]) == "door"


async def test_a_crop_shows_the_thing_and_its_margin_alone(street: Street) -> None:
    await street.start_cloud(names=True)
    await street.watch(escalation={**BRIEF, "below": 1.0, "margin": 0.5, "quality": 95})
    await until(lambda: bool(street.tracks("amended")))
    assert street.tracks("amended")[0].label == "7"
    height, width = picture_of(street.sent[0].body).shape[:2]
    assert (36 <= width <= 60, 60 <= height <= 100) == (True, True)


async def test_an_uplink_that_is_cut_keeps_the_evidence_and_late_answers_amend_their_events(street: Street) -> None:
    camera = await street.watch(escalation={**DOUBTS_ALL, "deadline_ms": 200.0})
    await until(lambda: camera.figures.judged["spooled"] >= 2 and bool(street.tracks("end")))
    degraded = [said for said in street.tracks("end") if said.verdict.degraded]
    assert degraded
    assert not street.tracks("amended")
    await street.part.cameras.remove("door")
    await street.part.asks.finish()
    spooled = camera.figures.judged["spooled"]
    await street.start_cloud()
    await until(lambda: len(street.tracks("amended")) == spooled)
    late = street.tracks("amended")
    assert {(said.label, said.verdict.late, said.verdict.reason) for said in late} == {("person", True, "below")}
    assert len({said.event for said in late}) == spooled
    assert {said.event for said in late} <= {said.event for said in street.tracks("start")}


async def test_the_nodes_next_life_amends_what_its_last_one_has_said(tmp_path: Path) -> None:
    first = await Street(tmp_path).open()
    await first.serve()
    camera = await first.watch(escalation={**DOUBTS_ALL, "deadline_ms": 200.0})
    await until(lambda: camera.figures.judged["spooled"] >= 1)
    await first.part.cameras.remove("door")
    await first.part.asks.finish()
    spooled = camera.figures.judged["spooled"]
    await first.close()
    second = Street(tmp_path, cloud_port=first.cloud_port)
    await second.start_cloud()
    await second.open()
    await until(lambda: len(second.tracks("amended")) == spooled)
    starts = {said.event: said for said in first.tracks("start")}
    for said in second.tracks("amended"):
        assert (said.track, said.camera, said.label) == (starts[said.event].track, "door", "person")
        assert said.epoch == second.part.feed.epoch
    await second.close()


CHANGES: list[dict[str, Any]] = [
    {"escalation": {"ask": "never"}},
    {"residency": ["us-east"]},
    {"privacy": {"black": [[[0, 0], [1, 0], [1, 1]]]}},
    {"masks": [{"name": "tree", "polygon": [[0, 0], [1, 0], [1, 1]], "hides": ["pixels"]}]},
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("next_life", [False, True])
async def test_evidence_that_its_camera_lets_go_no_more_stays_on_the_box(
    tmp_path: Path, change: dict[str, Any], next_life: bool
) -> None:
    street = await Street(tmp_path).open()
    await street.serve()
    keys: dict[str, Any] = {"escalation": {**DOUBTS_ALL, "deadline_ms": 200.0}}
    camera = await street.watch(**keys)
    await until(lambda: camera.figures.judged["spooled"] >= 1)
    changed = {**keys, "model": "", **change}
    if next_life:
        await street.close()
        told = {"name": "door", "url": str(tmp_path / "walkers.mp4"), "loop": True, **changed}
        (tmp_path / "cameras.json").write_bytes(msgspec.json.encode([told]))
        street = Street(tmp_path, cloud_port=street.cloud_port)
        await street.start_cloud()
        sent = 0
        await street.open()
    else:
        await street.watch(**changed)
        await street.part.asks.finish()
        sent = len(street.sent)
        await street.start_cloud()
    await until(lambda: 'foothill_spool_dropped_total{reason="withdrawn"}' in street.spooled())
    await until(lambda: "foothill_spool_inputs 0.0" in street.spooled())
    assert not street.tracks("amended")
    assert len(street.sent) == sent
    await street.close()


@pytest.mark.parametrize("change", CHANGES)
async def test_what_is_judged_for_the_last_time_as_its_camera_changes_keeps_to_its_new_keys(
    street: Street, change: dict[str, Any]
) -> None:
    await street.start_cloud()
    keys: dict[str, Any] = {"escalation": {**DOUBTS_ALL, "look_s": 60.0}}
    camera = await street.watch(**keys)
    await until(lambda: bool(street.tracks("start")))
    await street.watch(**{**keys, **change})
    await street.part.asks.finish()
    assert not street.sent
    assert camera.figures.judged.keys() == {"withdrawn"}


async def test_one_question_a_track_and_as_many_as_its_bound_allows_after_that(street: Street) -> None:
    await street.start_cloud()
    camera = await street.watch(pace="realtime", loop=False, escalation={**DOUBTS_ALL, "again_s": 0.6})
    await until(lambda: camera.state.state == "ended" and bool(street.tracks("end")))
    asked = [request.headers["Foothill-Request-Id"].split(".")[1] for request in street.sent]
    ends = {said.event: said for said in street.tracks("end")}
    for event, end in ends.items():
        lasted_s = end.at_s - end.began_at_s
        assert asked.count(event) <= 1 + lasted_s / 0.6
    assert any(asked.count(event) >= 2 for event in ends)


@pytest.mark.parametrize(
    ("keys", "became"),
    [
        ({"escalation": {**DOUBTS_ALL, "ask": "never"}}, "kept"),
        ({"escalation": {**DOUBTS_ALL, "below": 0.0}}, "kept"),
        ({"escalation": {**DOUBTS_ALL, "bytes_per_hour": 0}}, "budget"),
        ({"escalation": DOUBTS_ALL, "residency": ["us-east"]}, "no-cloud"),
    ],
)
async def test_nothing_leaves_where_it_may_not(street: Street, keys: dict[str, Any], became: str) -> None:
    await street.start_cloud()
    camera = await street.watch(**keys)
    await until(lambda: camera.figures.judged[became] >= 2)
    assert not street.sent
    assert camera.figures.judged.keys() == {became}


async def test_what_privacy_hides_is_not_in_what_leaves(street: Street) -> None:
    await street.start_cloud()
    half = [[0.0, 0.0], [1.0, 0.0], [1.0, 0.5], [0.0, 0.5]]
    await street.watch(
        escalation={**DOUBTS_ALL, "quality": 95},
        masks=[{"name": "street", "polygon": half, "hides": ["pixels"]}],
        privacy={"black_labels": ["block"]},
    )
    await until(lambda: bool(street.sent))
    shown = picture_of(street.sent[0].body)
    assert shown[:118].max() < 20
    assert shown[122:].max() < 160


async def test_motion_in_which_nothing_is_found_is_shown_to_the_cloud(street: Street) -> None:
    await street.start_cloud()
    lower = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
    await street.watch(
        masks=[{"name": "all", "polygon": lower, "hides": ["detections"]}],
        escalation={**BRIEF, "empty_after_s": 0.3},
    )
    await until(lambda: bool(street.pictures("amended")))
    start, amended = street.pictures("start")[0], street.pictures("amended")[0]
    assert (start.event, start.label, start.verdict.reason) == (amended.event, "none", "motion-unseen")
    assert (amended.label, amended.verdict.edge_label) == ("person", "none")


async def test_an_operators_own_function_may_ask(street: Street) -> None:
    (street.directory / "rules.py").write_text(
        "def low(sight):\n    assert sight.picture().shape == (240, 320, 3)\n    return sight.box[3] > 90\n"
    )
    await street.start_cloud()
    await street.watch(escalation={**BRIEF, "send": "whole", "function": "rules.py:low"})
    await until(lambda: bool(street.tracks("amended")))
    assert {said.verdict.reason for said in street.tracks("amended")} == {"function"}
    assert all(said.box[3] > 90 for said in street.tracks("amended"))


async def test_a_function_that_fails_costs_nothing_but_its_word(
    street: Street, caplog: pytest.LogCaptureFixture
) -> None:
    (street.directory / "rules.py").write_text("def low(sight):\n    return sight.colour\n")
    await street.start_cloud()
    camera = await street.watch(escalation={**BRIEF, "function": "rules.py:low"})
    await until(lambda: camera.figures.judged["kept"] >= 2)
    assert not street.sent
    assert caplog.text.count("escalation.function: it fails (AttributeError") == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [(None, "there is no file"), ("x = 1\n", "has no function low"), ("import nothing_of_this_name\n", "failed")],
)
async def test_a_function_that_is_not_there_is_told_at_the_start(
    street: Street, caplog: pytest.LogCaptureFixture, text: str | None, told: str
) -> None:
    if text is not None:
        (street.directory / "rules.py").write_text(text)
    await street.watch(escalation={**BRIEF, "function": "rules.py:low"})
    await until(lambda: "escalation.function" in caplog.text)
    assert told in caplog.text


async def test_the_live_certificate_decides_for_each_track(street: Street) -> None:
    """The rule makes a tenth of the scores, which are near 1."""
    await street.start_cloud()
    loaded = street.host.get("things").loaded
    street.certificates.put(Certificate(loaded.stratum, "things", 0.2, 0.05, 0.05, 100, "live", 1, 0.0))
    await street.watch(escalation={**BRIEF, "send": "whole"})
    await until(lambda: bool(street.tracks("amended")))
    amended = street.tracks("amended")[0]
    assert (amended.verdict.reason, amended.verdict.certified) == ("doubtful", True)
    assert amended.verdict.confidence == pytest.approx(0.1, abs=0.01)
    street.certificates.put(Certificate(loaded.stratum, "things", 0.05, 0.05, 0.05, 100, "live", 2, 0.0))
    yard = await street.watch("yard", escalation=BRIEF)
    await until(lambda: yard.figures.judged["kept"] >= 1)
    assert not yard.figures.sent


async def test_audits_compare_the_label_of_the_one_track(tmp_path: Path) -> None:
    street = await Street(tmp_path, audit_rate=1.0).open()
    loaded = await street.serve()
    await street.start_cloud(sees="block")
    street.certificates.put(Certificate(loaded.stratum, "things", 0.05, 0.05, 0.05, 100, "live", 1, 0.0))
    camera = await street.watch(escalation={**BRIEF, "send": "whole"})
    await until(lambda: len(street.audits) >= 2)
    assert {(audit.edge_answer, audit.cloud_answer, audit.kept) for audit in street.audits} == {
        ("block", "block", True)
    }
    assert camera.figures.judged["audited"] >= 2
    assert camera.figures.sent["audit"] >= 2
    assert not street.tracks("amended")
    await street.close()


async def test_the_live_certificate_decides_for_a_classifier(street: Street) -> None:
    loaded = await street.serve("digits", bias=SEVEN, threshold=0.5)
    street.certificates.put(Certificate(loaded.stratum, "digits", 2.0, 0.05, 0.05, 100, "live", 1, 0.0))
    camera = await street.watch(model="digits", escalation=BRIEF)
    await until(lambda: camera.figures.judged["failed"] + camera.figures.judged["spooled"] >= 1)
    assert street.pictures("start")[0].label == "7"
    street.certificates.put(Certificate(loaded.stratum, "digits", 0.1, 0.05, 0.05, 100, "live", 2, 0.0))
    camera = await street.watch("yard", model="digits", escalation=BRIEF)
    await until(lambda: camera.figures.judged["kept"] >= 1)
    await street.part.cameras.remove("yard")
    end = next(said for said in street.pictures("end") if said.camera == "yard")
    assert (end.verdict.reason, end.verdict.certified) == ("confident", True)


async def test_events_have_the_picture_that_they_began_with_and_each_that_leaves_is_written_down(
    street: Street,
) -> None:
    await street.start_cloud()
    await street.watch(
        escalation=DOUBTS_ALL,
        snapshots={"events": ["track", "rule"], "crop": True, "margin": 0.0, "quality": 95},
        zones=[{"name": "all", "polygon": [[0, 0], [1, 0], [1, 1], [0, 1]], "dwell_s": 0.0}],
        rules=[{"name": "somebody", "zone": "all"}],
    )
    await until(lambda: bool(street.tracks("amended")) and bool(street.said(RuleEvent, "start")))
    start, rule = street.tracks("start")[0], street.said(RuleEvent, "start")[0]
    assert street.tracks("amended")[0].snapshot.endswith(f"/{street.tracks('amended')[0].event}/snapshot")
    async with httpx.AsyncClient(base_url=street.url) as client:
        track = await client.get(start.snapshot)
        whole = await client.get(rule.snapshot)
        assert (await client.get(f"/v1/cameras/door/events/{start.event}x/snapshot")).status_code == 404
        live = (await client.get("/v1/cameras/door")).json()
        metrics = (await client.get("/metrics")).text
    width, height = start.box[2] - start.box[0], start.box[3] - start.box[1]
    seen = picture_of(track.content)
    assert (seen.shape[0] - height, seen.shape[1] - width) == (pytest.approx(1, abs=1.5), pytest.approx(1, abs=1.5))
    assert seen.mean() > 140
    assert picture_of(whole.content).shape == (240, 320, 3)
    assert live["judged"]["escalated"] >= 1
    assert live["received_bytes"] > 0
    assert re.search(r'foothill_camera_bytes_total\{camera="door",what="escalate"\} \d', metrics)
    assert re.search(r'foothill_camera_bytes_total\{camera="door",what="raw"\} \d', metrics)
    record = street.directory / "departures.jsonl"
    await until(lambda: record.exists() and record.read_text().count('"snapshot"') == 2)
    told = [msgspec.json.decode(line, type=Departure) for line in record.read_bytes().splitlines()]
    assert [line.about for line in told if line.what == "snapshot"] == [start.event, rule.event]
    assert told[[line.what for line in told].index("snapshot")].sha256 == hashlib.sha256(track.content).hexdigest()
    sent = {hashlib.sha256(request.body).hexdigest() for request in street.sent}
    assert {line.sha256 for line in told if line.what == "escalate"} <= sent
