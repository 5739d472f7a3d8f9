"""The cloud's word on an event, said under the event's own name: at once, or late, even by the node's next life."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from contracts.camera_events import PictureEvent, TrackEvent, Verdict
from contracts.decoding import UNREADABLE
from edge_node.cameras.escalation.words import Asked, NoWord, Word, amended, word_of
from edge_node.cameras.feed import Feed
from edge_node.spool_file import LateAnswer
from runtime.links.escalation.late import LATE

log = logging.getLogger(__name__)

Amended = Callable[[Asked, Word, Verdict], None]
_decoder = msgspec.msgpack.Decoder(Asked)


def note_of(asked: Asked) -> bytes:
    """What `Amending.late` reads."""
    return msgspec.msgpack.encode(asked)


class Amending:
    """Says it to everybody; `hear` is told first: what goes on is called by its new name from then on."""

    def __init__(self, feed: Feed, hear: Amended) -> None:
        self._feed = feed
        self._hear = hear

    def say(self, asked: Asked, word: Word, verdict: Verdict) -> None:
        self._hear(asked, word, verdict)
        told = {
            "event": asked.event,
            "phase": "amended",
            "label": word.label,
            "score": round(word.score, 4),
            "began_at_s": asked.began_at_s,
            "verdict": verdict,
            "snapshot": asked.snapshot,
        }
        if asked.box is None:
            self._feed.say(PictureEvent, asked.camera, asked.at_s, **told)
            return
        place = {"box": word.box or asked.box, "size": asked.size, "zones": asked.zones, "track": asked.track}
        self._feed.say(TrackEvent, asked.camera, asked.at_s, **told, **place)

    def late(self, answer: LateAnswer) -> None:
        """For `Pipelines.hearers`. An answer to something else has no note."""
        if not answer.note:
            return
        try:
            asked = _decoder.decode(answer.note)
            word = word_of(answer.body, asked)
        except (*UNREADABLE, NoWord) as error:
            log.warning("the late answer to %s amends nothing: %s", answer.request_id, error)
            return
        self.say(asked, word, amended(asked, word, reason=LATE, certified=False, late=True))
