"""The time as HTTP's `Date` header tells it."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import formatdate


class HttpDate:
    """Made once a second, however often it is asked for. `wall` is unix time in seconds."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._second = -1
        self._text = ""

    def now(self) -> str:
        """As in RFC 9110, section 5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`."""
        second = int(self._wall())
        if second != self._second:
            self._second, self._text = second, formatdate(second, usegmt=True)
        return self._text
