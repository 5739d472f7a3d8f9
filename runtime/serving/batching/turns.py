"""Whose engine runs next, where several models share one machine: start-time fair queueing over measured time."""

from __future__ import annotations

from collections.abc import Callable


class Share:
    """One model's claim on the machine. `granted` is called when its turn has come; it then runs, and says `done`."""

    def __init__(self, granted: Callable[[], None]) -> None:
        self.granted = granted
        self.asked_s = 0.0
        self.finish_s = 0.0

    @property
    def start_s(self) -> float:
        """The start tag of what it asks for."""
        return max(self.asked_s, self.finish_s)


class Turns:
    """At most `slots` runs at once; among those who wait the one with the earliest start tag goes first.

    A run starts at the virtual time max(now, end of the model's last run) and ends its engine time later; the virtual
    now is the start of the run that began last. So a model that was idle comes before all that a busy one still wants,
    and with one slot it waits for at most one run of each other model (Goyal, Vin and Cheng, "Start-time Fair
    Queueing", 1997, theorem 4).

    A model may have several runs at once, one on each of its lanes: their time is the model's, however many lanes it
    has. A run is counted when it ends, since its length is known only then: nothing is estimated. With D slots and
    models of at least as many lanes, a model whose finish is F begins a run only while no other that waits is behind F,
    and has D runs at most that are not counted yet. So of two models that always want all they can get, the times they
    got differ by at most D times the sum of their longest runs, which with one slot is theorem 1. A model with fewer
    lanes than slots cannot use more, and others take what it leaves.
    """

    def __init__(self, slots: int) -> None:
        self.free = slots
        self._slots = slots
        self._now_s = 0.0
        self._last_finish_s = 0.0
        self._waiting: list[Share] = []
        self._granting = False

    def ask(self, share: Share) -> None:
        """Calls `share.granted`, at once or later. One question at a time for each share."""
        share.asked_s = self._now_s
        self._waiting.append(share)
        self._grant()

    def withdraw(self, share: Share) -> None:
        """Takes a question back that is not granted yet."""
        if share in self._waiting:
            self._waiting.remove(share)

    def done(self, share: Share, engine_s: float, *, again: bool) -> None:
        """Ends a turn that took `engine_s`. `again` asks for the next one, before anybody else gets this slot."""
        self.free += 1
        share.finish_s += engine_s
        self._last_finish_s = max(self._last_finish_s, share.finish_s)
        if self.free == self._slots and not self._waiting:
            self._now_s = max(self._now_s, self._last_finish_s)
        if again:
            self.ask(share)
        else:
            self._grant()

    def _grant(self) -> None:
        """Whoever asks again when it is granted is met by the loop that granted it."""
        if self._granting:
            return
        self._granting = True
        try:
            while self.free and self._waiting:
                share = min(self._waiting, key=lambda waiting: waiting.start_s)
                self._waiting.remove(share)
                self.free -= 1
                share.finish_s = share.start_s
                self._now_s = max(self._now_s, share.start_s)
                share.granted()
        finally:
            self._granting = False
