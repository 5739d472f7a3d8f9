"""When a doubt about whole pictures begins and ends."""

from __future__ import annotations

import pytest

from edge_node.cameras.escalation.alarms import Alarm


def test_it_begins_once_it_has_held_and_again_after_a_while() -> None:
    alarm = Alarm("why", after_s=2.0, again_s=10.0)
    assert [alarm.look(True, at_s) for at_s in (0.0, 1.0, 2.0)] == [None, None, "began"]
    alarm.event = "e"
    assert [alarm.look(True, 3.0), alarm.look(False, 4.0)] == [None, "ended"]
    alarm.event = ""
    assert [alarm.look(True, at_s) for at_s in (5.0, 8.0, 12.0)] == [None, None, "began"]
    assert alarm.began_s == 12.0


@pytest.mark.parametrize("set_to_s", [0.0, 50.0])
def test_a_clock_that_is_set_back_does_not_silence_it(set_to_s: float) -> None:
    alarm = Alarm("why", after_s=2.0, again_s=10.0)
    alarm.look(True, 1000.0)
    assert alarm.look(True, 1002.0) == "began"
    assert alarm.look(False, set_to_s) is None
    assert alarm.look(True, set_to_s + 1.0) is None
    assert alarm.look(True, set_to_s + 9.0) is None
    assert alarm.look(True, set_to_s + 10.0) == "began"
