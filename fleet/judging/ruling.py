"""The gate's ruling over all streams, and all that it rests on."""

from __future__ import annotations

import msgspec

from contracts.quality import Counts
from contracts.risk.sequential import Decision
from fleet.judging.aims import NEEDED, Aims, Stream, Tally, tallies_of


class Ruling(msgspec.Struct, frozen=True):
    """What has been seen of the new version, and what each stream has said first: that stands, as a sequential test's
    does. Accepting is no end: a stream goes on, and may still reject, for its alpha holds at every stopping time."""

    aims: Aims
    tallies: dict[Stream, Tally] = {}
    said: dict[Stream, Decision] = {}

    def counted(self, counts: Counts) -> Ruling:
        """With what a node has newly counted of the new version."""
        return self._with(tallies_of(counts, self.aims.slow_edge))

    def audited(self, audits: Tally) -> Ruling:
        """With more audits of the new version: in how many of how many the cloud says otherwise."""
        return self._with({"disagreeing": audits})

    @property
    def decision(self) -> Decision:
        """Reject as soon as one stream does; accept once all that are needed have."""
        said = self.said
        if "reject" in said.values():
            return "reject"
        waited_for = self.aims.streams.keys() & NEEDED
        return "accept" if all(said.get(stream) == "accept" for stream in waited_for) else "continue"

    @property
    def reason(self) -> str:
        """Why it is rejected; else how far each stream is."""
        rejecting = [stream for stream in self.aims.streams if self.said.get(stream) == "reject"]
        return "; ".join(self._told(stream) for stream in rejecting or self.aims.streams)

    def evidence(self) -> list[Evidence]:
        return [
            Evidence(
                stream=stream,
                n=self.tallies.get(stream, Tally()).n,
                k=self.tallies.get(stream, Tally()).k,
                p0=terms.p0,
                p1=terms.p1,
                alpha=terms.alpha,
                beta=terms.beta,
                llr=self._ratio(stream),
                decision=self.said.get(stream, "continue"),
                baseline=terms.baseline,
            )
            for stream, terms in self.aims.streams.items()
        ]

    def _with(self, new: dict[Stream, Tally]) -> Ruling:
        tallies, said = dict(self.tallies), dict(self.said)
        for stream, tally in new.items():
            terms = self.aims.streams.get(stream)
            if terms is None or not tally.n:
                continue
            total = tallies[stream] = tallies.get(stream, Tally()).plus(tally)
            decision = terms.test.decide(total.n, total.k)
            if decision == "reject" or (decision == "accept" and said.get(stream) != "reject"):
                said[stream] = decision
        return msgspec.structs.replace(self, tallies=tallies, said=said)

    def _ratio(self, stream: Stream) -> float:
        tally = self.tallies.get(stream, Tally())
        return self.aims.streams[stream].test.log_ratio(tally.n, tally.k)

    def _told(self, stream: Stream) -> str:
        tally, terms = self.tallies.get(stream, Tally()), self.aims.streams[stream]
        return (
            f"{stream} {tally.k} of {tally.n}, at most {terms.p0:.2%} as the old version, {terms.p1:.2%} counts as bad "
            f"(log likelihood ratio {self._ratio(stream):.2f})"
        )


class Evidence(msgspec.Struct, frozen=True):
    """One stream: `k` of `n` trials, the test, and its log likelihood ratio (natural)."""

    stream: Stream
    n: int
    k: int
    p0: float
    p1: float
    alpha: float
    beta: float
    llr: float
    decision: Decision
    baseline: Tally
