"""The doubts of one camera: each thing is judged by its best look, and the cloud is asked about what is doubtful."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from itertools import count
from typing import Any, Literal, NamedTuple

from contracts.camera_events import Box, PictureEvent, Verdict
from contracts.headers import Escalation, Terms
from contracts.predictions import NOTHING
from edge_node.cameras.escalation.alarms import Alarm
from edge_node.cameras.escalation.allowance import Allowance
from edge_node.cameras.escalation.amending import note_of
from edge_node.cameras.escalation.config import EscalationConfig
from edge_node.cameras.escalation.evidence import Evidence, Framing, evidence_of
from edge_node.cameras.escalation.novelty import Novelty
from edge_node.cameras.escalation.subjects import Look, Subject
from edge_node.cameras.escalation.triggers import (
    EMPTY,
    FUNCTION,
    UNUSUAL,
    Doubt,
    FunctionFailed,
    asked,
    load,
    sight_of,
    triggered,
)
from edge_node.cameras.escalation.windows import Windows
from edge_node.cameras.escalation.words import Asked, NoWord, amended, word_of
from edge_node.cameras.figures import Figures
from edge_node.cameras.observers.found import things_in
from edge_node.cameras.privacy import PrivacyConfig
from edge_node.cameras.sources.shot import Shot
from edge_node.cameras.ways import Ways
from edge_node.pipelines import Looked, Outcome, Seen
from runtime.links.http.upstream import Answer

log = logging.getLogger(__name__)

MOST_AT_ONCE = 16
_OURS = re.compile(r"cam\.(?P<camera>[a-z0-9-]+)-[0-9a-f]+-\d+\.\d+")

Judged = Callable[[str, Verdict], None]
"""Told of an event what the edge's word on it is worth."""


class Terrain(NamedTuple):
    """What holds for all that leaves one camera."""

    residency: tuple[str, ...] = ()
    privacy: PrivacyConfig = PrivacyConfig()


def camera_of(request_id: str) -> str:
    """The camera whose question has this id; "" where it is none of theirs."""
    told = _OURS.fullmatch(request_id)
    return told["camera"] if told is not None else ""


