"""An explanation says what the router does: the same refusals, the same times, the same choice."""

from __future__ import annotations

import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from contracts.messages import Load
from router.cli import app
from router.explain import Asked, Candidate, Explanation, best_leased, best_proxied, candidates
from router.explained import show
from router.fields import Field
from router.node import Node
from router.nodes import Nodes
from router.places.located import Caller
from router.places.round_trips import RoundTrips
from router.selection import Query
from tests.router.rig import ASHBURN, DUBLIN, FRANKFURT, TOKYO, Server, static
from tests.router.test_app import Client, Route, edge, refusal_of, router

__all__ = ["edge", "router"]

NOWHERE = Caller(None, None)
PLACES = (FRANKFURT, ASHBURN, TOKYO, DUBLIN)
NOW_S = 100.0


def table(count: int = 4) -> Nodes:
    return Nodes(DUBLIN, [static(f"n{at}", f"http://n{at}:1", PLACES[at % 4], region=f"r{at}") for at in range(count)])


def explained(nodes: Nodes, asked: Asked) -> dict[str, Candidate]:
    return {each.node: each for each in candidates(nodes, asked, NOWHERE, RoundTrips(), NOW_S)}


nodes_told = st.lists(
    st.fixed_dictionaries(
        {
            "own": st.integers(0, 30),
            "others": st.integers(0, 30),
            "service_ms": st.sampled_from([0.0, 1.0, 8.0, 40.0]),
            "failed": st.integers(0, 3),
            "most": st.sampled_from([1024.0, 4.0]),
            "back_s": st.sampled_from([None, 0.5, 5.0]),
            "sure": st.sampled_from([1.0, 1.5, 4.0]),
        }
    ),
    min_size=4,
    max_size=4,
)


def told_of(node: Node, told: dict[str, float | None]) -> None:
    own, others, back_s = int(told["own"] or 0), told["others"] or 0, told["back_s"]
    for _ in range(int(told["failed"] or 0)):
        node.reserve(NOW_S)
        node.release("failed", NOW_S)
    for _ in range(own):
        node.reserve(NOW_S)
    node.note_load(Load(node.name, 1, own + int(others), 0.0, told["service_ms"] or 0.0), NOW_S)
    node.most, node.sure = told["most"] or 0.0, told["sure"] or 0.0
    node.learned_s = NOW_S  # nobody needs a trial
    node.since_s = NOW_S - back_s if back_s is not None else None


@given(nodes_told, st.sampled_from([None, 5.0, 60.0, 400.0]), st.sampled_from([0, 600_000]))
def test_it_names_the_node_that_would_be_picked(
    told: list[dict[str, float | None]], deadline_ms: float | None, size_bytes: int
) -> None:
    nodes = table()
    for node, figures in zip(nodes.all(), told, strict=True):
        told_of(node, figures)
    asked = Asked("digits", (), deadline_ms, size_bytes)
    found = candidates(nodes, asked, NOWHERE, RoundTrips(), NOW_S)
    left_ms = deadline_ms if deadline_ms is not None else float("inf")
    picked = Field(nodes, Query("digits"), random.Random(1)).pick(NOW_S, left_ms, size_bytes)
    if picked is None:
        assert best_proxied(found) == ""
        assert all(each.proxied_refusal for each in found)
        return
    of = {each.node: each for each in found}
    assert of[picked.node.name].proxied_refusal is None
    proxied = of[picked.node.name].proxied
    assert proxied.total_ms - proxied.failures_ms == pytest.approx(picked.expected_ms)
    assert of[best_proxied(found)].proxied.total_ms <= proxied.total_ms + 1e-9


