"""What the cloud's answers say of what was asked."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from contracts.predictions import Box as Thing
from contracts.predictions import Classification, Detection, Embedding, Scored
from edge_node.cameras.escalation.words import Asked, NoWord, Word, amended, word_of

STAMP: dict[str, Any] = {
    "model": "things", "bundle": "things@1", "confidence": None, "tier": "cloud", "node": "c", "reason": "doubtful",
    "request_id": "r",
}  # fmt: skip
BOX = (100.0, 100.0, 140.0, 180.0)


def asked(**changes: Any) -> Asked:
    told = {"camera": "door", "event": "door-1-1", "at_s": 1.0, "label": "person", "score": 0.4, "confidence": None}
    return msgspec.convert({**told, "began_at_s": 0.5, "size": (640, 480), "box": BOX, "track": 1, **changes}, Asked)


def answer(*things: Thing) -> bytes:
    return msgspec.json.encode(Detection(objects=things, **STAMP))


def word(told: bytes, **changes: Any) -> Word:
    return word_of(told, asked(**changes))


def test_the_thing_that_says_the_same_is_taken_among_those_that_overlap() -> None:
    better = Thing("bicycle", 0.9, (100.0, 100.0, 140.0, 180.0))
    same = Thing("person", 0.6, (105.0, 95.0, 145.0, 175.0))
    assert word(answer(better, same)) == Word("person", 0.6, (105.0, 95.0, 145.0, 175.0))
    assert word(answer(better)).label == "bicycle"


def test_what_lies_elsewhere_is_about_something_else() -> None:
    assert word(answer(Thing("person", 0.9, (300.0, 100.0, 340.0, 180.0)))) == Word("none", 0.0)
    assert word(answer()).label == "none"


def test_boxes_in_a_crop_are_told_in_the_picture_and_within_it() -> None:
    told = word(answer(Thing("person", 0.9, (5.0, 5.0, 30.0, 45.0))), left=90, top=90, scale=2.0)
    assert told == Word("person", 0.9, (100.0, 100.0, 150.0, 180.0))
    told = word(answer(Thing("person", 0.9, (0.0, 0.0, 90.0, 90.0))), left=600, top=440, box=(600, 440, 640, 480))
    assert told.box == (600.0, 440.0, 640.0, 480.0)


def test_a_classifier_names_the_crop() -> None:
    told = msgspec.json.encode(Classification(label="cat", score=0.8, top=(Scored("cat", 0.8),), **STAMP))
    assert word(told) == Word("cat", 0.8)


def test_of_a_whole_picture_all_labels_are_told_once() -> None:
    things = [Thing(label, score, BOX) for label, score in (("dog", 0.3), ("cat", 0.9), ("dog", 0.5))]
    assert word(answer(*things), box=None) == Word("cat,dog", 0.9)
    assert word(answer(), box=None) == Word("none", 0.0)


@pytest.mark.parametrize(
    "body", [b"", b"not JSON", b"{}", b'{"task":"detection"}', msgspec.json.encode(Embedding(vector=(1.0,), **STAMP))]
)
def test_what_says_nothing_of_labels_is_no_word(body: bytes) -> None:
    with pytest.raises(NoWord, match="the cloud"):
        word(body)


def test_the_verdict_tells_what_the_edge_had_said_only_where_it_was_something_else() -> None:
    other = amended(asked(), Word("dog", 0.9), reason="doubtful", certified=True, late=False)
    assert (other.edge_label, other.reason, other.certified, other.tier) == ("person", "doubtful", True, "cloud")
    same = amended(asked(why="below"), Word("person", 0.9), reason="asked-always", certified=False, late=True)
    assert (same.edge_label, same.reason, same.late) == ("", "below", True)
