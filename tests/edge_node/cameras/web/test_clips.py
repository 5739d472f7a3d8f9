"""Clips over HTTP: real ones, cut out of real footage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from contracts.errors import FoothillError
from edge_node.cameras.recording.config import CameraRecordingConfig, RecordingConfig
from edge_node.cameras.recording.part import RecordingPart
from edge_node.cameras.web.clips import ClipRoutes
from runtime.links.http.errors import error_middleware
from runtime.links.http.serve import start_app
from tests.edge_node.cameras.house import House, pattern
from tests.edge_node.cameras.recording.footage import NOW_S, Camera, film, frames

ADMIN = {"Authorization": "Bearer admin"}


def check_admin(request: web.Request) -> None:
    if request.headers.get("Authorization") != ADMIN["Authorization"]:
        raise FoothillError("forbidden", "Changing clips needs the admin token.")


class Videotheque:
    """Routes over clips of `yard`, and of `door`, which never had one; `viewed` is what has gone."""

    def __init__(self, directory: Path, house: House, session: aiohttp.ClientSession) -> None:
        self.directory = directory
        config = RecordingConfig(on=True, pre_s=1.0, post_s=1.0, reserve_bytes=0)
        self.part = RecordingPart(directory, config, wall=lambda: NOW_S)
        self.viewed: list[tuple[Any, ...]] = []
        self.routes = ClipRoutes(
            house.cameras, self.part, check_admin=check_admin, view=lambda *told: self.viewed.append(told)
        )
        self.house = house
        self.session = session
        self.footage = film(directory / "footage", seconds=6)
        ring = self.part.add("yard", CameraRecordingConfig())
        assert ring is not None
        self.camera = Camera(ring)

    async def open(self) -> None:
        app = web.Application(middlewares=[error_middleware("fra")])
        app.add_routes(self.routes.routes())
        self.runner, self.url = await start_app(app, "127.0.0.1", 0, name="fra", drain_s=1.0)

    async def write(self, *events: str) -> None:
        """A clip of each."""
        self.part.start()
        for event in events:
            before, begun_s = self.part.counts.clips, self.camera.now_s
            await asyncio.to_thread(self.camera.play, self.footage)
            assert self.part.want("yard", event, begun_s + 3.0)
            give_up_at = time.monotonic() + 20
            while self.part.counts.clips == before:
                assert time.monotonic() < give_up_at, self.part.counts.dropped
                await asyncio.sleep(0.01)

    async def ask(self, path: str, method: str = "GET", **options: Any) -> tuple[int, Any]:
        async with self.session.request(method, self.url + path, **options) as answer:
            return answer.status, await answer.json() if answer.content_type == "application/json" else None

    async def events(self, query: str = "") -> list[str]:
        status, told = await self.ask(f"/v1/cameras/yard/clips{query}")
        assert status == 200, told
        return [clip["clip"]["events"][0] for clip in told["clips"]]


@pytest.fixture
async def on(tmp_path: Path, house: House) -> AsyncIterator[Videotheque]:
    await house.cameras.put(pattern("door"))
    await house.cameras.put(pattern("yard"))
    async with aiohttp.ClientSession() as session:
        videotheque = Videotheque(tmp_path, house, session)
        await videotheque.open()
        yield videotheque
        await videotheque.runner.cleanup()
        await asyncio.to_thread(videotheque.part.close)


async def test_a_clip_plays_by_its_event_and_in_ranges(on: Videotheque) -> None:
    await on.write("yard-1-7")
    async with on.session.get(f"{on.url}/v1/cameras/yard/clips/yard-1-7") as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, "video/mp4")
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert answer.headers["Content-Disposition"].startswith('inline; filename="yard-')
        whole = await answer.read()
    assert on.viewed == [("yard", "clip", ANY, "127.0.0.1", len(whole))]
    (on.directory / "got.mp4").write_bytes(whole)
    assert len(frames(on.directory / "got.mp4")) >= 50
    headers = {"Range": f"bytes={len(whole) - 10}-"}
    async with on.session.get(f"{on.url}/v1/cameras/yard/clips/yard-1-7", headers=headers) as answer:
        assert (answer.status, await answer.read()) == (206, whole[-10:])
    assert on.viewed[-1][-1] == 10
    async with on.session.get(f"{on.url}/v1/cameras/yard/clips/yard-1-7", headers={"Range": "bytes=x"}) as answer:
        assert answer.status == 416
    headers = {"Range": f"bytes={len(whole)}-"}
    async with on.session.get(f"{on.url}/v1/cameras/yard/clips/yard-1-7", headers=headers) as answer:
        assert answer.status == 416


async def test_who_asks_for_the_head_alone_has_got_nothing(on: Videotheque) -> None:
    await on.write("yard-1-7")
    async with on.session.head(f"{on.url}/v1/cameras/yard/clips/yard-1-7") as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, "video/mp4")
    assert not on.viewed


async def test_clips_that_show_what_privacy_hides_stay_on_the_box(on: Videotheque) -> None:
    await on.write("e1")
    await on.house.cameras.put(pattern("yard", privacy={"blur_labels": ["face"]}))
    status, refused = await on.ask("/v1/cameras/yard/clips/e1", headers=ADMIN)
    assert (status, "clips = true" in refused["message"]) == (403, True)
    await on.house.cameras.put(pattern("yard", privacy={"blur_labels": ["face"], "clips": True}))
    assert (await on.ask("/v1/cameras/yard/clips/e1"))[0] == 200
    await on.house.cameras.remove("yard")
    assert (await on.ask("/v1/cameras/yard/clips/e1"))[0] == 403
    assert (await on.ask("/v1/cameras/yard/clips/e1", headers=ADMIN))[0] == 200
    assert (await on.ask("/v1/cameras/yard/clips"))[0] == 200


async def test_a_listing_goes_from_page_to_page_and_by_time_and_event(on: Videotheque) -> None:
    names = [f"e{number}" for number in range(5)]
    await on.write(*names)
    seen, before = [], ""
    for _ in range(3):
        _, page = await on.ask(f"/v1/cameras/yard/clips?limit=2&before={quote(before)}")
        seen += [clip["clip"]["events"][0] for clip in page["clips"]]
        before = page["next"]
    assert (seen, before) == ([*reversed(names)], "")
    _, page = await on.ask("/v1/cameras/yard/clips")
    begun_s = page["clips"][2]["clip"]["from_s"]
    assert await on.events(f"?before={begun_s}") == ["e1", "e0"]
    assert await on.events("?event=e3") == ["e3"]
    assert await on.events("?event=e") == []
    status, _ = await on.ask(page["clips"][0]["url"])
    assert status == 200


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=-1", "limit=x", "before=x", "before=x/y", "after=1"])
async def test_a_listing_that_cannot_be_is_refused(on: Videotheque, query: str) -> None:
    await on.write("e")
    status, told = await on.ask(f"/v1/cameras/yard/clips?{query}")
    assert (status, told["code"]) == (400, "bad_request")


async def test_while_it_is_written_it_says_so_and_what_never_was_is_not_found(on: Videotheque) -> None:
    await asyncio.to_thread(on.camera.play, on.footage)
    assert on.part.want("yard", "soon", NOW_S + 5.5)
    async with on.session.get(f"{on.url}/v1/cameras/yard/clips/soon") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    on.part.start()
    async with on.session.get(f"{on.url}/v1/cameras/yard/clips/soon") as answer:
        assert answer.status == 503
    await on.write("later")
    assert (await on.ask("/v1/cameras/yard/clips/soon"))[0] == 200
    assert (await on.ask("/v1/cameras/yard/clips/never"))[0] == 404


async def test_cameras_without_clips_have_an_empty_list_and_strangers_none(on: Videotheque) -> None:
    for _ in range(2):
        assert await on.ask("/v1/cameras/door/clips") == (200, {"clips": [], "next": ""})
        assert (await on.ask("/v1/cameras/nobody/clips"))[0] == 404
        assert (await on.ask("/v1/cameras/door/clips/e"))[0] == 404
        await on.write("e")


async def test_the_admin_keeps_lets_go_and_deletes(on: Videotheque) -> None:
    await on.write("e")
    path = "/v1/cameras/yard/clips/e"
    for method, where in (("PUT", f"{path}/keep"), ("DELETE", f"{path}/keep"), ("DELETE", path)):
        assert (await on.ask(where, method))[0] == 403
    status, kept = await on.ask(f"{path}/keep", "PUT", headers=ADMIN)
    assert (status, kept["keep"]) == (200, True)
    _, page = await on.ask("/v1/cameras/yard/clips")
    assert page["clips"][0]["clip"]["keep"] is True
    exact = page["clips"][0]["url"]
    status, kept = await on.ask(f"{exact}/keep", "DELETE", headers=ADMIN)
    assert (status, kept["keep"]) == (200, False)
    assert await on.ask(exact, "DELETE", headers=ADMIN) == (204, None)
    assert (await on.ask(path))[0] == (await on.ask(exact))[0] == 404
    assert await on.ask("/v1/cameras/door/clips") == (200, {"clips": [], "next": ""})


@pytest.mark.parametrize(
    "path",
    [
        "..%2f..%2fsecret/2027-01-15/080000-e",
        "yard/clips/..%2f..%2f..%2fsecret",
        "yard/clips/2027-01-15/..%2f..%2f..%2fsecret",
        "yard/clips/..%2f../secret",
        "yard/clips/%00",
        "yard/clips/2027-01-15/080000-e%00",
        "yard/clips/.writing/yard-0",
    ],
)
async def test_no_name_leads_out_of_the_directory(on: Videotheque, path: str) -> None:
    await on.write("e")
    (on.directory / "secret.mp4").write_text("secret")
    for method in ("GET", "DELETE"):
        async with on.session.request(method, URL(f"{on.url}/v1/cameras/{path}", encoded=True)) as answer:
            assert answer.status in (403, 404, 405)
            assert "secret" not in (await answer.text()).replace(path, "").replace("/secret'", "")
    async with on.session.delete(URL(f"{on.url}/v1/cameras/{path}", encoded=True), headers=ADMIN) as answer:
        assert answer.status in (404, 405)
    assert (on.directory / "secret.mp4").exists()
    assert await on.events() == ["e"]


async def test_a_clip_that_somebody_removed_by_hand_is_not_found(on: Videotheque) -> None:
    await on.write("e")
    (video,) = on.directory.glob("clips/yard/*/*.mp4")
    video.unlink()
    status, told = await on.ask("/v1/cameras/yard/clips/e")
    assert (status, told["code"]) == (404, "not_found")


async def test_an_event_in_several_clips_plays_the_first_and_lists_all(on: Videotheque) -> None:
    await on.write("long", "other", "long")
    _, page = await on.ask("/v1/cameras/yard/clips?event=long")
    assert len(page["clips"]) == 2
    async with on.session.get(f"{on.url}/v1/cameras/yard/clips/long") as answer:
        played = await answer.read()
    async with on.session.get(on.url + page["clips"][-1]["url"]) as answer:
        assert await answer.read() == played
