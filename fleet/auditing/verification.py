"""Proof of an audit log: nothing in it was changed, and what the fleet holds is what follows from it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fleet.auditing.chain import START, BrokenChainError, Entry, Mark, follow, read
from fleet.auditing.replay import Holding, Replay, Step


class Verdict(msgspec.Struct, frozen=True):
    """`mark`: how far the log was read and believed. `faults` empty: all of it holds."""

    mark: Mark
    steps: tuple[Step, ...]
    faults: tuple[str, ...]


def verify(entries: Iterable[Entry], noted: Mark = START, held: Holding | None = None) -> Verdict:
    """Reads a log from its first entry.

    `noted` was its end at an earlier time, and must still be in it. `held`: what the fleet holds at its end.
    """
    replay, last = Replay(), START
    faults: list[str] = []
    try:
        for entry in follow(entries):
            replay.take(entry.seq, entry.at_s, read(entry))
            last = entry.mark
            if entry.seq == noted.seq and entry.hash != noted.hash:
                faults.append(f"entry {noted.seq} is not the one that was noted: the log was written anew")
    except BrokenChainError as broken:
        faults.append(f"{broken}")
    else:
        if last.seq < noted.seq:
            faults.append(f"the log ends with entry {last.seq}, and went to {noted.seq} when that was noted")
        faults += _apart(replay, held)
    return Verdict(last, tuple(replay.steps), (*faults, *replay.faults))


def _apart(replay: Replay, held: Holding | None) -> list[str]:
    derived = replay.holding()
    if held is None:
        return []
    faults = [
        f"rollout {name} is not what its entries lead to"
        for name in sorted(derived.rollouts.keys() & held.rollouts.keys())
        if derived.rollouts[name] != held.rollouts[name]
    ]
    faults += [f"rollout {name} is in no entry" for name in sorted(held.rollouts.keys() - derived.rollouts.keys())]
    faults += [f"rollout {name} is gone" for name in sorted(derived.rollouts.keys() - held.rollouts.keys())]
    if derived.assignments != held.assignments:
        faults.append("what nodes are to serve is not what the entries lead to")
    return faults
