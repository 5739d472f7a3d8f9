"""A request for a version goes to nodes that have it, else to those that tell none, and never to any other."""

from __future__ import annotations

import random
from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import FoothillError
from contracts.messages import ModelReport, Reported, Status
from router.fields import Fields
from router.nodes import Nodes
from router.tries import Call
from tests.router.rig import DUBLIN, BuildRig, Rig, Start, call, static
from tests.router.test_app import Client, Route, router  # noqa: F401 - a fixture
from tests.router.test_selection import FINGERPRINT, NOW_S, identity


def put(nodes: Nodes, name: str, bundle: str, url: str = "http://x:1") -> None:
    nodes.put_identity(msgspec.structs.replace(identity(name), url=url))
    nodes.put_status(Status(name, 1, "online"), NOW_S)
    told = ModelReport("sha256:x", "active", serving="sha256:x", bundle=bundle)
    nodes.put_reported(Reported(name, 1, 1, {"digits": told}, FINGERPRINT, 0.0))


@given(st.lists(st.sampled_from(["1", "2", "2.0", ""]), max_size=6), st.sampled_from(["", "1", "2", "3"]))
def test_who_has_another_version_never_has_it(versions: list[str], asked: str) -> None:
    untold = [static(f"n{at}", "http://x:1") for at, version in enumerate(versions) if not version]
    nodes = Nodes(DUBLIN, untold)
    for at, version in enumerate(versions):
        if version:
            put(nodes, f"n{at}", f"digits-edge@{version}")
    field, found = Fields(nodes, random.Random(1)).of("digits", (), asked), set()
    tried: set[str] = set()
    while (picked := field.pick(NOW_S, tried=tried)) is not None:
        found.add(picked.node.version("digits"))
        tried.add(picked.node.name)
    if not asked:
        assert found == set(versions)
    elif asked in versions:
        assert found == {asked}
    else:
        assert found == ({""} if "" in versions else set())
    last = field.last(NOW_S)
    assert (last.node.version("digits") in found) if last is not None else not found


def test_a_node_that_changes_its_version_changes_fields() -> None:
    nodes = Nodes(DUBLIN)
    put(nodes, "n0", "digits-edge@1")
    fields = Fields(nodes, random.Random(1))
    old, new = (fields.of("digits", (), version) for version in ("1", "2"))
    assert (old.pick(NOW_S) is not None, new.pick(NOW_S)) == (True, None)
    put(nodes, "n0", "digits-edge@2")
    assert (old.pick(NOW_S), new.pick(NOW_S) is not None) == (None, True)


async def of_two_versions(rig: BuildRig, start: Start, cloud_urls: list[str]) -> Rig:
    built = rig([], cloud_urls)
    for name, version in (("edge-old", "1"), ("edge-new", "2")):
        put(built.nodes, name, f"digits-edge@{version}", (await start(name)).url)
    return built


def versioned(version: str) -> Call:
    asked = call(path=f"/v2/models/digits/versions/{version}/infer")
    return msgspec.structs.replace(asked, version=version)


async def test_each_version_is_answered_by_who_has_it_and_the_cloud_has_any(rig: BuildRig, start: Start) -> None:
    big = await start("cloud", tier="cloud", answer="7")
    built = await of_two_versions(rig, start, [big.url])
    nodes: Mapping[str, str] = {"1": "edge-old", "2": "edge-new", "3": "cloud"}
    for version, name in nodes.items():
        for _ in range(5):
            settled = await built.proxy.answer(versioned(version))
            assert settled.answer.headers["Foothill-Node"] == name
    assert big.seen[0].path == "/v2/models/digits/infer"


async def test_without_a_cloud_the_caller_is_told_which_versions_there_are(rig: BuildRig, start: Start) -> None:
    built = await of_two_versions(rig, start, [])
    with pytest.raises(FoothillError, match=r"No node serves version '3' .* Served now: 1, 2\.") as refused:
        await built.proxy.answer(versioned("3"))
    assert refused.value.code == "model_not_found"


async def test_the_path_names_the_version_on_the_short_way_as_on_the_long_one(
    router: Route,  # noqa: F811
    start: Start,
) -> None:
    """Static nodes tell no version: they are asked, and what they say counts."""
    node = await start("edge-fra")
    node.confidence = None
    client: Client = await router([static("edge-fra", node.url)], [])
    for _ in range(3):
        response, _ = await client.ask("POST", "/v2/models/digits/versions/4/infer", body=b"{}")
        assert response.status == 200
    assert [seen.path for seen in node.seen] == ["/v2/models/digits/versions/4/infer"] * 3
