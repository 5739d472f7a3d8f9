"""Rounds are interleaved, and a ratio is one of each round."""

from __future__ import annotations

import numpy as np

from benchmarks.rounds import Case, Profile, Ratio, Run, interleaved, percentile_ms, ratio


def run(*latencies_ms: float, cpu_s: float = 1.0) -> Run:
    return Run(1.0, cpu_s, 0.0, np.array(latencies_ms))


async def test_every_round_takes_all_cases_and_turns_their_order_round() -> None:
    asked: list[tuple[str, float]] = []

    def case(name: str) -> Case:
        async def measured(seconds: float) -> Run:
            asked.append((name, seconds))
            return run(1.0)

        return measured

    profile = Profile(rounds=3, seconds=0.5, warm_s=0.1)
    rounds = await interleaved({name: case(name) for name in "abc"}, profile, children=())
    assert "".join(name for name, _ in asked) == "abc" + "abc" + "cba" + "abc"
    assert [seconds for _, seconds in asked] == [0.1] * 3 + [0.5] * 9
    assert [len(each) for each in rounds.runs.values()] == [3, 3, 3]
    assert len(rounds.meanwhile) == 3


def test_a_ratio_compares_within_each_round() -> None:
    slow, fast = [run(4.0), run(40.0), run(6.0)], [run(2.0), run(10.0), run(2.0)]
    assert ratio(slow, fast, lambda each: each.p50_ms) == Ratio(median=3.0, low=2.0, high=4.0)


def test_a_request_costs_its_share_of_the_cpu_time() -> None:
    assert run(1.0, 1.0, 1.0, 1.0, cpu_s=0.002).cpu_us == 500.0


def test_percentiles_are_those_of_all_rounds_together() -> None:
    assert percentile_ms([run(1.0, 2.0), run(3.0)], 50) == 2.0
