"""What a request needs of a node beside its model: who has not all of it never gets the request; the cloud may."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import headers
from contracts.headers import Terms
from contracts.messages import Status
from router.fields import Fields
from router.nodes import Nodes
from tests.router.rig import DUBLIN, TOKYO, Server, Start, static
from tests.router.test_app import Client, Route, cloud, edge, refusal_of, router
from tests.router.test_selection import NOW_S, identity
from tests.router.test_shortcut import short
from tests.router.test_versions import put

__all__ = ["cloud", "edge", "router", "short"]

some = st.frozensets(st.sampled_from(["gpu", "hd", "roof"]))


@given(st.lists(some, max_size=5), some)
def test_only_nodes_with_all_of_it_are_picked(has: list[frozenset[str]], needed: frozenset[str]) -> None:
    nodes = Nodes(DUBLIN)
    for at, names in enumerate(has):
        put(nodes, f"n{at}", "digits-edge@1")
        nodes.put_status(Status(f"n{at}", 1, "online", tuple(names)), NOW_S)
    field = Fields(nodes, random.Random(1)).of("digits", (), capabilities=tuple(sorted(needed)))
    found, tried = set(), set[str]()
    while (picked := field.pick(NOW_S, tried=tried)) is not None:
        tried.add(picked.node.name)
        found.add(picked.node.capabilities)
    assert found == {names for names in has if names >= needed}
    last = field.last(NOW_S)
    assert last is None if not found else last is not None and last.node.capabilities >= needed


def test_a_node_that_says_another_word_changes_fields() -> None:
    nodes = Nodes(DUBLIN)
    put(nodes, "n0", "digits-edge@1")
    field = Fields(nodes, random.Random(1)).of("digits", (), capabilities=("gpu",))
    assert field.pick(NOW_S) is None
    nodes.put_status(Status("n0", 1, "online", ("gpu", "hd")), NOW_S)
    assert field.pick(NOW_S) is not None
    nodes.put_status(Status("n0", 2, "online"), NOW_S)
    assert field.pick(NOW_S) is None


@pytest.mark.parametrize(
    ("residency", "version", "needs", "code", "told"),
    [
        (("eu",), "", ("gpu",), "model_not_found", "that may have the request has all of: gpu"),
        (("asia",), "", ("gpu",), "residency_denied", "Nothing inside asia"),
        (("us",), "", ("gpu",), "residency_denied", "Nothing inside us serves model 'digits' now"),
        ((), "2", ("gpu",), "model_not_found", "has all of: gpu"),
        ((), "3", ("gpu",), "model_not_found", "No node serves version '3'"),
        ((), "", ("gpu",), "unavailable", "are away"),
        ((), "", (), "unavailable", "are away"),
    ],
)
def test_what_shuts_a_request_out_is_told(
    residency: tuple[str, ...], version: str, needs: tuple[str, ...], code: str, told: str
) -> None:
    """In eu there is version 2, without a GPU; in us version 1, with one; all of them are away."""
    nodes = Nodes(DUBLIN)
    for name, region, bundle, names in [("n0", "eu", "2", ()), ("n1", "us", "1", ("gpu",))]:
        put(nodes, name, f"digits-edge@{bundle}")
        nodes.put_identity(msgspec.structs.replace(identity(name), region=region))
        nodes.put_status(Status(name, 1, "offline", names), NOW_S)
    refused = nodes.nowhere("digits", Terms(residency=residency, capabilities=needs), version)
    assert refused.code == code
    assert told in refused.message


def test_what_a_static_node_has_is_the_operators_word() -> None:
    nodes = Nodes(DUBLIN, [msgspec.structs.replace(static("s", "http://x:1"), capabilities=("gpu",))])
    nodes.put_status(Status("s", 1, "online"), NOW_S)
    assert nodes.all()[0].capabilities == {"gpu"}


async def far_one_with_a_gpu(router: Route, start: Start, edge: Server, cloud_urls: list[str]) -> Client:
    other = await start("edge-tok")
    far = msgspec.structs.replace(static("edge-tok", other.url, TOKYO), capabilities=("gpu", "hd"))
    return await router([static("edge-fra", edge.url), far], cloud_urls)


async def test_the_near_node_is_passed_over_on_the_long_way_and_the_short_one(
    router: Route, start: Start, edge: Server, short: list[bool]
) -> None:
    client = await far_one_with_a_gpu(router, start, edge, [])
    for sent in [{headers.CAPABILITIES: "HD, gpu"}] * 3 + [{}]:
        response, told = await client.predict(sent)
        assert response.status == 200, told
        assert response.headers[headers.NODE] == ("edge-tok" if sent else "edge-fra")
    assert short == [False, True, True, False]


async def test_where_no_node_has_it_the_cloud_is_asked_or_the_caller_is_told(
    router: Route, start: Start, edge: Server, cloud: Server
) -> None:
    needs = {headers.CAPABILITIES: "gpu, roof"}
    client = await far_one_with_a_gpu(router, start, edge, [cloud.url])
    response, _ = await client.predict(needs)
    assert (response.status, response.headers[headers.TIER]) == (200, "cloud")
    alone = await far_one_with_a_gpu(router, start, edge, [])
    response, body = await alone.predict(needs)
    refused = refusal_of(response, body)
    assert (response.status, refused.code) == (404, "model_not_found")
    assert "has all of: gpu, roof." in refused.message


async def test_leases_and_explanations_keep_to_it(router: Route, start: Start, edge: Server) -> None:
    client = await far_one_with_a_gpu(router, start, edge, [])
    response, body = await client.ask(
        "POST", "/v1/route", sent={headers.CAPABILITIES: "gpu"}, body=msgspec.json.encode({"model": "digits"})
    )
    assert [node["node"] for node in msgspec.json.decode(body)["nodes"]] == ["edge-tok"], response.status
    told = await client.json("GET", "/v1/explain?model=digits&capabilities=gpu")
    found = {each["node"]: each for each in told["candidates"]}
    assert (told["capabilities"], told["proxied_to"]) == (["gpu"], "edge-tok")
    assert found["edge-fra"]["proxied_refusal"] == found["edge-fra"]["leased_refusal"] == "not-capable"
    assert found["edge-tok"]["capabilities"] == ["gpu", "hd"]


@pytest.mark.parametrize("told", ["", "gpu,", "GPU!", ",".join(f"c{n}" for n in range(33)), "a" * 64])
async def test_names_out_of_form_are_refused(router: Route, edge: Server, told: str) -> None:
    client = await router([static("edge-fra", edge.url)], [])
    response, body = await client.predict({headers.CAPABILITIES: told})
    assert refusal_of(response, body).code == "bad_header"
    assert not edge.seen
