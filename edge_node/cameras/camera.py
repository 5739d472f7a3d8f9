"""One camera from its source to what is said of it: the newest picture, the gate, the model, the observer."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable
from typing import cast

import cv2

from contracts.camera_events import Box, StateMessage, Verdict
from contracts.errors import FoothillError
from edge_node.cameras.config import CameraConfig
from edge_node.cameras.escalation.doubts import Doubts, Terrain
from edge_node.cameras.figures import Dropped, Figures, Rate
from edge_node.cameras.gate import MotionGate
from edge_node.cameras.live import Live
from edge_node.cameras.newest import Newest
from edge_node.cameras.observers.observer import Observer
from edge_node.cameras.preparing import Preparation, Taken
from edge_node.cameras.reader import Reader
from edge_node.cameras.scene.masks import hidden
from edge_node.cameras.sources.opening import open_source
from edge_node.cameras.sources.shot import Shot
from edge_node.cameras.sources.source import Facts, Source, Tap
from edge_node.cameras.sources.stillness import Stillness
from edge_node.cameras.sources.trouble import Trouble
from edge_node.cameras.states import Change, Event, after
from edge_node.cameras.ways import Ways
from edge_node.pipelines import Looked
from runtime.serving.engines.tensors import Array
from runtime.serving.models.loaded import LoadedModel
from runtime.serving.pictures.picture import Size

log = logging.getLogger(__name__)

_LEVELS = {"high": 1, "normal": 2, "low": 3}
_DROPPED: dict[str, Dropped] = {
    "model_not_found": "no-model",
    "deadline_exceeded": "late",
    "overloaded": "busy",
    "unavailable": "no-model",
}
_TICK_S = 0.5
_END_S = 10.0


class Camera:
    """`observe` makes the observer for a model. `tap` is asked at the start for who sees what is encoded."""

    def __init__(
        self,
        config: CameraConfig,
        *,
        ways: Ways,
        observe: Callable[[LoadedModel], Observer],
        tap: Callable[[], Tap | None] = lambda: None,
        rng: random.Random | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self.figures = Figures()
        self.facts = Facts("")
        self.size = Size(0, 0)
        self.state = Change("starting", wall())
        self.fps = 0.0
        self._ways = ways
        self._observe = observe
        self._take_tap = tap
        self._tap: Tap | None = None
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._preparation = Preparation(MotionGate(config.motion, self._watched))
        self._rate = Rate()
        self.live = Live(ways.workers, config.hiding)
        self._doubts = Doubts(
            config.name, config.escalation, Terrain(config.residency, config.hiding), ways, self.figures, self.judged
        )
        self._observer: Observer | None = None
        self._observed: LoadedModel | None = None
        self._complaint = ""
        self._now: tuple[Shot, Looked] | None = None
        self._room = threading.Semaphore(1)
        self._newest: Newest[Taken] = Newest(self._loop, self._gave_way)
        self._tasks: list[asyncio.Task[None]] = []
        self.reader = Reader(
            config.name,
            self._open,
            self,
            lambda: Stillness(config.frozen_after_s, config.dark_after_s),
            config.rate,
            longest_pause_s=config.reconnect_s,
            rng=rng or random.Random(),
        )

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def shown_url(self) -> str:
        return self.config.address(self._ways.base).shown

    def start(self) -> None:
        self._tell_state()
        self._doubts.start()
        self._tap = self._take_tap()
        self.reader.start()
        self._tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._keep_time())]

    async def stop(self) -> None:
        """Ends what it says. Its thread ends by itself, after a stall at the latest; only what one alone can hold, a
        webcam, is waited for."""
        self.reader.stop()
        self._room.release()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._observer is not None:
            self._observer.end(self._wall())
        self._doubts.close()
        self._change("stopped", "", None)
        if self.config.address(self._ways.base).kind == "device":
            await asyncio.to_thread(self.reader.join, _END_S)

    def judged(self, event: str, verdict: Verdict, label: str = "") -> None:
        """What is worth what was said of an event, and what the cloud calls it."""
        if self._observer is not None:
            self._observer.judged(event, verdict, label)

    def picture(self, event: str, box: Box | None) -> None:
        """Takes a snapshot for an event that has begun in the picture of now."""
        if self._now is not None:
            self._ways.snapshots.take(self.config, event, *self._now, box)

    def happened(self, event: Event, why: str, facts: Facts | None) -> None:
        """From the reader's thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._change, event, why, facts)

    def took(self, shot: Shot) -> None:
        """From the reader's thread. Where every picture is wanted, it waits until the last one was seen. One that is
        awaited is prepared here: a change of thread costs more."""
        if self.config.pace == "every-frame":
            self._room.acquire()
        self._newest.put(self._preparation.ahead(shot) if self._newest.is_awaited else Taken(shot, None))

    async def _watch(self) -> None:
        """The story of each picture."""
        while True:
            taken = await self._newest.take()
            try:
                await self._see(taken)
            except FoothillError as error:
                self._drop(_DROPPED.get(error.code, "failed"), error.message)
            except Exception:
                log.exception("camera %s: a picture was lost", self.name)
                self._drop("failed", "a defect")
            finally:
                self._room.release()

    async def _see(self, taken: Taken) -> None:
        shot = taken.shot
        self.size = shot.size
        loaded = self._ways.pipelines.loaded(self.config.model) if self.config.model else None
        prepared = self._preparation.ready(taken, loaded)
        if prepared is None:
            prepared = await self._loop.run_in_executor(self._ways.workers, self._preparation.complete, taken, loaded)
        self.figures.gated[prepared.verdict] += 1
        if loaded is None or prepared.tensor is None:
            if self._observer is not None:
                self._observer.rested(shot.at_s)
                self._doubts.rested(shot.at_s, self._observer.subjects())
            self._show(shot)
            return
        looked = await self._ways.pipelines.run(
            self.config.model,
            {loaded.manifest.inputs[0].name: prepared.tensor},
            self.config.deadline_ms,
            priority=_LEVELS[self.config.priority],
        )
        self._note(shot, looked, moved=prepared.verdict != "refresh")

    def _note(self, shot: Shot, looked: Looked, *, moved: bool) -> None:
        self.figures.saw(max(0.0, self._wall() - shot.at_s))
        self._complain("")
        observer = self._observer_for(looked.loaded, shot.at_s)
        self._now = (shot, looked)
        observer.saw(shot, looked)
        self._doubts.saw(shot, looked, observer.subjects(), moved=moved)
        self._show(shot, looked)

    def _show(self, shot: Shot, looked: Looked | None = None) -> None:
        self.live.show(shot, self._observer.marks() if self._observer is not None else (), looked)

    def _observer_for(self, loaded: LoadedModel, at_s: float) -> Observer:
        """Another bundle may call things by other names: what it sees begins anew."""
        if self._observer is None or self._observed is not loaded:
            if self._observer is not None:
                self._observer.end(at_s)
            self._observer, self._observed = self._observe(loaded), loaded
        return self._observer

    async def _keep_time(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self.fps = self._rate.note(self.reader.seen.decoded, time.monotonic())
            if self._observer is not None and self.state.state not in ("live", "dark"):
                self._observer.passed(self._wall())
                self._doubts.rested(self._wall(), self._observer.subjects())

    def _open(self, corrupt: Callable[[], None]) -> Source:
        """In the reader's thread."""
        try:
            address, password = self.config.address(self._ways.base), self.config.login.password()
        except ValueError as error:
            raise Trouble("denied", str(error)) from error
        return open_source(address, (self.config.user, password), self.config.wishes, corrupt=corrupt, tap=self._tap)

    def _change(self, event: Event, why: str, facts: Facts | None) -> None:
        self.facts = facts or self.facts
        changed = after(self.state, event, self._wall(), why)
        if changed is self.state:
            return
        is_news = changed.state != self.state.state
        self.state = changed
        if is_news:
            log.info("camera %s: %s%s", self.name, changed.state, f": {changed.why}" if changed.why else "")
        self._tell_state()

    def _tell_state(self) -> None:
        self._ways.feed.say(
            StateMessage,
            self.name,
            self._wall(),
            state=self.state.state,
            since_at_s=self.state.since_s,
            why=self.state.why,
            url=self.shown_url,
            codec=self.facts.codec,
            hardware=self.facts.hardware,
            size=cast("tuple[int, int]", tuple(self.size)),
            fps=round(self.fps, 2),
            model=self.config.model,
        )

    def _drop(self, why: Dropped, complaint: str) -> None:
        self.figures.dropped[why] += 1
        self._complain(complaint)

    def _complain(self, complaint: str) -> None:
        """Once when it begins, and once when it is over."""
        if bool(complaint) != bool(self._complaint):
            if complaint:
                log.warning("camera %s: its pictures are not seen now: %s", self.name, complaint)
            else:
                log.info("camera %s: its pictures are seen again", self.name)
        self._complaint = complaint

    def _gave_way(self, taken: Taken) -> None:
        self.figures.given_way += 1
        self._preparation.gave_way(taken)

    def _watched(self, size: Size) -> Array | None:
        """In a thread: where motion counts, in a picture of that size."""
        masks = self.config.masks
        return cv2.bitwise_not(hidden(masks, "motion", *size)) if masks else None
