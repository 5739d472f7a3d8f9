"""The HTTP API: registry, enrolment, signed metadata, and its errors."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec

from contracts import manifest as manifests
from contracts.messages import Identity, Signed, decode
from contracts.topics import node_topic
from fleet.config import FleetConfig
from runtime.links.bundles.blob_http import http_ways
from runtime.links.bundles.fetch import fetch_bundle
from runtime.links.bundles.store import BundleStore
from runtime.links.mqtt.port import MqttPort
from runtime.links.trust import signatures
from runtime.links.trust.tuf import TrustedFleet
from tests.fleet.scripted import FINGERPRINT, Fleet, until, write_bundle

BLOB = b"some weights" * 1000
DIGEST = "sha256:" + hashlib.sha256(BLOB).hexdigest()


async def test_a_blob_goes_in_checked_and_comes_out_in_ranges(fleet: Fleet) -> None:
    await fleet.operator.call("PUT", f"/v1/blobs/{DIGEST}", BLOB, expect=201)
    async with fleet.session.get(f"{fleet.url}/v1/blobs/{DIGEST}") as answer:
        assert answer.status == 200
        assert await answer.read() == BLOB
    async with fleet.session.get(f"{fleet.url}/v1/blobs/{DIGEST}", headers={"Range": "bytes=5000-"}) as answer:
        assert answer.status == 206
        assert answer.headers["Content-Range"] == f"bytes 5000-{len(BLOB) - 1}/{len(BLOB)}"
        assert await answer.read() == BLOB[5000:]
    async with fleet.session.head(f"{fleet.url}/v1/blobs/{DIGEST}") as answer:
        assert int(answer.headers["Content-Length"]) == len(BLOB)


async def test_a_blob_that_is_another_is_refused_and_leaves_nothing(fleet: Fleet) -> None:
    error = await fleet.operator.call("PUT", f"/v1/blobs/{DIGEST}", BLOB + b"!", expect=400)
    assert "not " + DIGEST in error["message"]
    await fleet.operator.call("GET", f"/v1/blobs/{DIGEST}", expect=404)
    await fleet.operator.call("PUT", "/v1/blobs/sha256:short", BLOB, expect=400)
    assert list((fleet.directory / "oci" / "uploads").iterdir()) == []


async def test_a_blob_over_the_limit_is_refused_by_length_and_by_count(
    config: FleetConfig, session: aiohttp.ClientSession
) -> None:
    fleet = await Fleet(msgspec.structs.replace(config, max_blob_bytes=1000), session).start()
    await fleet.operator.call("PUT", f"/v1/blobs/{DIGEST}", BLOB, expect=413)

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 100

    headers = fleet.operator.headers
    async with session.put(f"{fleet.url}/v1/blobs/{DIGEST}", data=endless(), headers=headers) as answer:
        assert answer.status == 413
        assert (await answer.json())["code"] == "body_too_large"
    await fleet.stop()


async def test_a_blob_that_is_encoded_wrongly_is_the_senders_mistake(fleet: Fleet) -> None:
    headers = {**fleet.operator.headers, "Content-Encoding": "gzip"}
    async with fleet.session.put(f"{fleet.url}/v1/blobs/{DIGEST}", data=BLOB, headers=headers) as answer:
        assert (answer.status, (await answer.json())["code"]) == (400, "bad_request")


async def test_a_bundle_is_published_once_and_its_version_never_changes(
    fleet: Fleet, bundles: dict[str, Path], tmp_path: Path
) -> None:
    detail = await fleet.operator.publish(bundles["1"])
    assert detail["model"] == "digits"
    again = await fleet.operator.publish(bundles["1"])
    assert again["digest"] == detail["digest"]
    listed = await fleet.operator.call("GET", "/v1/models")
    assert [(model["name"], model["version"]) for model in listed] == [("digits-edge", "1")]
    assert listed[0]["measurements"]["artifacts"]["cpu.onnx"]["agreement"] == 0.97
    shown = await fleet.operator.call("GET", "/v1/models/digits-edge/1")
    assert shown["manifest"]["version"] == "1"

    other = tmp_path / "other"
    write_bundle(other, "2")
    manifest = manifests.decode((other / "manifest.json").read_bytes())
    (other / "manifest.json").write_bytes(manifests.encode(msgspec.structs.replace(manifest, version="1")))
    for file in manifest.files.values():
        path = next(path for path in other.rglob("*") if path.is_file() and _digest(path) == file.sha256)
        await fleet.operator.call("PUT", f"/v1/blobs/{file.sha256}", path.read_bytes(), expect=201)
    error = await fleet.operator.call("POST", "/v1/models", (other / "manifest.json").read_bytes(), expect=409)
    assert detail["digest"] in error["message"]


def _digest(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


async def test_a_bundle_with_missing_files_or_a_loose_manifest_is_refused(
    fleet: Fleet, bundles: dict[str, Path]
) -> None:
    data = (bundles["1"] / "manifest.json").read_bytes()
    error = await fleet.operator.call("POST", "/v1/models", data, expect=400)
    assert "cpu.onnx" in error["message"]
    await fleet.operator.publish(bundles["1"])
    error = await fleet.operator.call("POST", "/v1/models", data + b" ", expect=400)
    assert "canonical" in error["message"]
    await fleet.operator.call("POST", "/v1/models", b"{", expect=400)
    await fleet.operator.call("GET", "/v1/models/digits-edge/9", expect=404)
    path = "/v1/models/digits-edge/1/measurements"
    await fleet.operator.call("POST", path, b'{"bundle":"x@1","artifacts":{},"how":"","machine":""}', expect=400)


async def test_the_registry_is_an_oci_layout(fleet: Fleet, bundles: dict[str, Path]) -> None:
    await fleet.operator.publish(bundles["1"])
    await fleet.operator.publish(bundles["2"])
    root = fleet.directory / "oci"
    assert msgspec.json.decode((root / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = msgspec.json.decode((root / "index.json").read_bytes())
    names = [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in index["manifests"]]
    assert names == ["digits-edge@1", "digits-edge@2"]
    for entry in index["manifests"]:
        image = msgspec.json.decode((root / "blobs/sha256" / entry["digest"][7:]).read_bytes())
        for part in (image["config"], *image["layers"]):
            stored = (root / "blobs/sha256" / part["digest"][7:]).read_bytes()
            assert "sha256:" + hashlib.sha256(stored).hexdigest() == part["digest"]
            assert len(stored) == part["size"]


async def test_a_token_enrols_one_node_once_and_its_identity_is_published_signed(fleet: Fleet) -> None:
    identities: list[bytes] = []
    reader = MqttPort(fleet.parts.broker_url, "reader")
    reader.subscribe(node_topic("frankfurt-1", "identity"), lambda _topic, payload: identities.append(payload))
    await reader.start()
    await reader.wait_connected(10)
    node = await fleet.operator.enrol("frankfurt-1")
    enrolment = node.enrolment
    assert (enrolment.node, enrolment.region, enrolment.cloud_urls) == (
        "frankfurt-1",
        "eu-central",
        ("http://127.0.0.1:8090",),
    )
    assert enrolment.hop_key == (fleet.directory / "keys" / "hop.key").read_text().strip()
    await until(lambda: identities)
    trusted = TrustedFleet(fleet.directory / "client", fleet.url, enrolment.root)
    keys = await asyncio.to_thread(trusted.keys, "identity")
    identity = signatures.verify(decode(identities[0], Signed), keys, Identity)
    assert (identity.node, identity.url, identity.target) == ("frankfurt-1", "http://frankfurt-1:8100", "cpu-x86")
    assert decode(enrolment.identity, Signed) == decode(identities[0], Signed)
    await reader.stop()


async def test_a_used_or_unknown_token_and_bad_requests_are_refused(fleet: Fleet) -> None:
    place = {"node": "tokyo-1", "region": "jp", "lat": 35.7, "lon": 139.7}
    token = (await fleet.operator.call("POST", "/v1/tokens", place, expect=201))["token"]
    request = {
        "token": token,
        "public_key": "ab" * 32,
        "url": "http://tokyo:8100",
        "reach": "public",
        "fingerprint": msgspec.to_builtins(FINGERPRINT),
    }
    for wrong in ({"public_key": "xyz"}, {"url": "ftp://x"}, {"reach": "moon"}, {"extra": 1}):
        await fleet.operator.call("POST", "/v1/enrol", request | wrong, expect=400)
    for url in ("http://", "http://[::1", "http://x:99999", "http://x:y", "http://u:p@x", "http://a b", "http://x/?q"):
        error = await fleet.operator.call("POST", "/v1/enrol", request | {"url": url}, expect=400)
        assert "must be the node's own" in error["message"]
    await fleet.operator.call("POST", "/v1/enrol", request)
    error = await fleet.operator.call("POST", "/v1/enrol", request, expect=401)
    assert "foothill fleet node enrol" in error["message"]
    await fleet.operator.call("POST", "/v1/enrol", request | {"token": "guess"}, expect=401)
    await fleet.operator.call("POST", "/v1/tokens", place | {"lat": 100}, expect=400)
    await fleet.operator.call("POST", "/v1/tokens", b'{"node":"\xff"}', expect=400)
    await fleet.operator.call("POST", "/v1/tokens", b'{"node":' + b"[" * 100_000, expect=400)
    await fleet.operator.call("POST", "/v1/tokens", place | {"node": "Not A Name"}, expect=400)
    database = b"".join(path.read_bytes() for path in fleet.directory.glob("fleet.db*"))
    assert token.encode() not in database


async def test_a_node_that_joins_again_gets_a_newer_identity(fleet: Fleet) -> None:
    sequences = []
    for _ in range(2):
        enrolment = (await fleet.operator.enrol("frankfurt-1")).enrolment
        sequences.append(decode(decode(enrolment.identity, Signed).payload, Identity).sequence)
    assert sequences[1] > sequences[0]
    assert len(await fleet.operator.call("GET", "/v1/nodes")) == 1


async def test_every_admin_route_is_closed_without_the_token(fleet: Fleet) -> None:
    routes = [
        ("GET", "/v1/nodes"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/a/1"),
        ("GET", "/v1/rollouts"),
        ("GET", "/v1/rollouts/x"),
        ("GET", "/v1/rollouts/x/events"),
        ("GET", "/v1/audits"),
        ("POST", "/v1/tokens"),
        ("POST", "/v1/models"),
        ("POST", "/v1/models/a/1/measurements"),
        ("POST", "/v1/rollouts"),
        ("POST", "/v1/rollouts/x/abort"),
        ("PUT", f"/v1/blobs/{DIGEST}"),
    ]
    for method, path in routes:
        async with fleet.session.request(method, fleet.url + path) as answer:
            assert (answer.status, (await answer.json())["code"]) == (401, "unauthorized"), path
        headers = {"Authorization": "Bearer wrong"}
        async with fleet.session.request(method, fleet.url + path, headers=headers) as answer:
            assert (answer.status, (await answer.json())["code"]) == (403, "forbidden"), path


async def test_a_node_fetches_what_was_published_and_believes_only_that(
    fleet: Fleet, bundles: dict[str, Path], tmp_path: Path
) -> None:
    digest = (await fleet.operator.publish(bundles["1"]))["digest"]
    root = (await fleet.operator.enrol("frankfurt-1")).enrolment.root
    trusted = TrustedFleet(tmp_path / "node", fleet.url, root)
    assert await asyncio.to_thread(trusted.resolve, "digits", "digits-edge@1") == digest
    store = BundleStore(tmp_path / "store")
    path = await fetch_bundle(store, trusted, http_ways(fleet.url), "digits", digest, None)
    assert (path / "cpu.onnx").read_bytes() == (bundles["1"] / "cpu.onnx").read_bytes()


async def test_health_and_metrics_tell_how_it_is(fleet: Fleet) -> None:
    node = await (await fleet.operator.enrol("frankfurt-1")).start()
    await until(lambda: fleet.parts.controller.count_nodes()["online"] == 1)
    async with fleet.session.get(f"{fleet.url}/healthz") as answer:
        assert await answer.json() == {"status": "ok", "mqtt": True, "broker_url": fleet.parts.broker_url}
    async with fleet.session.get(f"{fleet.url}/metrics") as answer:
        text = await answer.text()
    assert 'foothill_fleet_nodes{state="online"} 1.0' in text
    assert "foothill_fleet_mqtt_connected 1.0" in text
    labels = 'model="other",part="fleet",reason="ok",route="/healthz",status="200",tier="none"'
    assert f"foothill_requests_total{{{labels}}} 1.0" in text
    assert 'foothill_phase_seconds_count{model="other",part="fleet",phase="total",region="",tier="none"}' in text
    assert 'foothill_fleet_rollouts{state="completed"} 0.0' in text
    await node.stop()


async def test_requests_count_under_patterns_of_routes_whatever_paths_are_made_up(fleet: Fleet) -> None:
    for path in ("/v1/blobs/made-up-1", "/v1/blobs/made-up-2", "/made-up-3"):
        async with fleet.session.get(fleet.url + path) as answer:
            await answer.read()
    async with fleet.session.get(f"{fleet.url}/metrics") as answer:
        text = await answer.text()
    assert 'route="/v1/blobs/{digest}",status="400",tier="none"} 2.0' in text
    assert 'route="unknown",status="404",tier="none"} 1.0' in text
    assert "made-up" not in text


async def test_unknown_paths_and_path_tricks_find_nothing(fleet: Fleet) -> None:
    for path in ("/nowhere", "/tuf/metadata/../../keys/root.key", "/tuf/%2e%2e/keys/root.key", "/v1/blobs/..%2fx"):
        async with fleet.session.get(fleet.url + path) as answer:
            assert answer.status in (400, 404)
