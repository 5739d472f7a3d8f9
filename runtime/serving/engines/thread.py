"""The thread in which one engine runs, apart from the event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue


class EngineThread:
    """Calls what it is given, one after the other. What is called must not raise."""

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)
        self._thread.start()

    @property
    def ident(self) -> int:
        """As `threading.get_ident` gives it there."""
        assert self._thread.ident is not None
        return self._thread.ident

    def start(self, work: Callable[[], None]) -> None:
        self._work.put(work)

    def stop(self) -> None:
        """Blocks until all that was started has ended."""
        self._work.put(None)
        self._thread.join()

    def _live(self) -> None:
        while (work := self._work.get()) is not None:
            work()
