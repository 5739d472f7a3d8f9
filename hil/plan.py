"""How long and how hard the suite looks."""

from __future__ import annotations

import msgspec

from contracts.acceptance import CheckName


class Plan(msgspec.Struct, frozen=True):
    """`requests` a model for its latency; the curve doubles the requests at once up to `most_concurrency`, `step_s`
    each, then sends `open_shares` of the most it answered; the soak keeps `soak_concurrency` under way for `soak_s`.
    `switch_concurrency` is the load under which versions change. `skip`: checks left out.
    """

    requests: int = 200
    step_s: float = 5.0
    most_concurrency: int = 32
    open_shares: tuple[float, ...] = (0.5, 0.7, 0.9)
    soak_s: float = 300.0
    soak_concurrency: int = 4
    switch_concurrency: int = 2
    padding_bytes: int = 8 << 20
    skip: frozenset[CheckName] = frozenset()
    seed: int = 0

    def levels(self) -> tuple[int, ...]:
        """1, 2, 4, … and the most itself."""
        doubled = tuple(1 << at for at in range(self.most_concurrency.bit_length()))
        return (*(level for level in doubled if level < self.most_concurrency), self.most_concurrency)
