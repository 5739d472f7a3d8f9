"""Whose engine runs next, where several models share one machine: start-time fair queueing over measured time."""

from __future__ import annotations

from collections.abc import Callable


class Share:
    """One model's claim on the machine. `granted` is called when its turn has come; it then runs, and says `done`."""

    def __init__(self, granted: Callable[[], None]) -> None:
        self.granted = granted
        self.finish_s = 0.0
        self.start_s = 0.0


class Turns:
    """At most `slots` runs at once; among those who wait the one with the earliest start tag goes first.

    A run starts at the virtual time max(now, end of the model's last run) and ends its engine time later; the virtual
    now is the start of the run that began last. So a model that was idle comes before all that a busy one still wants,
    and with one slot it waits for at most one run of each other model (Goyal, Vin and Cheng, "Start-time Fair
    Queueing", 1997, theorem 4). With D slots (Jin, Chase and Kaur, SIGMETRICS 2004), of two models that both always
    want to run, the times they got differ by at most (D + 1) times the sum of their longest runs.
    A model has one run at a time, and its length is known when its next one is asked for: nothing is estimated.
    """

    def __init__(self, slots: int) -> None:
        self.free = slots
        self._slots = slots
        self._now_s = 0.0
        self._last_finish_s = 0.0
        self._waiting: list[Share] = []

    def ask(self, share: Share) -> None:
        """Calls `share.granted`, at once or later. One question at a time for each share."""
        share.start_s = max(self._now_s, share.finish_s)
        self._waiting.append(share)
        self._grant()

    def withdraw(self, share: Share) -> None:
        """Takes a question back that is not granted yet."""
        if share in self._waiting:
            self._waiting.remove(share)

    def done(self, share: Share, engine_s: float, *, again: bool) -> None:
        """Ends a turn that took `engine_s`. `again` asks for the next one, before anybody else gets this slot."""
        self.free += 1
        share.finish_s = share.start_s + engine_s
        self._last_finish_s = max(self._last_finish_s, share.finish_s)
        if self.free == self._slots and not self._waiting:
            self._now_s = max(self._now_s, self._last_finish_s)
        if again:
            self.ask(share)
        else:
            self._grant()

    def _grant(self) -> None:
        while self.free and self._waiting:
            share = min(self._waiting, key=lambda waiting: waiting.start_s)
            self._waiting.remove(share)
            self.free -= 1
            self._now_s = max(self._now_s, share.start_s)
            share.granted()
