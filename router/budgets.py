"""What tenants may cost: escalations a second and a day, and money a day. No file and no waiting here: see `ledger.py`.

Who has used his up gets the edge's answers, degraded, and never an error for it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import NamedTuple, Protocol

import msgspec

from contracts.rates import Rate
from runtime.links.access.grants import Allowance

_SLACK = 1e-9
"""Sums of many small costs are a little off."""


class Purse(Protocol):
    """Where escalations are taken from, whoever keeps the books."""

    async def take(self, tenant: str, allowance: Allowance, cost: float) -> bool:
        """One escalation that costs so much; False when it would be too much, and nothing is taken."""
        ...

    def spend(self, tenant: str, allowance: Allowance, cost: float) -> None:
        """What was spent without asking, because there was no other answer."""
        ...


class Spent(msgspec.Struct):
    """By one tenant on one day."""

    escalations: int = 0
    cost: float = 0.0


class Book(msgspec.Struct):
    """What all tenants with an allowance have spent on `day`, a date of UTC (YYYY-MM-DD)."""

    day: str = ""
    tenants: dict[str, Spent] = {}


class Budgets:
    """What there is in a book. `clock` is monotonic, `wall` unix time, both in seconds.

    `changes` counts what there is to be saved. A rate begins anew with the process, a day does not.
    """

    def __init__(self, book: Book, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self.book = book
        self.changes = 0
        self._clock = clock
        self._wall = wall
        self._rates: dict[str, _Held] = {}

    def take(self, tenant: str, allowance: Allowance, cost: float) -> bool:
        """As `Purse.take`."""
        if not allowance.limited:
            return True
        spent = self._today(tenant)
        return _fits(spent, allowance, cost) and self._in_rate(tenant, allowance) and self._note(spent, 1, cost)

    def spend(self, tenant: str, allowance: Allowance, cost: float) -> None:
        """As `Purse.spend`."""
        if cost and allowance.limited:
            self._note(self._today(tenant), 0, cost)

    def _note(self, spent: Spent, escalations: int, cost: float) -> bool:
        spent.escalations += escalations
        spent.cost += cost
        self.changes += 1
        return True

    def _today(self, tenant: str) -> Spent:
        """A clock that goes back by less than a day refills nothing; one that had been far ahead is forgotten."""
        now = datetime.fromtimestamp(self._wall(), timezone.utc)
        today, tomorrow = now.date().isoformat(), (now + timedelta(days=1)).date().isoformat()
        if not today <= self.book.day <= tomorrow:
            self.book = Book(today)
        return self.book.tenants.setdefault(tenant, Spent())

    def _in_rate(self, tenant: str, allowance: Allowance) -> bool:
        if not allowance.escalations_per_s:
            return True
        held = self._rates.get(tenant)
        if held is None or held.per_s != allowance.escalations_per_s:
            held = self._rates[tenant] = _Held(allowance.escalations_per_s, Rate(allowance.escalations_per_s))
        return held.rate.take(self._clock()) == 0.0


class OwnPurse:
    """`Purse` of the process that keeps the book."""

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets
        self.spend = budgets.spend

    async def take(self, tenant: str, allowance: Allowance, cost: float) -> bool:
        return self._budgets.take(tenant, allowance, cost)


class _Held(NamedTuple):
    per_s: float
    rate: Rate


def _fits(spent: Spent, allowance: Allowance, cost: float) -> bool:
    """Whether one more escalation is within the day."""
    if 0 < allowance.escalations_per_day <= spent.escalations:
        return False
    most = allowance.cost_per_day
    return not most or spent.cost + cost <= most * (1.0 + _SLACK)
