"""How nodes are cut into stages, and what no policy may say."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import FoothillError
from fleet.rollouts.plan import Policy, plan_stages

TEN = [f"n{number}" for number in range(10)]


def test_stages_count_what_there_is_after_them() -> None:
    assert [len(stage) for stage in plan_stages(TEN, (1, "50%"))] == [1, 4, 5]


def test_stages_that_add_nobody_are_left_out() -> None:
    assert [len(stage) for stage in plan_stages(TEN, (3, "10%", 200, "100%"))] == [3, 7]


@given(st.integers(1, 40), st.lists(st.one_of(st.integers(1, 50), st.integers(1, 100).map("{}%".format)), max_size=6))
def test_every_node_is_in_one_stage(count: int, stages: list[int | str]) -> None:
    names = [f"n{number}" for number in range(count)]
    assert [name for stage in plan_stages(names, stages) for name in stage] == names


@pytest.mark.parametrize("stage", [0, -1, "0%", "101%", "ten", "%", "1000%", "", "5"])
def test_what_is_no_stage_is_refused(stage: int | str) -> None:
    with pytest.raises(FoothillError, match="neither a number of nodes nor a percentage"):
        plan_stages(TEN, (stage,))


@pytest.mark.parametrize(
    "text",
    [
        '{"max_parallel": -1}',
        '{"min_healthy_s": 300, "healthy_deadline_s": 300}',
        '{"healthy_deadline_s": 0}',
        '{"bake_s": 1e300}',
        '{"max_surge": 1}',
    ],
)
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=Policy)
