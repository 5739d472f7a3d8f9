"""The simulator: nothing is lost, one seed is one story, and what theory knows comes out."""

from __future__ import annotations

import msgspec
import pytest

from router.simulation.case import Case, Services
from router.simulation.results import times
from router.simulation.run import FOOTHILL, HEDGED, POLICIES, Run, Simulation
from router.simulation.world import World, draw
from runtime import regions

TABLE = regions.load()
SMALL = Case(nodes=12, requests=1500, warm_up_s=1.0)


def ran(policy: str, case: Case = SMALL, seed: int = 1) -> Run:
    return Simulation(draw(case, TABLE, seed), policy, seed).run()


@pytest.mark.parametrize("policy", POLICIES)
def test_every_request_is_answered_once_and_nothing_is_left(policy: str) -> None:
    found = ran(policy, msgspec.structs.replace(SMALL, slow_share=0.05))
    assert (len(found.samples), found.failed, found.left) == (SMALL.requests, 0, 0)
    assert all(sample.took_ms > 0 for sample in found.samples)


@pytest.mark.parametrize("policy", [FOOTHILL, HEDGED, "p2c"])
def test_a_seed_tells_one_story(policy: str) -> None:
    assert ran(policy).samples == ran(policy).samples
    assert ran(policy).samples != ran(policy, seed=2).samples


def test_refused_requests_go_elsewhere_or_are_counted() -> None:
    case = msgspec.structs.replace(SMALL, mishap="failing")
    for policy in (FOOTHILL, "fastest-so-far", "round-robin"):
        found = ran(policy, case)
        assert len(found.samples) + found.failed == case.requests
        assert found.refused_s
        assert found.left == 0


def test_failing_fast_does_not_look_fast() -> None:
    case = msgspec.structs.replace(SMALL, mishap="failing", area="europe")
    assert len(ran(FOOTHILL, case).refused_s) < len(ran("fastest-so-far", case).refused_s) / 5


def test_a_node_that_joins_is_used() -> None:
    case = msgspec.structs.replace(SMALL, mishap="joining", area="europe", routers=1)
    world = draw(case, TABLE, 1)
    assert any(sample.node == world.sick for sample in Simulation(world, FOOTHILL, 1).run().samples)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nobody_beats_the_oracle(seed: int) -> None:
    case = msgspec.structs.replace(SMALL, area="europe")
    oracle_ms = times(ran("oracle", case, seed)).mean_ms
    for policy in (FOOTHILL, "own-in-flight", "p2c", "least-connections"):
        assert times(ran(policy, case, seed)).mean_ms > 0.97 * oracle_ms


def waited_ms(case: Case, seed: int) -> float:
    """The mean time at the one node, without the way."""
    world = draw(case, TABLE, seed)
    ways_ms = [world.rtt_ms[0][0] * (1.0 + request.jitter) for request in world.requests]
    found = Simulation(world, "round-robin", seed).run()
    return times(found).mean_ms - sum(ways_ms) / len(ways_ms)


@pytest.mark.parametrize(
    ("services", "expected_ms"), [("exponential", 40.0 / (1 - 0.6)), ("constant", 40.0 * (1 + 0.6 / (2 * (1 - 0.6))))]
)
def test_one_node_waits_as_queueing_theory_says(services: Services, expected_ms: float) -> None:
    """M/M/1: s / (1 - load). M/D/1, by Pollaczek and Khinchine: s (1 + load / (2 (1 - load)))."""
    case = Case(nodes=1, routers=1, spread=1.0, load=0.6, services=services, area="europe", requests=8_000)
    found_ms = sum(waited_ms(case, seed) for seed in range(1, 4)) / 3
    assert found_ms == pytest.approx(expected_ms, rel=0.08)


def test_hedges_keep_their_budget_and_shorten_the_tail() -> None:
    case = Case(
        nodes=8, routers=2, requests=5000, warm_up_s=2.0, slow_share=0.05, load=0.5, area="europe", services="constant"
    )
    plain, hedged = ran(FOOTHILL, case), ran(HEDGED, case)
    assert 0 < hedged.hedges <= 0.02 * case.requests
    assert times(hedged).p999_ms < times(plain).p999_ms


def test_slow_nodes_are_slow_while_it_lasts() -> None:
    case = msgspec.structs.replace(SMALL, slow_share=0.05, requests=4000)
    assert times(ran("round-robin", case)).mean_ms > times(ran("round-robin", SMALL)).mean_ms


def test_a_world_has_the_load_that_was_asked_for() -> None:
    world: World = draw(Case(requests=20_000, load=0.7, lanes=2), TABLE, 5)
    could = 2 * sum(1000.0 / each for each in world.mean_ms)
    rate = len(world.requests) / world.requests[-1].at_s
    assert rate / could == pytest.approx(0.7, rel=0.03)
    assert sum(request.size for request in world.requests) / len(world.requests) == pytest.approx(1.0, rel=0.03)


@pytest.mark.parametrize(("routers", "area"), [(1, "world"), (4, "world"), (16, "world"), (16, "europe")])
def test_every_router_has_requests_and_every_node_a_zone(routers: int, area: str) -> None:
    world = draw(Case(routers=routers, area=area, requests=4000), TABLE, 1)
    assert {request.router for request in world.requests} == set(range(routers))
    assert sorted(node for zone in world.zones for node in zone) == list(range(32))
    with pytest.raises(KeyError, match="atlantis"):
        draw(Case(area="atlantis"), TABLE, 1)
