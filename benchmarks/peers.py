"""Peers: Triton, LitServe and MLServer beside an edge node and raw ONNX Runtime, one core for each in its turn.

`make bench-peers` makes the peers' environments, then runs `python -m benchmarks peers`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import NamedTuple

import httpx
import msgspec
import numpy as np
import onnxruntime as ort

from benchmarks import bundles
from benchmarks.bundles import Floats
from benchmarks.load import Target, drive, post
from benchmarks.peer_setups import PEERS, Model, Peer, Setup, ask_tensors, read_tensors
from benchmarks.report import Report, report
from benchmarks.rounds import Case, Profile, Ratio, Rounds, Run, interleaved, middle, percentile_ms, ratio
from benchmarks.stage import Server, Stage
from benchmarks.tree import Tree
from foothill.processes import http_ready
from runtime.links.process.ports import free_ports

NAME = "peers"
CONCURRENCIES = (1, 8, 32)
RAW, LIMIT, EDGE = "raw ONNX Runtime", "the load's limit", "Foothill edge node"

NOTES = (
    "Closed loop. `of raw`: requests a second over the calls a second of raw ONNX Runtime (batch 1, one thread, same "
    "core, same rounds); `p50 of raw`: the same for the median latency. Medians of the rounds, lowest and highest in "
    "brackets. `p50 ms`, `p99 ms` over the requests of all rounds; `cpu us`: CPU time a request of all of the "
    "server's processes.",
    "Each peer serves the same ONNX file through ONNX Runtime on one thread, and has the core to itself: peers are "
    "paused while it is not their turn. Of its setups the one with the most requests a second is shown, by model and "
    "concurrency, and named.",
    "Before anything is measured every setup answers sixteen different requests at once, which must be ONNX Runtime's "
    "answers.",
    "Triton is that of PyTriton's wheel, which has the Python back end only. MLServer takes no binary tensors over "
    "HTTP: it gets base64 in JSON, or bytes at a handler of its own, which it does not batch.",
)

_AT_ONCE = 16
_TOLERANCE = 1e-3
_CHECK_TIMEOUT_S = 30.0


class PeerError(Exception):
    """A server that does not answer, or not what the model answers: its speed would say nothing."""


class PeerRow(msgspec.Struct, frozen=True):
    """`setup` says why where a peer was not run. `cpu_us`: CPU time a request of all of the server's processes."""

    model: str
    server: str
    setup: str
    concurrency: int | None = None
    of_raw: Ratio | None = None
    p50_of_raw: Ratio | None = None
    requests_per_s: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    cpu_us: float | None = None


class _Question(NamedTuple):
    """One setup of one server, asked by so many at once."""

    server: str
    setup: str
    concurrency: int


_RAW = _Question(RAW, "", 1)
_LIMIT = _Question(LIMIT, "", max(CONCURRENCIES))


async def measure(stage: Stage, profile: Profile) -> Report:
    models = (
        Model("tiny, 59 µs a call", bundles.tiny(stage.work), 32),
        Model("MobileNetV2 size, 224 px", bundles.mobilenet(stage.work), 8),
    )
    return await compare(stage, profile, models, PEERS)


async def compare(stage: Stage, profile: Profile, models: Sequence[Model], peers: Sequence[Peer]) -> Report:
    """Each model by itself: the raw engine, our node and every setup of every peer take turns.

    Raises PeerError for a server that answers wrongly, ProcessError for one that does not start.
    """
    bundled = [str(model.served.packed.directory) for model in models]
    config = {"tier": "edge", "bundles": bundled, "hop_key": "00" * 32}
    node = stage.start_node("edge", config, stage.cores.server)
    canned = stage.start("canned", "benchmarks.canned", core=stage.cores.server)
    rows: list[PeerRow] = []
    rounds: list[Rounds[_Question]] = []
    for model in models:
        async with AsyncExitStack() as closing:
            served = model.served
            raw = await closing.enter_async_context(stage.engine(served.packed.first_artifact, served.tensor))
            cases: dict[_Question, Case] = {_RAW: raw, **await _ours(stage, model, node, canned)}
            for peer in peers:
                for setup in () if peer.missing else peer.setups:
                    cases |= await _theirs(closing.enter_context(_running(stage, peer, setup, model)))
            rounds.append(await interleaved(cases, profile, stage.pids))
        rows += _rows(model, rounds[-1].runs)
        rows += [PeerRow(model.title, peer.name, peer.missing) for peer in peers if peer.missing]
    return report(NAME, rows, NOTES, rounds)


async def _ours(stage: Stage, model: Model, node: Server, canned: Server) -> dict[_Question, Case]:
    """The edge node, checked, and what only answers."""
    await _check(EDGE, node.url, Setup("binary tensors", ask_tensors, read_tensors), model)
    body = model.served.infer

    def asking(server: Server, concurrency: int) -> Case:
        target = post(server.url, body.path, body.headers, body.content)
        return stage.asking(server, target, concurrency, poll=True)

    edge = {_Question(EDGE, "binary tensors", each): asking(node, each) for each in CONCURRENCIES}
    return {_LIMIT: asking(canned, _LIMIT.concurrency), **edge}


