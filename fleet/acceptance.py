"""What a board must have shown before models go to it: demands of the operator, and signed reports that meet them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from contracts.acceptance import Acceptance, differences
from contracts.boards import BOARDS, Fingerprint
from contracts.errors import FoothillError
from fleet.auditing.entries import AcceptanceDemanded, AcceptanceLifted, BoardAccepted
from fleet.state import State
from runtime.links.bundles import acceptance_reports as reports
from runtime.links.trust.signatures import key_id

log = logging.getLogger(__name__)

_DAY_S = 86_400.0
_AHEAD_S = 3600.0
"""A report may come from a clock that runs ahead by so much."""

PublicKey = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class DemandRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`keys`: whose reports count, public keys in hex. `max_age_s`: for how long a report is good."""

    keys: Annotated[tuple[PublicKey, ...], Meta(min_length=1, max_length=64)]
    max_age_s: Annotated[float, Meta(gt=0, le=3.2e9)] = 90 * _DAY_S


class Demand(msgspec.Struct, frozen=True):
    """Nodes of `target` take part in no rollout without a report by one of `keys` (key id to public key)."""

    target: str
    keys: dict[str, str]
    max_age_s: float


class Accepted(msgspec.Struct, frozen=True):
    """A passed report that was taken. `id` is the digest of its file; `at_s` when it was measured, unix time."""

    id: str
    board: str
    node: str
    target: str
    at_s: float
    key_id: str
    suite: str
    fingerprint: Fingerprint
    submitted_at_s: float


class AcceptanceView(msgspec.Struct, frozen=True):
    """Everything there is, reports newest first."""

    demands: tuple[Demand, ...]
    reports: tuple[Accepted, ...]


def shortfall(demand: Demand, accepted: Iterable[Accepted], fingerprint: Fingerprint, now_s: float) -> str:
    """What a machine lacks to meet the demand, "" when nothing. Pure.

    Of several reasons the one of the report that comes closest: a machine of the same class, then a trusted key, then
    its age.
    """
    best = (0, "no passed report of this target was submitted")
    for one in accepted:
        if one.target != demand.target:
            continue
        best = max(best, _judged(demand, one, fingerprint, now_s), key=lambda found: found[0])
    return best[1]


def _judged(demand: Demand, one: Accepted, fingerprint: Fingerprint, now_s: float) -> tuple[int, str]:
    """How far a report comes, and what it lacks."""
    apart = differences(one.fingerprint, fingerprint)
    if apart:
        return 1, f"the report of {one.node} is of another class of machine: {', '.join(apart)}"
    if one.key_id not in demand.keys:
        return 2, f"the report of {one.node} is signed by key {one.key_id}, which is trusted no more"
    age_s = now_s - one.at_s
    if age_s > demand.max_age_s:
        most = demand.max_age_s / _DAY_S
        return 3, f"the report of {one.node} is {age_s / _DAY_S:.1f} days old, {most:g} are allowed"
    return 4, ""


