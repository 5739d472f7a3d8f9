"""The fleet manager of the node under test, as its operator speaks to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import msgspec

from contracts import manifest as manifests
from contracts.boards import Fingerprint
from contracts.errors import FoothillError
from contracts.manifest import Manifest
from contracts.messages import ModelReport
from hil.http_port import HttpPort
from runtime.links.http.upstream import Request, Upstreams, UpstreamUnreachable

_POLL_S = 0.1
_FAILURES = 50
"""A fleet manager may start anew meanwhile: so many looks in a row may fail."""


class FleetNode(msgspec.Struct, frozen=True):
    """The part of a node's view that the suite reads."""

    node: str
    url: str
    target: str
    state: str
    desired: dict[str, str]
    reported: dict[str, ModelReport]
    fingerprint: Fingerprint


class Published(msgspec.Struct, frozen=True):
    digest: str
    name: str
    version: str
    model: str

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"


class RolloutNow(msgspec.Struct, frozen=True):
    id: str
    bundle: str
    model: str
    state: str
    reason: str

    @property
    def ended(self) -> bool:
        return self.state in ("completed", "rolled-back")


class _Detail(msgspec.Struct, frozen=True):
    digest: str
    manifest: Manifest


class _Policy(msgspec.Struct, frozen=True):
    healthy_deadline_s: float


class _Asked(msgspec.Struct, frozen=True):
    bundle: str
    nodes: tuple[str, ...]
    policy: _Policy
    stages: tuple[str, ...] = ("100%",)
    gate: str = "health"
    for_acceptance: bool = True


class FleetPort:
    """Every method raises FoothillError with the fleet's own words, or `unavailable`."""

    def __init__(self, url: str, upstreams: Upstreams, *, token: str) -> None:
        self._http = HttpPort(url, upstreams, name="the fleet manager", token=token, timeout_s=60.0)
        self.rollouts: list[str] = []
        """Ids of all that were started here."""

    @property
    def url(self) -> str:
        return self._http.url

    async def nodes(self) -> list[FleetNode]:
        return await self._http.read("/v1/nodes", list[FleetNode], admin=True)

    async def node(self, name: str) -> FleetNode:
        known = await self.nodes()
        for node in known:
            if node.node == name:
                return node
        names = ", ".join(sorted(node.node for node in known)[:20]) or "none"
        raise FoothillError(
            "not_found", f"The fleet has no node {name!r}; it has {names}. Set `node` in the board's entry."
        )

    async def published(self) -> dict[str, Published]:
        """By digest."""
        models = await self._http.read("/v1/models", list[Published], admin=True)
        return {model.digest: model for model in models}

    async def manifest(self, published: Published) -> Manifest:
        path = f"/v1/models/{published.name}/{published.version}"
        return (await self._http.read(path, _Detail, admin=True)).manifest

    async def publish(self, manifest: Manifest, contents: Mapping[str, bytes]) -> str:
        """Its digest. `contents` by digest are uploaded where the registry lacks them; the others it must have."""
        for digest, data in contents.items():
            if not await self._has(digest):
                await self._http.ask("PUT", f"/v1/blobs/{digest}", data, admin=True)
        await self._http.ask("POST", "/v1/models", manifests.encode(manifest), admin=True)
        return manifests.digest(manifest)

    async def roll_out(self, bundle: str, node: str, *, deadline_s: float) -> RolloutNow:
        """Starts it, for this node alone, judged by health alone."""
        body = msgspec.json.encode(_Asked(bundle, (node,), _Policy(deadline_s)))
        answer = await self._http.ask("POST", "/v1/rollouts", body, admin=True)
        started = self._http.decoded(answer.body, RolloutNow, "/v1/rollouts")
        self.rollouts.append(started.id)
        return started

    async def rollout(self, rollout_id: str) -> RolloutNow:
        return await self._http.read(f"/v1/rollouts/{rollout_id}", RolloutNow, admin=True)

    async def all_rollouts(self) -> list[RolloutNow]:
        return await self._http.read("/v1/rollouts", list[RolloutNow], admin=True)

    async def blob(self, digest: str) -> bytes:
        """Raises FoothillError `bad_bundle` for bytes of another digest."""
        data = (await self._http.ask("GET", f"/v1/blobs/{digest}")).body
        if manifests.digest_of(data) != digest:
            raise FoothillError("bad_bundle", f"the fleet manager: blob {digest} is damaged.")
        return data

    async def abort(self, rollout_id: str) -> None:
        body = b'{"reason": "the acceptance suite puts the node back"}'
        await self._http.ask("POST", f"/v1/rollouts/{rollout_id}/abort", body, admin=True)

    async def withdraw(self, node: str, model: str) -> None:
        """Takes a model off one node."""
        await self._http.ask("DELETE", f"/v1/nodes/{node}/models/{model}", admin=True)

    async def follow(self, rollout_id: str, *, timeout_s: float) -> RolloutNow:
        """Until it has ended. Raises FoothillError `deadline_exceeded` when it takes longer."""
        end_s, failures = time.monotonic() + timeout_s, 0
        while True:
            try:
                now = await self.rollout(rollout_id)
                failures = 0
                if now.ended:
                    return now
            except FoothillError as error:
                failures += 1
                if not error.retryable or failures > _FAILURES:
                    raise
            if time.monotonic() > end_s:
                raise FoothillError(
                    "deadline_exceeded",
                    f"Rollout {rollout_id} has not ended within {timeout_s:g} s. Look at the fleet.",
                )
            await asyncio.sleep(_POLL_S)

    async def _has(self, digest: str) -> bool:
        try:
            answer = await self._http.send(Request("HEAD", f"/v1/blobs/{digest}", {}))
        except UpstreamUnreachable as error:
            raise FoothillError("unavailable", f"the fleet manager: {error}.") from error
        return answer.status == 200