class Doubts:
    """`hear` is told of each verdict on the edge's word."""

    def __init__(
        self,
        camera: str,
        config: EscalationConfig,
        terrain: Terrain,
        ways: Ways,
        figures: Figures,
        hear: Judged,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._camera = camera
        self._config = config
        self._terrain = terrain
        self._ways = ways
        self._figures = figures
        self._hear = hear
        self._clock = clock
        self._framing = Framing(config.margin, config.longest_side, config.quality)
        self._windows = Windows(config)
        self._allowance = Allowance(config.bytes_per_hour, clock())
        self._novelty = Novelty(config.unusual)
        self._empty = Alarm(EMPTY, config.empty_after_s, config.again_s)
        self._unusual = Alarm(UNUSUAL, 0.0, config.again_s)
        self._function: Doubt | None = None
        self._complained = False
        self._numbers = count(1)
        self._judging = 0

    def start(self) -> None:
        if self._config.function:
            self._ways.asks.begin(self._read_function(), lambda: None)

    def saw(self, shot: Shot, looked: Looked, subjects: Sequence[Subject], *, moved: bool) -> None:
        """What the edge has made of a picture; `moved`: because something did."""
        for subject in subjects:
            due = self._windows.saw(Look(subject, shot, looked)) if subject.seen else None
            if due is not None:
                self._begin(self._judge(due))
        self._settle_gone(subjects)
        is_empty = self._config.empty_after_s > 0 and moved and not subjects
        self._sound(self._empty, is_empty, NOTHING, shot, looked)
        if self._config.features:
            labels = ",".join(sorted({subject.label for subject in subjects})) or NOTHING
            self._sound(self._unusual, self._is_unusual(looked), labels, shot, looked)

    def rested(self, at_s: float, subjects: Sequence[Subject]) -> None:
        """Nothing was looked at until then; these go on."""
        self._settle_gone(subjects)
        for alarm in (self._empty, self._unusual):
            if alarm.look(False, at_s) == "ended":
                self._still(alarm, at_s)

    def close(self) -> None:
        """What nobody has judged yet is judged now; what is being asked goes on."""
        self._settle_gone(())

    def _settle_gone(self, subjects: Sequence[Subject]) -> None:
        for look in self._windows.without(frozenset(subject.event for subject in subjects)):
            self._begin(self._judge(look))

    def _begin(self, judging: Coroutine[Any, Any, None]) -> None:
        if self._judging >= MOST_AT_ONCE:
            judging.close()
            self._figures.judged["busy"] += 1
            return
        self._judging += 1
        self._ways.asks.begin(judging, self._ended)

    def _ended(self) -> None:
        self._judging -= 1

    async def _judge(self, look: Look, why: str = "") -> None:
        """The story of one question."""
        subject = look.subject
        why = why or await self._why(look)
        seen = self._ways.pipelines.judge(
            look.looked, self._terms(subject, why), confidence=subject.confidence, answer=subject.label
        )
        verdict = seen.judged.verdict
        self._hear(subject.event, _edges(subject, why or verdict.reason, verdict.certified, verdict.degraded))
        if seen.final or not self._ways.pipelines.may_ask(seen.terms):
            self._windows.kept(subject.event)
            self._figures.judged["kept" if seen.final else "no-cloud"] += 1
            return
        evidence = await self._on_a_worker(self._evidence_of, look)
        if not self._allowance.take(len(evidence.jpeg), self._clock()):
            self._figures.judged["budget"] += 1
            self._hear(subject.event, _edges(subject, "budget", certified=False, degraded=True))
            return
        asked = self._asked(look, why, evidence)
        if not self._ways.permission.holds(asked):
            self._figures.judged["withdrawn"] += 1
            return
        essence = partial(_essence, asked)
        outcome = await self._ways.pipelines.settle(
            seen, evidence.jpeg, "image/jpeg", note=note_of(asked), essence=essence
        )
        self._take(seen, asked, outcome)

    def _take(self, seen: Seen, asked: Asked, outcome: Outcome) -> None:
        settled = outcome.settled
        if settled.tier == "cloud":
            try:
                word = word_of(settled.answer.body, asked)
            except NoWord as error:
                self._figures.judged["failed"] += 1
                self._complain(str(error))
                return
            self._figures.judged["escalated"] += 1
            verdict = amended(asked, word, reason=settled.reason, certified=settled.certified, late=False)
            self._ways.amending.say(asked, word, verdict)
            return
        became = "spooled" if outcome.late else "failed" if settled.degraded else "audited"
        self._figures.judged[became] += 1
        if settled.degraded:
            self._hear(asked.event, Verdict(reason=settled.reason, confidence=asked.confidence, degraded=True))

    async def _why(self, look: Look) -> str:
        told = triggered(look, self._config)
        if told or self._function is None:
            return told
        try:
            return FUNCTION if await self._on_a_worker(asked, self._function, sight_of(look, self._camera)) else ""
        except FunctionFailed as error:
            self._complain(f"escalation.function: {error}")
            return ""

    async def _read_function(self) -> None:
        try:
            self._function = await self._on_a_worker(load, self._config.where, self._ways.base)
        except FunctionFailed as error:
            self._complain(f"escalation.function: {error}")

    def _terms(self, subject: Subject, why: str) -> Terms:
        asked: Escalation = "always" if why and self._config.ask == "auto" else self._config.ask
        return Terms(
            deadline_ms=self._config.deadline_ms,
            escalation=asked,
            residency=self._terrain.residency,
            request_id=f"cam.{subject.event}.{next(self._numbers)}",
        )

    async def _on_a_worker(self, work: Callable[..., Any], *told: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._ways.workers, work, *told)

    def _evidence_of(self, look: Look) -> Evidence:
        box: Box | None = look.subject.box if self._config.send == "crop" else None
        return evidence_of(look.shot, box, self._framing, self._terrain.privacy, things_in(look.looked, look.shot.size))

    def _asked(self, look: Look, why: str, evidence: Evidence) -> Asked:
        subject, shot = look.subject, look.shot
        return Asked(
            camera=self._camera,
            event=subject.event,
            at_s=shot.at_s,
            label=subject.label,
            score=subject.score,
            confidence=subject.confidence,
            began_at_s=subject.began_at_s,
            size=(shot.size.width, shot.size.height),
            why=why,
            box=subject.box,
            track=subject.track,
            zones=subject.zones,
            snapshot=subject.snapshot,
            left=evidence.left,
            top=evidence.top,
            scale=evidence.scale,
            hiding=self._terrain.privacy.fingerprint,
        )

    def _is_unusual(self, looked: Looked) -> bool:
        features = looked.outputs.get(self._config.features)
        if features is None:
            self._complain(f"its model has no output {self._config.features!r}: correct escalation.features")
            return False
        return self._novelty.is_unusual(features)

    def _sound(self, alarm: Alarm, holds: bool, label: str, shot: Shot, looked: Looked) -> None:
        change = alarm.look(holds, shot.at_s)
        if change == "began":
            alarm.event, alarm.label = self._ways.event_id(self._camera), label
            self._say(alarm, "start", shot.at_s)
            subject = Subject(alarm.event, label, 0.0, None, shot.at_s)
            self._begin(self._judge(Look(subject, shot, looked), alarm.why))
        elif change == "ended":
            self._still(alarm, shot.at_s)

    def _still(self, alarm: Alarm, at_s: float) -> None:
        self._say(alarm, "end", at_s)
        alarm.event = ""

    def _say(self, alarm: Alarm, phase: Literal["start", "end"], at_s: float) -> None:
        self._ways.feed.say(
            PictureEvent,
            self._camera,
            at_s,
            event=alarm.event,
            phase=phase,
            label=alarm.label,
            began_at_s=alarm.began_s,
            verdict=Verdict(reason=alarm.why),
        )

    def _complain(self, why: str) -> None:
        """Once in the life of a camera: what is wrong here is wrong with every picture."""
        if not self._complained:
            log.warning("camera %s: %s", self._camera, why)
        self._complained = True


def _edges(subject: Subject, reason: str, certified: bool, degraded: bool) -> Verdict:
    return Verdict(reason=reason, confidence=subject.confidence, certified=certified, degraded=degraded)


def _essence(asked: Asked, answer: Answer) -> str:
    """What an audit compares: the label of this thing, and not all that the cloud sees beside it."""
    try:
        return word_of(answer.body, asked).label
    except NoWord:
        return ""
