"""Where a benchmark plays: its processes, started, pinned to their core, and stopped with it."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

import msgspec
import numpy as np
import uvloop

from benchmarks import machine
from benchmarks.arrivals import Came, Floats
from benchmarks.load import Target, drive
from benchmarks.machine import Cores, cpu_s, pin
from benchmarks.report import Report
from benchmarks.rounds import Case, Profile, Run
from benchmarks.told import Calls
from benchmarks.tree import Tree
from foothill import toml
from foothill.processes import Child, Processes, Ready, file_ready

ROOT = Path(__file__).resolve().parents[1]
_MAX_LINE_BYTES = 64 << 20
_PROGRAM_READY_S = 180.0


class Server:
    """A process that answers HTTP at `url`."""

    def __init__(self, pid: int, url: str) -> None:
        self.pid = pid
        self.url = url


class RawEngine:
    """ONNX Runtime alone, as a case: one row a call, over and over."""

    def __init__(self, to: asyncio.StreamWriter, answers: asyncio.StreamReader) -> None:
        self._to = to
        self._answers = answers

    async def __call__(self, seconds: float) -> Run:
        calls = await self._calls(seconds)
        return Run(calls.wall_s, calls.cpu_s, 0.0, np.array(calls.latencies_ms))

    async def arrive(self, at_s: Floats) -> Came:
        """One call for each arrival, in turn: a queue without a server around it."""
        latency_ms = np.array((await self._calls(at_s.tolist())).latencies_ms)
        return Came(at_s, latency_ms, np.zeros(len(at_s)), np.full(len(at_s), 200))

    async def _calls(self, asked: float | list[float]) -> Calls:
        self._to.write(msgspec.json.encode(asked) + b"\n")
        return msgspec.json.decode(await self._answers.readline(), type=Calls)


class Stage:
    """A work directory, the processes started so far, and the two cores. `digits` holds the compiled digits bundles."""

    def __init__(self, work: Path, digits: Path, processes: Processes, cores: Cores) -> None:
        self.work = work
        self.digits = digits
        self.cores = cores
        self.pids: list[int] = []
        self._processes = processes

    def start(self, name: str, *arguments: str, core: int) -> Server:
        """`python -m ARGUMENTS... READY_FILE`, ready when it has told its URL."""
        ready = self.work / f"{name}.url"
        return self._started(name, [*arguments, str(ready)], ready, core)

    def start_node(self, name: str, config: dict[str, Any], *cores: int) -> Server:
        ready, path = self.work / f"{name}.url", self.work / f"{name}.json"
        path.write_bytes(msgspec.json.encode({**config, "ready": str(ready)}))
        return self._started(name, ["benchmarks.node", str(path)], ready, *cores)

    def start_router(self, config: dict[str, Any], *, core: int, name: str = "router") -> Server:
        ready, path = self.work / f"{name}.url", self.work / f"{name}.toml"
        path.write_text(toml.dumps({**config, "port": 0, "workers": 1}))
        return self._started(name, ["benchmarks.router_process", str(path), str(ready)], ready, core)

    @asynccontextmanager
    async def engine(self, model: Path, tensor: np.ndarray[Any, Any], *cores: int) -> AsyncIterator[RawEngine]:
        """A process that runs `model` through ONNX Runtime alone, a thread on each of `cores`; none: the server's."""
        cores = cores or (self.cores.server,)
        path = self.work / f"{model.parent.name}.npy"
        np.save(path, tensor)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.engine", str(model), str(path), str(len(cores))),
            stdin=PIPE,
            stdout=PIPE,
            cwd=ROOT,
            limit=_MAX_LINE_BYTES,
        )
        pin(process.pid, *cores)
        self.pids.append(process.pid)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield RawEngine(process.stdin, process.stdout)
        finally:
            self.pids.remove(process.pid)
            process.stdin.close()
            await process.wait()

    @contextmanager
    def program(self, name: str, command: Sequence[str], ready: Ready, *, core: int) -> Iterator[Tree]:
        """A program of any kind with all its processes on one core; nothing is left of it behind the context."""
        kept = [sys.executable, "-m", "benchmarks.keeper", str(core), *command]
        child = self._processes.start(name, kept, cwd=ROOT)
        pids = [child.pid]
        try:
            self._processes.wait_ready(child, ready, timeout_s=_PROGRAM_READY_S)
            tree = Tree(child.pid)
            pids += tree.pids
            self.pids += pids
            yield tree
        finally:
            self.pids[:] = [pid for pid in self.pids if pid not in pids]
            self._processes.stop(child)

    @contextmanager
    def child(self, name: str, command: Sequence[str], ready: Ready) -> Iterator[Child]:
        """A process on this one's cores, ended with the context."""
        child = self._processes.start(name, command, cwd=ROOT)
        self.pids.append(child.pid)
        try:
            self._processes.wait_ready(child, ready)
            yield child
        finally:
            self.pids.remove(child.pid)
            self._processes.stop(child)

    def asking(self, server: Server, target: Target, concurrency: int, *, poll: bool = False) -> Case:
        """A case whose cost is that of `server`."""

        async def case(seconds: float) -> Run:
            before_s = cpu_s(server.pid)
            load = await drive(target, concurrency=concurrency, seconds=seconds, poll=poll)
            return Run(load.wall_s, cpu_s(server.pid) - before_s, load.client_cpu_s, load.latencies_ms)

        return case

    def _started(self, name: str, module: Sequence[str], ready: Path, *cores: int) -> Server:
        child = self._processes.start(name, [sys.executable, "-m", *module], cwd=ROOT)
        pin(child.pid, *cores)
        self.pids.append(child.pid)
        self._processes.wait_ready(child, file_ready(ready))
        return Server(child.pid, ready.read_text())


Benchmark = Callable[[Stage, Profile], Awaitable[Report]]


def perform(benchmark: Benchmark, profile: Profile, digits: Path) -> Report:
    """One benchmark, with a stage of its own of which nothing is left behind."""
    cores = machine.cores()

    async def play(stage: Stage) -> Report:
        return await benchmark(stage, profile)

    with ExitStack() as closing:
        work = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="foothill-bench-")))
        closing.enter_context(machine.pinned(cores.client))
        processes = closing.enter_context(Processes(work / "logs"))
        report: Report = uvloop.run(play(Stage(work, digits, processes, cores)))
        return report
