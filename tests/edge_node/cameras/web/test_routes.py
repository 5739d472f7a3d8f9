"""Cameras over HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import cv2
import numpy as np
import pytest

from contracts.camera_events import PictureEvent
from edge_node.cameras.web import routes
from tests.edge_node.cameras.house import EPOCH, SEVEN, House, pattern

ADMIN = {"Authorization": "Bearer admin"}
BODY = {"url": "pattern:?fps=20", "model": "digits"}


class Caller:
    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def json(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        async with self.session.request(method, self.url + path, **options) as answer:
            body = await answer.read()
            return answer.status, json.loads(body) if body else None


@pytest.fixture
async def caller(house: House) -> AsyncIterator[Caller]:
    await house.serve(bias=SEVEN)
    url = await house.listen((pattern("door"),))
    async with aiohttp.ClientSession() as session:
        yield Caller(url, session)


async def test_views_tell_how_each_camera_is(house: House, caller: Caller) -> None:
    await house.until(lambda: house.cameras.get("door").figures.inferred > 3)
    status, told = await caller.json("GET", "/v1/cameras")
    assert status == 200
    (door,) = told
    assert (door["name"], door["state"], door["managed"], door["codec"]) == ("door", "live", "file", "pattern")
    assert (door["width"], door["height"], door["model"]) == (640, 480, "digits")
    frames = door["frames"]
    assert frames["decoded"] >= frames["inferred"] >= 4
    assert 0.0 < door["latency_p50_ms"] <= door["latency_p95_ms"] < 5000.0
    assert (await caller.json("GET", "/v1/cameras/door"))[1]["name"] == "door"
    status, refused = await caller.json("GET", "/v1/cameras/yard")
    assert (status, refused["code"]) == (404, "not_found")


async def test_a_camera_comes_and_goes_by_the_api_and_stays_over_a_restart(house: House, caller: Caller) -> None:
    status, made = await caller.json("PUT", "/v1/cameras/yard", json=BODY, headers=ADMIN)
    assert (status, made["name"], made["managed"]) == (201, "yard", "api")
    status, changed = await caller.json("PUT", "/v1/cameras/yard", json={**BODY, "priority": "high"}, headers=ADMIN)
    assert (status, changed["priority"]) == (200, "high")
    await house.until(lambda: house.cameras.get("yard").state.state == "live")
    door = house.cameras.get("door")
    await house.cameras.close()
    other = await House(house.directory).open()
    await other.listen((pattern("door"),))
    assert sorted(other.cameras.there) == ["door", "yard"]
    assert other.cameras.get("yard").config.priority == "high"
    assert stat.S_IMODE((house.directory / "cameras.json").stat().st_mode) == 0o600
    await other.roster.remove("yard")
    await other.close()
    assert door.state.state == "stopped"


@pytest.mark.parametrize(
    ("method", "name", "body", "headers", "status", "told"),
    [
        ("PUT", "yard", BODY, {}, 403, "admin token"),
        ("PUT", "yard", BODY, {"Authorization": "Bearer wrong"}, 403, "admin token"),
        ("DELETE", "door", None, {}, 403, "admin token"),
        ("PUT", "door", BODY, ADMIN, 409, "configuration file"),
        ("DELETE", "door", None, ADMIN, 409, "configuration file"),
        ("DELETE", "yard", None, ADMIN, 404, "There are: door"),
        ("PUT", "yard", {"url": "rtsp://a:b@c/"}, ADMIN, 400, "password_env"),
        ("PUT", "yard", {"url": "rtsp://c/", "password_env": "HOME"}, ADMIN, 400, "begins with CAMERA_"),
        ("PUT", "yard", {"url": "rtsp://c/", "password_file": "/etc/shadow"}, ADMIN, 400, "names a file in"),
        ("PUT", "yard", {"url": "pattern:", "stride": 0}, ADMIN, 400, "stride"),
        ("PUT", "yard", {"url": "pattern:", "modle": "x"}, ADMIN, 400, "modle"),
        ("PUT", "yard", {"name": "x", "url": "pattern:"}, ADMIN, 400, "stands in the path"),
        ("PUT", "Yard!", BODY, ADMIN, 400, "lower-case"),
        ("PUT", "yard", {"url": "x" * (1 << 16)}, ADMIN, 413, "more than"),
        ("PUT", "yard", [], ADMIN, 400, "The body is refused"),
        ("PUT", "yard", {**BODY, "escalation": {"function": "a.py:f"}}, ADMIN, 400, "runs a file"),
        ("PUT", "yard", {**BODY, "escalation": {"function": "os.system"}}, ADMIN, 400, "FILE.py:NAME"),
        ("PUT", "yard", {**BODY, "residency": ["EU West"]}, ADMIN, 400, "residency"),
    ],
)
async def test_changes_that_cannot_be_made_are_refused_with_what_to_do(
    house: House, caller: Caller, method: str, name: str, body: Any, headers: dict[str, str], status: int, told: str
) -> None:
    answered, refused = await caller.json(method, f"/v1/cameras/{name}", json=body, headers=headers)
    assert (answered, told in refused["message"]) == (status, True), refused
    assert list(house.cameras.there) == ["door"]


def shape_of(jpeg: bytes) -> tuple[int, ...]:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return tuple(picture.shape)


async def test_a_snapshot_is_the_newest_picture_with_what_was_found(house: House, caller: Caller) -> None:
    await house.until(lambda: house.cameras.get("door").figures.inferred > 5)
    async with caller.session.get(f"{caller.url}/v1/cameras/door/snapshot") as answer:
        assert (answer.status, answer.content_type) == (200, "image/jpeg")
        assert shape_of(await answer.read()) == (480, 640, 3)


async def test_a_camera_that_has_shown_nothing_has_no_snapshot(
    house: House, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "_FIRST_PICTURE_S", 0.05)
    await house.roster.put(pattern("dead", url="rtsp://127.0.0.1:9/a"))
    status, refused = await caller.json("GET", "/v1/cameras/dead/snapshot")
    assert (status, refused["code"]) == (503, "unavailable")


async def test_a_live_view_is_motion_jpeg_that_ends_with_the_server(house: House, caller: Caller) -> None:
    async with caller.session.get(f"{caller.url}/v1/cameras/door/live") as answer:
        assert answer.content_type == "multipart/x-mixed-replace"
        reader = aiohttp.MultipartReader.from_response(answer)
        sizes = set()
        for _ in range(5):
            part = await reader.next()
            assert isinstance(part, aiohttp.BodyPartReader)
            sizes.add(shape_of(bytes(await part.read())))
        assert sizes == {(480, 640, 3)}
        assert house.runner is not None
        await asyncio.wait_for(house.runner.cleanup(), 10)


async def listened(answer: aiohttp.ClientResponse, count: int) -> list[tuple[str, dict[str, Any]]]:
    """So many events, without comments."""
    heard: list[tuple[str, dict[str, Any]]] = []
    while len(heard) < count:
        block = (await asyncio.wait_for(answer.content.readuntil(b"\n\n"), 20)).decode().strip()
        if not block.startswith(":"):
            named = dict(line.split(": ", 1) for line in block.splitlines())
            heard.append((named["event"], json.loads(named["data"])))
    return heard


async def test_events_are_heard_as_they_are_said_and_what_stands_comes_first(house: House, caller: Caller) -> None:
    await house.until(lambda: house.cameras.get("door").state.state == "live")
    async with caller.session.get(f"{caller.url}/v1/cameras/events?type=state&type=picture") as answer:
        ((kind, told),) = await listened(answer, 1)
        assert (kind, told["state"], told["camera"]) == ("state", "live", "door")
        await house.roster.put(pattern("yard"))
        heard = await listened(answer, 3)
    assert {told["camera"] for _, told in heard if told["type"] == "state"} == {"yard"}
    async with caller.session.get(f"{caller.url}/v1/cameras/events?camera=yard") as answer:
        assert {told["camera"] for _, told in await listened(answer, 1)} == {"yard"}
    for asked, word in (("kamera=x", "kamera"), ("recent=-1", "recent")):
        status, refused = await caller.json("GET", f"/v1/cameras/events?{asked}")
        assert (status, word in refused["message"]) == (400, True)


async def test_who_was_away_hears_what_it_has_missed(house: House, caller: Caller) -> None:
    await house.until(lambda: len(house.messages(PictureEvent, "door")) == 1)
    events = f"{caller.url}/v1/cameras/events?camera=door"
    async with caller.session.get(f"{events}&recent=50&type=picture") as answer:
        last = (await asyncio.wait_for(answer.content.readuntil(b"\n\n"), 20)).decode()
    name = last.partition("id: ")[2].partition("\n")[0]
    await house.cameras.remove("door")
    for last_id, expected in ((name, ["end"]), (f"{EPOCH}.0", ["start", "end"]), ("9.0", [])):
        async with caller.session.get(f"{events}&type=picture", headers={"Last-Event-ID": last_id}) as answer:
            assert [told["phase"] for _, told in await listened(answer, len(expected))] == expected


async def test_unknown_questions_are_refused(caller: Caller) -> None:
    status, refused = await caller.json("GET", "/v1/cameras/socket?kamera=x")
    assert (status, "kamera" in refused["message"]) == (400, True)


async def test_a_socket_tells_the_same_and_keeps_the_latest(house: House, caller: Caller) -> None:
    await house.until(lambda: house.cameras.get("door").state.state == "live")
    async with caller.session.ws_connect(f"{caller.url}/v1/cameras/socket?camera=door") as socket:
        first = json.loads(await socket.receive_str(timeout=10))
        assert (first["type"], first["state"]) == ("state", "live")
        await house.cameras.remove("door")
        while (told := json.loads(await socket.receive_str(timeout=10)))["type"] != "state":
            assert told["type"] == "picture"
        assert told["state"] == "stopped"


async def test_places_for_those_who_listen_are_bounded_and_given_back(
    house: House, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "MAX_LISTENERS", 1)
    for _ in range(3):
        async with caller.session.get(f"{caller.url}/v1/cameras/events") as answer:
            await listened(answer, 1)
            status, refused = await caller.json("GET", "/v1/cameras/events")
            assert (status, refused["code"]) == (503, "overloaded")
            answer.close()

        async def free() -> bool:
            async with caller.session.get(f"{caller.url}/v1/cameras/events") as answer:
                return answer.status == 200

        while not await free():  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.02)


async def test_a_body_that_comes_in_pieces_is_read_whole(house: House, caller: Caller) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for letter in json.dumps(BODY):
            yield letter.encode()
            await asyncio.sleep(0.005)

    status, made = await caller.json("PUT", "/v1/cameras/yard", data=pieces(), headers=ADMIN)
    assert (status, made["name"]) == (201, "yard")


async def test_who_looks_goes_on_with_a_camera_that_is_changed_and_is_let_go_with_one_that_goes(
    house: House, caller: Caller
) -> None:
    await house.roster.put(pattern("yard"))
    async with caller.session.get(f"{caller.url}/v1/cameras/yard/live") as answer:
        reader = aiohttp.MultipartReader.from_response(answer)
        for size in ((480, 640, 3), (240, 320, 3)):
            await house.roster.put(pattern("yard", url=f"pattern:?fps=50&size={size[1]}x{size[0]}"))
            shown: tuple[int, ...] = ()
            while shown != size:
                part = await asyncio.wait_for(reader.next(), 10)
                assert isinstance(part, aiohttp.BodyPartReader)
                shown = shape_of(bytes(await part.read()))
        await house.roster.remove("yard")
        await asyncio.wait_for(answer.read(), 10)


async def test_a_live_view_of_a_camera_that_shows_nothing_ends_with_the_server(house: House, caller: Caller) -> None:
    await house.roster.put(pattern("dead", url="rtsp://127.0.0.1:9/a"))
    async with caller.session.get(f"{caller.url}/v1/cameras/dead/live") as answer:
        assert house.runner is not None
        await asyncio.wait_for(house.runner.cleanup(), 1.5)
        await answer.read()


@pytest.mark.parametrize("path", ["door/live", "events"])
async def test_what_has_no_end_has_no_head(caller: Caller, path: str) -> None:
    async with caller.session.head(f"{caller.url}/v1/cameras/{path}") as answer:
        assert answer.status in (404, 405)


async def test_who_does_not_read_loses_his_place(house: House, caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "PATIENCE_S", 0.3)
    monkeypatch.setattr(routes, "LIVE_FPS", 1000.0)
    host, _, port = caller.url.removeprefix("http://").partition(":")
    with socket.socket() as sleeping:
        sleeping.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sleeping.connect((host, int(port)))
        sleeping.sendall(f"GET /v1/cameras/door/live HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        await house.until(lambda: house.places() == 1)
        await house.until(lambda: house.places() == 0)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "https://cams.example", "Sec-Fetch-Site": "same-origin"}, 101),
        ({}, 101),
    ],
)
async def test_no_page_but_the_nodes_own_reads_the_socket(caller: Caller, headers: dict[str, str], status: int) -> None:
    try:
        async with caller.session.ws_connect(f"{caller.url}/v1/cameras/socket", headers=headers) as socket:
            assert json.loads(await socket.receive_str(timeout=10))["type"] == "state"
            answered = 101
    except aiohttp.WSServerHandshakeError as refused:
        answered = refused.status
    assert answered == status
    async with caller.session.ws_connect(f"{caller.url}/v1/cameras/socket", origin=caller.url) as socket:
        assert json.loads(await socket.receive_str(timeout=10))["type"] == "state"