@given(nodes_told)
def test_every_total_is_the_sum_of_its_terms(told: list[dict[str, float | None]]) -> None:
    nodes = table()
    for node, figures in zip(nodes.all(), told, strict=True):
        told_of(node, figures)
    for each in explained(nodes, Asked("digits", size_bytes=600_000)).values():
        for way in (each.leased, each.proxied):
            waiting = max(1.0, each.own_in_flight + each.others_in_flight + 1 - way.drained)
            assert way.waiting == pytest.approx(waiting)
            total_ms = way.rtt_ms + way.transfer_ms + way.service_ms * way.waiting + way.failures_ms
            assert way.total_ms == pytest.approx(total_ms)
            assert way.within_ms == pytest.approx((way.total_ms - way.failures_ms) * each.sure)
        assert (each.proxied.transfer_ms > 0, each.leased.transfer_ms) == (True, 0.0)


def test_a_node_that_is_full_or_late_is_refused_to_the_proxy_and_not_to_leases() -> None:
    nodes = table()
    first, second, *_ = nodes.all()
    first.reserve(NOW_S)
    first.most = 1.0
    second.note_load(Load(second.name, 1, 50, 0.0, 40.0), NOW_S)
    found = explained(nodes, Asked("digits", deadline_ms=1000.0))
    assert [found[node.name].proxied_refusal for node in (first, second)] == ["full", "late"]
    assert [found[node.name].leased_refusal for node in (first, second)] == [None, None]
    assert explained(nodes, Asked("digits"))[second.name].proxied_refusal is None


def shown(found: Explanation) -> list[str]:
    out = io.StringIO()
    show(found, Console(file=out, width=100))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_the_table_tells_every_term_and_refusal_within_100_columns() -> None:
    nodes = Nodes(DUBLIN, [static("edge-frankfurt-01", "http://a:1"), static("b", "http://b:1", TOKYO, region="ap")])
    first = nodes.all()[0]
    told_of(
        first,
        {"own": 7, "others": 3, "service_ms": 8.0, "failed": 1, "most": 9.0, "back_s": 4.0, "sure": 1.5},
    )
    asked = Asked("digits", ("eu-central",), 20.0, 600_000)
    found = candidates(nodes, asked, NOWHERE, RoundTrips(), NOW_S)
    claim, by_whom = ("eu-central",), ("router", "", "", None, None, "")
    lines = shown(Explanation("digits", *by_whom, claim, 20.0, 600_000, False, "", "", "", found, ("x",)))  # type: ignore[arg-type]
    assert max(map(len, lines)) <= 100
    text = "\n".join(lines)
    proxied = explained(nodes, asked)[first.name].proxied
    for term in (proxied.rtt_ms, proxied.transfer_ms, proxied.service_ms, proxied.failures_ms, proxied.total_ms):
        assert f" {term:.1f}" in text
    assert f"7+3.0+1-{proxied.drained:.1f}" in text
    assert "slow start 40%" in text
    assert "late" in text
    assert text.count("outside-residency") == 2
    assert "best for a lease: no node; best for a proxied request: no node" in text
    assert "without a verified identity: x" in text
    assert best_leased(found) == first.name


async def test_the_route_takes_a_deadline_and_a_size_in_the_words_of_the_headers(router: Route, edge: Server) -> None:
    client: Client = await router([static("edge-fra", edge.url)], [])
    told = await client.json("GET", "/v1/explain?model=digits&deadline_ms=1.5&bytes=600000")
    assert (told["deadline_ms"], told["size_bytes"], told["proxied_to"], told["leased_to"]) == (
        1.5,
        600_000,
        "",
        "edge-fra",
    )
    assert told["candidates"][0]["proxied_refusal"] == "late"
    for query in ("deadline_ms=0", "deadline_ms=soon", "bytes=-1", "bytes=many", "bytes="):
        response, body = await client.ask("GET", f"/v1/explain?model=digits&{query}")
        assert refusal_of(response, body).code in ("bad_header", "bad_request")


def test_the_command_says_what_it_cannot_ask_for(unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    negative = CliRunner().invoke(app, ["explain", "digits", "--bytes", "-1", "--url", url])
    assert negative.exit_code == 2
