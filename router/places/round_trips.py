"""Round trips that callers measured, by the network they call from and the node.

They correct what a distance lets expect: places may be wrong, and cables go other ways than great circles.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from contracts.places import Place, prior_rtt_ms
from router.places.client_address import Address
from runtime.links.escalation.estimates import Samples

MAX_PAIRS = 65_536
_HOST_BITS = {4: 32 - 24, 6: 128 - 48}


class Prefix(NamedTuple):
    """The network of a caller: a /24 of IPv4, a /48 of IPv6, which providers give to one site."""

    version: int
    network: int


class RoundTrip(NamedTuple):
    """What is known of the way from a caller to a node, in ms. None: no place, or nobody measured it."""

    prior_ms: float | None
    measured_ms: float | None
    samples: int


def prefix_of(address: Address) -> Prefix:
    return Prefix(address.version, int(address) >> _HOST_BITS[address.version])


class RoundTrips:
    """A mean for each pair of network and node; of too many pairs the one goes that was not measured for longest."""

    def __init__(self, max_pairs: int = MAX_PAIRS) -> None:
        self._max_pairs = max_pairs
        self._samples: OrderedDict[tuple[Prefix, str], Samples] = OrderedDict()

    def __len__(self) -> int:
        return len(self._samples)

    def note(self, address: Address | None, measured_ms: Mapping[str, float], known: Iterable[str]) -> None:
        """One sample for each node that is `known`; what nobody says whose it is counts for nobody."""
        if address is None or not measured_ms:
            return
        prefix = prefix_of(address)
        for node in known:
            if node in measured_ms:
                self._measure(prefix, node, measured_ms[node])

    def expected_ms(self, prefix: Prefix | None, node: str, prior_ms: float) -> float:
        """The prior until somebody of that network measures; it weighs as much as five samples."""
        found = self._samples.get((prefix, node)) if prefix is not None else None
        return found.shrunk(prior_ms) if found is not None else prior_ms

    def told(self, address: Address | None, place: Place | None, node: str, node_place: Place) -> RoundTrip:
        prior_ms = prior_rtt_ms(place, node_place) if place is not None else None
        found = self._samples.get((prefix_of(address), node)) if address is not None else None
        if found is None:
            return RoundTrip(prior_ms, None, 0)
        return RoundTrip(prior_ms, found.mean, found.count)

    def _measure(self, prefix: Prefix, node: str, sample_ms: float) -> None:
        samples = self._samples.setdefault((prefix, node), Samples())
        samples.measure(sample_ms)
        self._samples.move_to_end((prefix, node))
        while len(self._samples) > self._max_pairs:
            self._samples.popitem(last=False)
