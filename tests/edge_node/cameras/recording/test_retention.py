"""Which clips go, against a model that looks at all of them each time."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edge_node.cameras.recording.clip import ClipName
from edge_node.cameras.recording.config import Limits
from edge_node.cameras.recording.retention import DAY_S, SET_CLOCK_S, Bounds, Kept, Ledger, SettledClock

CAMERAS = ("gate", "yard", "door")
NOW_S = 1_800_000_000.0
NODE = Bounds(keep_days=10.0, keep_bytes=1000)
OWN = {
    "gate": Limits(on=True, pre_s=1, post_s=1, longest_s=9, ring_bytes=1, keep_days=3.0, keep_bytes=300),
    "yard": Limits(on=True, pre_s=1, post_s=1, longest_s=9, ring_bytes=1, keep_days=30.0),
}
STEMS = [f"08000{number}-e" for number in range(8)]
CLIPS = st.builds(
    Kept,
    st.one_of(st.floats(NOW_S - 40 * DAY_S, NOW_S), st.floats(0, 1e6), st.sampled_from([NOW_S, NOW_S - 3 * DAY_S])),
    st.builds(ClipName, st.sampled_from(CAMERAS), st.just("2027-01-15"), st.sampled_from(STEMS)),
    st.integers(1, 200),
    st.booleans(),
)


class LedgerMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.ledger = Ledger(NODE, OWN)
        self.model: dict[ClipName, Kept] = {}

    @rule(kept=CLIPS)
    def add(self, kept: Kept) -> None:
        self.ledger.add(kept)
        self.model[kept.name] = kept

    @rule(kept=CLIPS)
    def remove(self, kept: Kept) -> None:
        self.ledger.remove(kept.name)
        self.model.pop(kept.name, None)

    @rule(now_s=st.floats(NOW_S, NOW_S + 40 * DAY_S))
    def expire(self, now_s: float) -> None:
        days = {"gate": 3.0, "yard": 10.0, "door": 10.0}
        overdue = self.ledger.overdue(now_s)
        assert set(overdue) == {
            kept
            for kept in self.model.values()
            if not kept.keep and kept.at_s >= SET_CLOCK_S and now_s - kept.at_s > days[kept.name.camera] * DAY_S
        }
        for kept in overdue:
            self.remove(kept)

    @rule(now_s=st.floats(0, 1e6))
    def expire_by_a_clock_that_was_never_set(self, now_s: float) -> None:
        assert self.ledger.overdue(now_s) == []

    @rule(camera=st.sampled_from(CAMERAS), more=st.integers(0, 400), missing=st.integers(-500, 600))
    def make_way(self, camera: str, more: int, missing: int) -> None:
        goes = self.ledger.way_for(camera, more, more, missing)
        may_go = [kept for kept in self.model.values() if not kept.keep]
        if goes is None:
            after_all = [kept for kept in self.model.values() if kept.keep]
            assert not self._fits(camera, more, after_all) or missing > sum(kept.bytes for kept in may_go)
            return
        assert set(goes) <= set(may_go)
        assert len(set(goes)) == len(goes)
        left = [kept for kept in self.model.values() if kept not in goes]
        assert self._fits(camera, more, left)
        assert missing <= sum(kept.bytes for kept in goes)
        self._assert_no_more_than_needed(camera, more, missing, goes)
        for kept in goes:
            self.remove(kept)

    def _fits(self, camera: str, more: int, clips: list[Kept]) -> bool:
        own = sum(kept.bytes for kept in clips if kept.name.camera == camera)
        return sum(kept.bytes for kept in clips) + more <= 1000 and (camera != "gate" or own + more <= 300)

    def _assert_no_more_than_needed(self, camera: str, more: int, missing: int, goes: list[Kept]) -> None:
        """Without the last of them it would not be enough; of each group the oldest went."""
        if goes:
            left = [kept for kept in self.model.values() if kept not in goes[:-1]]
            assert not (self._fits(camera, more, left) and missing <= sum(kept.bytes for kept in goes[:-1]))
        for gone in goes:
            older = [kept for kept in self.model.values() if not kept.keep and kept < gone and kept not in goes]
            assert all(gone.name.camera == camera == "gate" != kept.name.camera for kept in older)

    @invariant()
    def the_sums_are_right(self) -> None:
        assert self.ledger.bytes == sum(kept.bytes for kept in self.model.values())
        for camera in CAMERAS:
            own = [kept.bytes for kept in self.model.values() if kept.name.camera == camera]
            assert self.ledger.of(camera) == sum(own)
        assert list(self.ledger.newest_first()) == sorted(self.model.values(), reverse=True)


LedgerMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestLedger = LedgerMachine.TestCase


@pytest.mark.parametrize("leap_s", [3600.0, -3600.0, 1e9])
def test_a_clock_is_believed_again_once_it_has_run_evenly(leap_s: float) -> None:
    clock = SettledClock(NOW_S, 0.0)
    assert not clock.believed(NOW_S + 599, 599)
    assert clock.believed(NOW_S + 600, 600)
    assert not clock.believed(NOW_S + 700 + leap_s, 700)
    assert not clock.believed(NOW_S + 1299 + leap_s, 1299)
    assert clock.believed(NOW_S + 1300 + leap_s, 1300)


def test_a_clock_that_is_nudged_stays_believed() -> None:
    clock = SettledClock(NOW_S, 0.0)
    assert clock.believed(NOW_S + 600 + 2.0, 600)
