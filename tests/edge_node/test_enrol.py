"""Joining a fleet that answers wrongly, over real HTTP and real signed metadata."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from contracts.boards import Fingerprint
from contracts.enrolment import EnrolAnswer, EnrolRequest
from contracts.errors import ErrorBody, FoothillError
from contracts.messages import Identity, encode
from edge_node.enrol import FILE, enrol, load_enrolment
from runtime.links.http.serve import start_app
from runtime.links.trust import signatures
from runtime.links.trust.tuf import TrustError
from tests.runtime.links.tuf_repository import TufRepository

FINGERPRINT = Fingerprint("cpu-x86", "x86_64", "linux", 2, 1 << 30, "CPUExecutionProvider", "onnxruntime")
NODE_URL = "http://10.0.0.7:8100"


class Fleet:
    """Answers one enrolment; a test replaces fields of the answer or of the identity, or the whole response."""

    def __init__(self, directory: Path) -> None:
        self.private = signatures.generate()
        self.repository = TufRepository(directory)
        self.repository.set_keys({signatures.public_key(self.private): ["identity"]})
        self.repository.publish()
        self.identity: dict[str, Any] = {}
        self.answer: dict[str, Any] = {}
        self.signer = self.private
        self.response: Callable[[], web.Response] | None = None
        self.asked: list[EnrolRequest] = []
        self.url = ""

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/enrol", self._enrol)
        app.router.add_static("/tuf", self.repository.directory)
        self._runner, self.url = await start_app(app, "127.0.0.1", 0, name="fleet", drain_s=0.1)

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _enrol(self, request: web.Request) -> web.Response:
        asked = msgspec.json.decode(await request.read(), type=EnrolRequest)
        self.asked.append(asked)
        if self.response is not None:
            return self.response()
        identity = msgspec.structs.replace(
            Identity("tokyo", "japan-east", 35.6, 139.7, asked.url, asked.reach, asked.public_key, "cpu-x86", 1),
            **self.identity,
        )
        answer = EnrolAnswer(
            node="tokyo",
            region="japan-east",
            lat=35.6,
            lon=139.7,
            broker_url="mqtt://127.0.0.1:1883",
            cloud_urls=("http://127.0.0.1:8090",),
            root=self.repository.root_bytes,
            hop_key="ab" * 32,
            identity=encode(signatures.sign(identity, self.signer)),
        )
        return web.Response(body=msgspec.json.encode(msgspec.structs.replace(answer, **self.answer)), status=201)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(tmp_path / "fleet")
    await fleet.start()
    yield fleet
    await fleet.stop()


async def join(fleet: Fleet, state: Path, token: str = "once") -> None:
    await enrol(fleet.url, token, state, NODE_URL, reach="site", fingerprint=FINGERPRINT)


async def test_what_the_fleet_answers_is_kept_for_the_owner_only(fleet: Fleet, tmp_path: Path) -> None:
    await join(fleet, tmp_path / "node")
    (asked,) = fleet.asked
    assert (asked.token, asked.url, asked.reach, asked.fingerprint) == ("once", NODE_URL, "site", FINGERPRINT)
    kept = load_enrolment(tmp_path / "node")
    assert (kept.node, kept.region, kept.fleet_url) == ("tokyo", "japan-east", fleet.url)
    assert signatures.public_key(bytes.fromhex(kept.private_key)) == asked.public_key
    assert (tmp_path / "node" / FILE).stat().st_mode & 0o777 == 0o600


async def test_the_private_key_never_leaves_the_node(fleet: Fleet, tmp_path: Path) -> None:
    await join(fleet, tmp_path / "node")
    kept = load_enrolment(tmp_path / "node")
    assert kept.private_key not in msgspec.json.encode(fleet.asked[0]).decode()


async def test_joining_twice_is_refused_before_a_token_is_spent(fleet: Fleet, tmp_path: Path) -> None:
    await join(fleet, tmp_path / "node")
    with pytest.raises(FoothillError, match="enrolled already: node tokyo") as refused:
        await join(fleet, tmp_path / "node", "second")
    assert refused.value.code == "conflict"
    assert len(fleet.asked) == 1


@pytest.mark.parametrize(
    ("identity", "answer", "message"),
    [
        ({"public_key": "00" * 32}, {}, "not this node's"),
        ({"node": "osaka"}, {}, "not this node's"),
        ({}, {"region": "eu-central"}, "another region"),
        ({}, {"node": "../tokyo"}, "no node name"),
        ({}, {"hop_key": "short"}, "hop key"),
        ({}, {"identity": b"nonsense"}, "no Signed"),
        ({}, {"root": b"{}"}, "refused"),
    ],
)
async def test_an_answer_that_proves_nothing_is_not_kept(
    fleet: Fleet, tmp_path: Path, identity: dict[str, Any], answer: dict[str, Any], message: str
) -> None:
    fleet.identity, fleet.answer = identity, answer
    with pytest.raises(FoothillError, match=message):
        await join(fleet, tmp_path / "node")
    assert not (tmp_path / "node" / FILE).exists()


async def test_an_identity_signed_by_another_key_is_not_believed(fleet: Fleet, tmp_path: Path) -> None:
    fleet.signer = signatures.generate()
    with pytest.raises(FoothillError, match="does not allow"):
        await join(fleet, tmp_path / "node")


async def test_a_root_of_another_fleet_is_not_believed(fleet: Fleet, tmp_path: Path) -> None:
    stranger = await asyncio.to_thread(TufRepository, tmp_path / "stranger")
    fleet.answer = {"root": stranger.root_bytes}
    with pytest.raises(TrustError):
        await join(fleet, tmp_path / "node")


@pytest.mark.parametrize(
    ("response", "code", "message"),
    [
        (
            lambda: web.Response(
                status=401,
                body=msgspec.json.encode(ErrorBody("unauthorized", "Ask for another token.", "fleet", False, "r")),
            ),
            "unauthorized",
            "Ask for another token.",
        ),
        (
            lambda: web.Response(
                status=418, body=msgspec.json.encode(ErrorBody("teapot", "Short and stout.", "fleet", False, "r"))
            ),
            "upstream_failed",
            "Short and stout.",
        ),
        (lambda: web.Response(status=404, text="nope"), "upstream_failed", "HTTP 404"),
        (lambda: web.Response(text="<html>"), "upstream_failed", "did not answer like a Foothill fleet"),
        (lambda: web.Response(body=b'{"node":"\xff"}'), "upstream_failed", "did not answer like a Foothill fleet"),
        (lambda: web.Response(body=b'{"code":"\xff"}', status=500), "upstream_failed", "HTTP 500"),
        (lambda: web.Response(body=b"[" * (5 << 20)), "upstream_failed", "did not answer like a Foothill fleet"),
        (lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:9/"}), "upstream_failed", "HTTP 302"),
    ],
    ids=[
        "its own error",
        "an error of tomorrow",
        "another server",
        "a web page",
        "no text",
        "no text in an error",
        "too much",
        "a detour",
    ],
)
async def test_the_fleets_errors_are_shown_as_they_are(
    fleet: Fleet, tmp_path: Path, response: Callable[[], web.Response], code: str, message: str
) -> None:
    fleet.response = response
    with pytest.raises(FoothillError) as refused:
        await join(fleet, tmp_path / "node")
    assert refused.value.code == code
    assert message in refused.value.message


async def test_a_directory_that_cannot_be_written_is_found_before_the_token_is_spent(
    fleet: Fleet, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FoothillError, match="writable --state"):
        await join(fleet, tmp_path / "file" / "node")
    assert not fleet.asked


@pytest.mark.parametrize("content", [b"{}", b'{"node":"\xff"}'])
def test_a_damaged_enrolment_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(FoothillError, match="enrol this node again"):
        load_enrolment(tmp_path)