class Acceptances:
    """Synchronous, on the fleet's state thread. `clock` gives unix time."""

    def __init__(self, state: State, clock: Callable[[], float]) -> None:
        self._state = state
        self._clock = clock

    def require(self, target: str, asked: DemandRequest) -> Demand:
        """Takes the place of an earlier demand for the target. Raises FoothillError `bad_request`."""
        if target not in BOARDS:
            known = ", ".join(BOARDS)
            raise FoothillError("bad_request", f"Target {target[:80]!r} is not in the board table: use one of {known}.")
        demand = Demand(target, {key_id(key): key for key in asked.keys}, asked.max_age_s)
        with self._state.transaction():
            self._state.put_demand(target, msgspec.msgpack.encode(demand))
            self._state.log(AcceptanceDemanded(target, tuple(sorted(demand.keys)), demand.max_age_s))
        log.info("fleet: acceptance of %s is demanded now, by keys %s", target, ", ".join(sorted(demand.keys)))
        return demand

    def lift(self, target: str) -> None:
        """Raises FoothillError `not_found` where nothing is demanded."""
        with self._state.transaction():
            if not self._state.drop_demand(target):
                raise FoothillError("not_found", f"No acceptance of {target[:80]!r} is demanded.")
            self._state.log(AcceptanceLifted(target))
        log.warning("fleet: acceptance of %s is demanded no more", target)

    def submit(self, data: bytes) -> Accepted:
        """Takes a report that is signed by a trusted key of a demand for its target, and passed.

        Raises FoothillError that says why another is not taken.
        """
        file = reports.read(data)
        report = reports.verify(file, self._keys())
        fault = self._fault(report)
        if fault:
            log.warning("fleet: an acceptance report of %s is refused: %s", report.node, fault)
            raise FoothillError("bad_request", f"The report is not taken: {fault}.")
        assert report.fingerprint is not None
        accepted = Accepted(
            id="sha256:" + hashlib.sha256(data).hexdigest(),
            board=report.board,
            node=report.node,
            target=report.target,
            at_s=report.at_s,
            key_id=key_id(report.signed_by),
            suite=report.suite,
            fingerprint=report.fingerprint,
            submitted_at_s=self._clock(),
        )
        with self._state.transaction():
            new = self._state.put_acceptance(accepted.id, accepted.target, msgspec.msgpack.encode(accepted), data)
            if new:
                self._state.log(BoardAccepted(accepted.id, accepted.target, accepted.node, accepted.key_id))
        log.info("fleet: %s of %s is accepted, signed by key %s", report.node, report.target, accepted.key_id)
        return accepted

    def view(self) -> AcceptanceView:
        return AcceptanceView(tuple(self._demands()), tuple(reversed(self._accepted())))

    def report(self, report_id: str) -> bytes:
        """The file, as it was submitted. Raises FoothillError `not_found`."""
        data = self._state.acceptance_file(report_id)
        if data is None:
            raise FoothillError("not_found", f"There is no report {report_id[:80]!r}.")
        return data

    def check(self, nodes: Sequence[tuple[str, Fingerprint]]) -> None:
        """Raises FoothillError `conflict` that names each target that lacks its report, and what it lacks."""
        demands = {demand.target: demand for demand in self._demands()}
        accepted, now_s = self._accepted(), self._clock()
        lacking: dict[str, list[str]] = {}
        for name, fingerprint in nodes:
            demand = demands.get(fingerprint.target)
            if demand is None:
                continue
            fault = shortfall(demand, accepted, fingerprint, now_s)
            if fault:
                lacking.setdefault(f"{fingerprint.target}: {fault}", []).append(name)
        if lacking:
            told = "; ".join(f"{fault} ({_some(names)})" for fault, names in sorted(lacking.items()))
            log.warning("fleet: a rollout is refused for want of acceptance: %s", told)
            raise FoothillError(
                "conflict",
                f"Acceptance is demanded and lacking of {told}. Run `foothill hil run` with --key on such a board and "
                f"`foothill fleet acceptance submit` its report, or name other nodes.",
            )

    def _keys(self) -> dict[str, str]:
        return {key: public for demand in self._demands() for key, public in demand.keys.items()}

    def _fault(self, report: Acceptance) -> str:
        demand = next((one for one in self._demands() if one.target == report.target), None)
        if demand is None:
            return f"no acceptance of target {report.target!r} is demanded; `foothill fleet acceptance require` first"
        if key_id(report.signed_by) not in demand.keys:
            return f"its key is not trusted for {report.target}"
        if report.verdict != "passed":
            return f"its verdict is {report.verdict}, and only a passed full suite counts"
        if report.fingerprint is None or report.fingerprint.target != report.target:
            return "it does not say of which machine it speaks"
        if report.at_s > self._clock() + _AHEAD_S:
            return "it comes from the future: correct the clock of the machine that made it"
        return ""

    def _demands(self) -> list[Demand]:
        return [msgspec.msgpack.decode(body, type=Demand) for body in self._state.demands()]

    def _accepted(self) -> list[Accepted]:
        return [msgspec.msgpack.decode(body, type=Accepted) for body in self._state.acceptances()]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
