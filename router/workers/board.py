"""What the fleet says, kept for workers that start, and told to those that run: what is new, a few times a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from contracts.messages import Certificate, Identity, Load, Reported, Status
from router.workers.frames import Told

TELL_S = 0.02


class Board:
    """The tables of `router.discovery`, as far as others have to know. `broker` says whether it is connected; None
    without one. `tell` gets what is new."""

    def __init__(self, broker: Callable[[], bool | None], tell: Callable[[Told], None]) -> None:
        self._broker = broker
        self._tell = tell
        self._identities: dict[str, Identity] = {}
        self._statuses: dict[str, Status] = {}
        self._reports: dict[str, Reported] = {}
        self._certificates: dict[str, Certificate] = {}
        self._new: list[Identity | Status | Reported | Load | Certificate] = []
        self._told_broker: bool | None = None
        self._telling: asyncio.TimerHandle | None = None

    def whole(self) -> Told:
        """All that is known; loads are told anew in a moment."""
        return Told(
            self._broker(),
            tuple(self._identities.values()),
            tuple(self._statuses.values()),
            tuple(self._reports.values()),
            (),
            tuple(self._certificates.values()),
        )

    def put_identity(self, identity: Identity) -> None:
        known = self._identities.get(identity.node)
        if known is None or identity.sequence >= known.sequence:
            self._identities[identity.node] = identity
            self._note(identity)

    def put_status(self, status: Status, now_s: float) -> None:
        known = self._statuses.get(status.node)
        if known is None or status.epoch >= known.epoch:
            self._statuses[status.node] = status
            self._note(status)

    def put_reported(self, reported: Reported) -> None:
        known = self._reports.get(reported.node)
        if known is None or reported.epoch >= known.epoch:
            self._reports[reported.node] = reported
            self._note(reported)

    def put_load(self, load: Load, now_s: float) -> None:
        self._note(load)

    def put(self, certificate: Certificate) -> None:
        known = self._certificates.get(certificate.stratum)
        if known is None or certificate.sequence > known.sequence:
            self._certificates[certificate.stratum] = certificate
            self._note(certificate)

    def look(self) -> None:
        """Tells it where the broker came or went."""
        if self._broker() != self._told_broker:
            self._soon()

    def _note(self, news: Identity | Status | Reported | Load | Certificate) -> None:
        self._new.append(news)
        self._soon()

    def _soon(self) -> None:
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TELL_S, self._now)

    def _now(self) -> None:
        new, self._new, self._telling = self._new, [], None
        self._told_broker = self._broker()
        self._tell(
            Told(
                self._told_broker,
                tuple(each for each in new if isinstance(each, Identity)),
                tuple(each for each in new if isinstance(each, Status)),
                tuple(each for each in new if isinstance(each, Reported)),
                tuple(each for each in new if isinstance(each, Load)),
                tuple(each for each in new if isinstance(each, Certificate)),
            )
        )
