"""What nodes have told of how versions serve: booked once, however often and in whatever order it is told."""

from __future__ import annotations

import msgspec

from contracts.quality import Counts


class Told(msgspec.Struct, frozen=True):
    """By one node of one version: totals of its last epoch, and of those before. An epoch grows with every start."""

    epoch: int = -1
    counts: Counts = Counts()
    before: Counts = Counts()

    @property
    def total(self) -> Counts:
        return self.before.plus(self.counts)

    def then(self, epoch: int, counts: Counts) -> tuple[Told, Counts] | None:
        """With newer totals, and what of them is new; None for nothing.

        What an earlier epoch tells late is lost, and never booked twice.
        """
        if epoch < self.epoch:
            return None
        if epoch > self.epoch:
            return (Told(epoch, counts, self.total), counts) if counts.is_some else None
        new = counts.minus(self.counts)
        return None if new is None or not new.is_some else (Told(epoch, counts, self.before), new)


class Booking(msgspec.Struct, frozen=True):
    """What is new of a node and a version, and what is to be kept for the next time."""

    node: str
    digest: str
    told: Told
    new: Counts
