"""Clips cut around events: asked for anywhere, written on one thread, as the pictures come."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from edge_node.cameras.recording.config import Limits
from edge_node.cameras.recording.cutter import Cutter, Wanted
from edge_node.cameras.recording.metrics import RecordingCounts
from edge_node.cameras.recording.ring import Ring
from edge_node.cameras.recording.shelf import Shelf

log = logging.getLogger(__name__)

MOST_WAITING = 1024
LONGEST_POST_S = 3600.0
CLOSE_S = 10.0
_TURN_S = 0.5
_EXPIRE_S = 60.0


class Clips:
    """`watch`, `forget` and `want` are for one thread, the event loop's; none of them blocks."""

    def __init__(self, shelf: Shelf, counts: RecordingCounts, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._shelf = shelf
        self._counts = counts
        self._clock = clock
        self._cutters: dict[str, Cutter] = {}
        self._left: list[Cutter] = []
        self._wanted: deque[tuple[Cutter, Wanted]] = deque()
        self._woken, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="clips", daemon=True)
        self._expired_s = clock()
        self._said = ""

    def start(self) -> None:
        """Once or more often."""
        if not self.begun:
            self._thread.start()

    @property
    def begun(self) -> bool:
        return self._thread.ident is not None

    def close(self) -> None:
        """Ends what is being written where it is, for ten seconds at most: a disk that hangs must not keep the process.
        Blocks."""
        self._closing.set()
        self._woken.set()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_S)

    def watch(self, camera: str, ring: Ring, limits: Limits) -> None:
        """What was asked for of a camera that had this name before is finished."""
        self.forget(camera)
        self._cutters[camera] = Cutter(camera, ring, limits, self._shelf, self._counts, self._tell, self._clock)

    def forget(self, camera: str) -> None:
        """What was asked for before of a camera is finished."""
        gone = self._cutters.pop(camera, None)
        if gone is not None:
            self._left.append(gone)
            self._woken.set()

    def want(
        self, camera: str, event: str, at_s: float, *, pre_s: float | None = None, post_s: float | None = None
    ) -> bool:
        """Asks for a clip from `pre_s` before `at_s`, unix time, to `post_s` after; None: as the camera's limits say.

        No more before than those say, and an hour after. False where no clip will come of it.
        """
        cutter = self._cutters.get(camera)
        if cutter is None or len(self._wanted) >= MOST_WAITING or self._closing.is_set():
            self._counts.drop("camera" if cutter is None else "busy")
            return False
        limits = cutter.limits
        before_s = limits.pre_s if pre_s is None else min(pre_s, limits.pre_s)
        after_s = limits.post_s if post_s is None else min(post_s, LONGEST_POST_S)
        if cutter.ring.refused:
            self._counts.drop("codec")
            return False
        self._wanted.append((cutter, Wanted(event, at_s, before_s, after_s)))
        self._woken.set()
        return True

    def is_coming(self, camera: str, event: str) -> bool:
        """Whether a clip of that event is asked for, or being written. For any thread."""
        waiting = any(cutter.camera == camera and wanted.event == event for cutter, wanted in tuple(self._wanted))
        return waiting or any(cutter.camera == camera and cutter.is_filming(event) for cutter in self._all())

    def _run(self) -> None:
        self._turn()
        while not self._closing.is_set():
            busy = any(not cutter.idle for cutter in self._all())
            self._woken.wait(_TURN_S if busy else _EXPIRE_S)
            self._woken.clear()
            self._turn()
        self._turn()
        for cutter in self._all():
            self._guarded(cutter, partial(cutter.stop, "the node was stopped"))

    def _turn(self) -> None:
        try:
            self._shelf.load()
            self._expire()
        except OSError as error:
            self._tell(str(error))
        while self._wanted:
            cutter, wanted = self._wanted[0]
            if cutter not in self._all():
                self._left.append(cutter)
            if not self._guarded(cutter, partial(cutter.take, wanted)):
                self._counts.drop("failed")
            self._wanted.popleft()
        for cutter in self._all():
            self._guarded(cutter, cutter.go_on)
        for cutter in tuple(self._left):
            if cutter.idle:
                self._left.remove(cutter)

    def _all(self) -> list[Cutter]:
        return [*tuple(self._cutters.values()), *tuple(self._left)]

    def _expire(self) -> None:
        if self._clock() - self._expired_s >= _EXPIRE_S:
            self._expired_s = self._clock()
            self._shelf.expire()

    def _guarded(self, cutter: Cutter, step: Callable[[], None]) -> bool:
        """A fault in the clips of one camera ends those, and no others. False where there was one."""
        try:
            step()
        except Exception:
            log.exception("clips of camera %s: given up", cutter.camera)
            cutter.drop_all("failed")
            return False
        return True

    def _tell(self, problem: str) -> None:
        """One line when it begins, one when a clip is written again."""
        if bool(problem) != bool(self._said):
            if problem:
                log.error("clips cannot be written now: %s. Watching goes on without.", problem)
            else:
                log.info("clips are written again")
        self._said = problem
