"""What the checks of one run share: the node, its fleet, the board's entry, and what was found out so far."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import numpy as np

from contracts.acceptance import BundleSeen, CheckName, Curve
from contracts.boards import Fingerprint
from contracts.errors import FoothillError
from hil.boards import Action, Board, SensorKind
from hil.commands import act, over, run
from hil.fleet import FleetNode, FleetPort, Published
from hil.http_port import plain
from hil.load import Shoot
from hil.node import FAULTS, NodeUnderTest, Subject, blank
from hil.plan import Plan
from hil.sensors import Reading, read
from hil.tensors import Array
from runtime.links.http.upstream import Upstreams

Say = Callable[[str], None]

_SENSOR_TIMEOUT_S = 15.0
_SENSOR_EVERY_S = 1.0


class Looked(msgspec.Struct, frozen=True):
    """Two looks at one sensor, `seconds` apart, `during` a check."""

    kind: SensorKind
    during: CheckName
    before: Reading
    after: Reading
    seconds: float


class Bench:
    """`fleet` None: the part of the suite that needs one is left out. `say` hears what is going on."""

    def __init__(
        self, node: NodeUnderTest, fleet: FleetPort | None, board: Board, plan: Plan, upstreams: Upstreams, say: Say
    ) -> None:
        self.node = node
        self.fleet = fleet
        self.board = board
        self.plan = plan
        self._say = say
        self.name = board.node
        self.target = board.target
        self.fingerprint: Fingerprint | None = None
        self.found: FleetNode | None = None
        self.subjects: list[Subject] = []
        self.bundles: list[BundleSeen] = []
        self.curves: list[Curve] = []
        self.readings: list[Looked] = []
        self.sensor_faults: dict[str, str] = {}
        self.soak_per_s = 0.0
        self._samples: dict[str, Mapping[str, Array]] = {}
        self._upstreams = upstreams

    def say(self, line: str) -> None:
        """What goes on now; names in it may come from the node."""
        self._say(plain(line))

    @property
    def managed(self) -> FleetPort:
        """Raises FoothillError where there is no fleet."""
        if self.fleet is None:
            raise FoothillError("bad_request", "This needs the fleet manager: give --fleet.")
        return self.fleet

    async def published(self, subject: Subject) -> Published:
        """The bundle that served the model when the suite began, as the registry has it."""
        digest = subject.config.digest
        known = (await self.managed.published()).get(digest)
        if known is None:
            raise FoothillError("not_found", f"{subject.name} is served from {digest}, which the fleet does not know.")
        return known

    async def do(self, action: Action) -> None:
        self.say(f"running {action.told}")
        await act(action, self._upstreams)

    async def shoot_at(self, subject: Subject) -> Shoot:
        """One row of the bundle's own inputs where they may be seen, else of zeros."""
        return partial(self.node.shoot, self.node.request(subject, await self._one_row(subject)))

    async def _one_row(self, subject: Subject) -> Mapping[str, Array]:
        if subject.name not in self._samples:
            try:
                self._samples[subject.name] = await self._golden_row(subject) if self.node.has_admin else blank(subject)
            except FAULTS:
                # That the files cannot be had is what `golden` tells of; how fast the node is can be seen without.
                self._samples[subject.name] = blank(subject)
        return self._samples[subject.name]

    async def _golden_row(self, subject: Subject) -> Mapping[str, Array]:
        digest = subject.config.digest
        manifest = await self.node.manifest(digest)
        inputs = await self.node.arrays(digest, manifest, manifest.golden.inputs)
        return (
            {name: np.ascontiguousarray(array[:1]) for name, array in inputs.items()} if _batched(subject) else inputs
        )

    @asynccontextmanager
    async def sensing(self, during: CheckName) -> AsyncIterator[None]:
        """Reads the board's sensors over and over meanwhile."""
        watching = [asyncio.create_task(self._watch(kind, during)) for kind in self.board.sensors]
        try:
            yield
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)

    async def _watch(self, kind: SensorKind, during: CheckName) -> None:
        loop = asyncio.get_running_loop()
        before, at_s = await self._look(kind), loop.time()
        while True:
            await asyncio.sleep(_SENSOR_EVERY_S)
            after, now_s = await self._look(kind), loop.time()
            if before is not None and after is not None:
                self.readings.append(Looked(kind, during, before, after, now_s - at_s))
            before, at_s = after, now_s

    async def _look(self, kind: SensorKind) -> Reading | None:
        try:
            reading = await read(kind, partial(_over_ssh, self.board.sensors_ssh))
        except FoothillError as error:
            self.sensor_faults[kind] = plain(error.message)
            return None
        if reading.says_nothing:
            self.sensor_faults[kind] = "it says nothing of heat or power"
            return None
        return reading


def _batched(subject: Subject) -> bool:
    return subject.config.max_batch_size > 0


async def _over_ssh(ssh: str, argv: Sequence[str]) -> str:
    return await run(over(ssh, argv), timeout_s=_SENSOR_TIMEOUT_S)
