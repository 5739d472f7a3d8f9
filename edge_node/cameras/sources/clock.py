"""When a picture was taken: by the camera's own clock where it tells it, else by when its packets came."""

from __future__ import annotations

_BELIEVED_S = 10.0
"""A camera whose clock is further off than that from this machine's is not believed."""
_DRIFT = 1e-3
"""What a second of a camera may be longer than one of this machine."""
_JUMP_S = 2.0


class CaptureClock:
    """Times of one stream, in unix seconds, never falling.

    Without a word from the camera, the quickest packet of late says what the way costs least, and a picture is as old
    as its own stamp says: what waits in a network, or comes in bursts, is not taken for late.
    """

    def __init__(self) -> None:
        self._offset_s: float | None = None
        self._last_stamp_s = 0.0
        self._last_s = 0.0
        self.told = False
        """Whether the camera's own clock is believed."""

    def at_s(self, stamp_s: float | None, arrived_s: float, began_s: float | None = None) -> float:
        """`stamp_s`: since the stream began; `arrived_s`: here, unix time; `began_s`: what the camera says the unix
        time was when its stamps were 0 (RTCP sender reports, RFC 3550, 6.4.1)."""
        at_s = self._at_s(stamp_s, arrived_s, began_s)
        self._last_s = max(self._last_s, min(at_s, arrived_s)) if arrived_s >= self._last_s - _JUMP_S else arrived_s
        return self._last_s

    def _at_s(self, stamp_s: float | None, arrived_s: float, began_s: float | None) -> float:
        self.told = False
        if stamp_s is None:
            return arrived_s
        if began_s is not None and abs(began_s + stamp_s - arrived_s) <= _BELIEVED_S:
            self.told = True
            return began_s + stamp_s
        offset_s, passed_s = arrived_s - stamp_s, stamp_s - self._last_stamp_s
        self._last_stamp_s = stamp_s
        if self._offset_s is None or not 0.0 <= passed_s <= _JUMP_S or abs(offset_s - self._offset_s) > _BELIEVED_S:
            self._offset_s = offset_s
        else:
            self._offset_s = min(self._offset_s + _DRIFT * passed_s, offset_s)
        return stamp_s + self._offset_s
