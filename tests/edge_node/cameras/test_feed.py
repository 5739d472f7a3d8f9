"""Everything that is said, in one order; a listener that fails keeps nobody from hearing."""

from __future__ import annotations

import logging
from typing import NoReturn

import msgspec
import pytest

from contracts.camera_events import RuleEvent
from edge_node.cameras.feed import Feed, Said


def test_what_is_filled_in_is_what_everybody_hears() -> None:
    feed, heard = Feed("fra", 1), list[Said]()
    feed.listeners.append(heard.append)
    feed.completers.append(lambda message: msgspec.structs.replace(message, clip="/here"))
    said = feed.say(RuleEvent, "door", 1.0, event="e", phase="start", rule="r")
    assert said.clip == "/here"
    assert heard[0].message == said
    assert b'"clip":"/here"' in heard[0].body
    assert feed.latest(1) == heard


def test_a_completer_or_a_listener_that_fails_costs_no_message(caplog: pytest.LogCaptureFixture) -> None:
    feed, heard = Feed("fra", 1), list[Said]()

    def fail(_: object) -> NoReturn:
        raise RuntimeError("a defect")

    feed.completers.append(fail)
    feed.listeners += [fail, heard.append]
    feed.say(RuleEvent, "door", 1.0, event="e", phase="start", rule="r")
    assert [said.message.sequence for said in heard] == [1]
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