class _Running(NamedTuple):
    """One setup of a peer that serves one model at `url`."""

    peer: Peer
    setup: Setup
    model: Model
    url: str
    tree: Tree


@contextmanager
def _running(stage: Stage, peer: Peer, setup: Setup, model: Model) -> Iterator[_Running]:
    port, grpc_port = free_ports(2)
    batching = setup.batch_delay_ms is not None
    config = {
        "port": port,
        "grpc_port": grpc_port,
        "model": model.name,
        "onnx": str(model.served.packed.first_artifact),
        "input": model.input,
        "output": model.output,
        "row": model.served.tensor.shape[1:],
        "classes": model.served.packed.manifest.outputs[0].shape[1],
        "max_batch": model.max_batch if batching else 1,
        "delay_ms": setup.batch_delay_ms or 0.0,
    }
    name = f"{peer.name}-{peer.setups.index(setup)}-{model.name}".lower()
    path = stage.work / f"{name}.json"
    path.write_bytes(msgspec.json.encode(config))
    url = f"http://127.0.0.1:{port}"
    command = [str(peer.python), str(peer.program), str(path)]
    ready = http_ready(url + peer.ready.format(model=model.name))
    with stage.program(name, command, ready, core=stage.cores.server) as tree:
        yield _Running(peer, setup, model, url, tree)


async def _theirs(running: _Running) -> dict[_Question, Case]:
    """Checked, and paused until its turn."""
    peer, setup, model, url, tree = running
    await _check(f"{peer.name} ({setup.told(model)})", url, setup, model)
    tree.pause()
    body = setup.ask(model, model.served.tensor)
    target = post(url, body.path, body.headers, body.content)
    return {_Question(peer.name, setup.told(model), each): _asking(tree, target, each) for each in CONCURRENCIES}


def _asking(tree: Tree, target: Target, concurrency: int) -> Case:
    async def case(seconds: float) -> Run:
        tree.resume()
        try:
            before_s = tree.cpu_s()
            load = await drive(target, concurrency=concurrency, seconds=seconds, poll=True)
            return Run(load.wall_s, tree.cpu_s() - before_s, load.client_cpu_s, load.latencies_ms)
        finally:
            tree.pause()

    return case


async def _check(server: str, url: str, setup: Setup, model: Model) -> None:
    """Different requests at once, so that rows that a batch mixes up are noticed. Raises PeerError."""
    session = ort.InferenceSession(model.served.packed.first_artifact, providers=["CPUExecutionProvider"])
    shape = (_AT_ONCE, 1, *model.served.tensor.shape[1:])
    tensors = np.random.default_rng(2).standard_normal(shape, np.float32)
    async with httpx.AsyncClient(base_url=url, timeout=_CHECK_TIMEOUT_S) as client:
        answers = await asyncio.gather(*(_answer(client, setup, model, tensor) for tensor in tensors))
    for tensor, answer in zip(tensors, answers, strict=True):
        expected = session.run([model.output], {model.input: tensor})[0][0]
        within = _TOLERANCE * np.abs(expected).max()
        if answer.shape != expected.shape or not np.allclose(answer, expected, rtol=0.0, atol=within):
            raise PeerError(f"{server} answers other numbers for {model.title!r} than ONNX Runtime. Mend its program.")


async def _answer(client: httpx.AsyncClient, setup: Setup, model: Model, tensor: Floats) -> Floats:
    body = setup.ask(model, tensor)
    try:
        response = await client.post(body.path, headers=body.headers, content=body.content)
    except httpx.TransportError as error:
        raise PeerError(f"POST {client.base_url}{body.path} failed: {error!r}. See the server's log.") from error
    if response.status_code != httpx.codes.OK:
        raise PeerError(f"POST {response.url} was answered with {response.status_code}: {response.text[:2000]}")
    return setup.read(model, response.headers, response.content)


def _rows(model: Model, runs: Mapping[_Question, Sequence[Run]]) -> list[PeerRow]:
    """Of each server and concurrency the setup that answered most."""
    best: dict[tuple[str, int], _Question] = {}
    for question, own in runs.items():
        key = (question.server, question.concurrency)
        if key not in best or _rate(own) > _rate(runs[best[key]]):
            best[key] = question
    return [_row(model.title, question, runs[question], runs[_RAW]) for question in best.values()]


def _rate(runs: Sequence[Run]) -> float:
    return middle(runs, lambda run: run.rate)


def _row(title: str, question: _Question, own: Sequence[Run], raw: Sequence[Run]) -> PeerRow:
    compared = question.server not in (RAW, LIMIT)
    return PeerRow(
        model=title,
        server=question.server,
        setup=question.setup,
        concurrency=question.concurrency,
        of_raw=ratio(own, raw, lambda run: run.rate) if compared else None,
        p50_of_raw=ratio(own, raw, lambda run: run.p50_ms) if compared else None,
        requests_per_s=_rate(own),
        p50_ms=percentile_ms(own, 50),
        p99_ms=percentile_ms(own, 99),
        cpu_us=middle(own, lambda run: run.cpu_us),
    )
