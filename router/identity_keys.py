"""Whose signature on an identity this router believes: the keys in the fleet's signed metadata."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from runtime.links.durable import write_file
from runtime.links.trust import TrustedFleet
from runtime.links.upstream import Request, Upstreams, UpstreamUnreachable

log = logging.getLogger(__name__)

REFRESH_PAUSE_S = 5.0
_ROOT_TIMEOUT_MS = 5_000.0


class IdentityKeys:
    """Keys by id, refreshed when an unknown one signs something, at most every 5 s.

    `root` is the path of the fleet's TUF root metadata. Without one it is taken from the fleet the first time and
    pinned under `state_dir`: whoever answers at `fleet_url` that day is believed from then on.
    """

    def __init__(
        self,
        *,
        state_dir: Path,
        fleet_url: str,
        root: Path | None,
        upstreams: Upstreams,
        clock: Callable[[], float],
        refresh_pause_s: float = REFRESH_PAUSE_S,
    ) -> None:
        self._state_dir = state_dir
        self._fleet_url = fleet_url
        self._root = root
        self._upstreams = upstreams
        self._clock = clock
        self._refresh_pause_s = refresh_pause_s
        self._fleet: TrustedFleet | None = None
        self._keys: Mapping[str, str] = {}
        self._refreshed_at_s = float("-inf")

    async def holding(self, key_id: str) -> Mapping[str, str]:
        """All identity keys (key id to public hex), refreshed before if `key_id` is not among them and it is time.

        Raises FoothillError `unavailable` or `forbidden` when the fleet's metadata cannot be had or believed.
        """
        now_s = self._clock()
        if key_id not in self._keys and now_s - self._refreshed_at_s >= self._refresh_pause_s:
            self._refreshed_at_s = now_s
            self._keys = await self._refresh()
        return self._keys

    async def _refresh(self) -> Mapping[str, str]:
        if self._fleet is None:
            root = await self._pinned_root()
            self._fleet = await asyncio.to_thread(TrustedFleet, self._state_dir / "trust", self._fleet_url, root)
        fleet = self._fleet
        try:
            await asyncio.to_thread(fleet.refresh)
        except FoothillError as error:
            if error.code != "unavailable":
                raise
            log.info("the fleet is away, using what it signed before: %s", error)
        return await asyncio.to_thread(fleet.keys, "identity")

    async def _pinned_root(self) -> bytes:
        if self._root is not None:
            return await asyncio.to_thread(self._root.read_bytes)
        pinned = self._state_dir / "root.json"
        if not pinned.exists():
            data = await self._first_root()
            self._state_dir.mkdir(parents=True, exist_ok=True)
            write_file(pinned, data)
            log.warning(
                "trusting %s from now on, as it answered first: its root is pinned in %s; name a `root` to avoid this",
                self._fleet_url,
                pinned,
            )
        return await asyncio.to_thread(pinned.read_bytes)

    async def _first_root(self) -> bytes:
        ask = Request("GET", "/tuf/metadata/1.root.json", {})
        deadline = Deadline.after(_ROOT_TIMEOUT_MS, now_s=self._clock())
        try:
            answer = await self._upstreams.send(self._fleet_url, ask, deadline=deadline, clock=self._clock)
        except UpstreamUnreachable as error:
            raise FoothillError("unavailable", f"No root metadata yet: {error}. Start the fleet manager.") from error
        if answer.status != 200:
            raise FoothillError("unavailable", f"{self._fleet_url}/tuf answered HTTP {answer.status} for its root.")
        return answer.body
