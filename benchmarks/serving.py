"""Serving: an edge node and the cloud tier beside raw ONNX Runtime at batch 1, on one core, the client on the other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

import msgspec
import numpy as np

from benchmarks import bundles
from benchmarks.bundles import Body, Served
from benchmarks.load import Target, post, with_ids
from benchmarks.report import Report, report
from benchmarks.rounds import (
    Case,
    Profile,
    Ratio,
    Rounds,
    Run,
    interleaved,
    middle,
    percentile_ms,
    ratio,
)
from benchmarks.stage import Server, Stage

NAME = "serving"
CONCURRENCIES = (1, 8, 32)
RAW, LIMIT = "raw ONNX Runtime", "the load's limit"
RAW_THREADS, RAW_TWICE, EDGE_TWO = "raw, two threads", "raw, two processes", "edge infer, two cores"
EDGE, CLOUD, PREDICT, EDGE_IDS = "edge infer", "cloud infer", "edge predict", "edge infer, own ids"

NOTES = (
    "Closed loop. `of raw`: requests a second over the calls a second of raw ONNX Runtime (batch 1, one thread, same "
    "core, same rounds); `p50 of raw` and `cpu of raw`: the same for the median latency and for CPU time a request of "
    "the serving process. Medians of the rounds, lowest and highest in brackets.",
    "`p50 ms`, `p99 ms` over the requests of all rounds. The load polls: waking one that sleeps would cost the server.",
    f"`{LIMIT}` is a server that only answers: what the client could ask for at most. Where a row comes near it, "
    "the figure is the client's.",
    "two cores: the node (one thread a run, so two lanes) and its client share both; `of raw` is of the better of two "
    "threads in one process and two processes of one thread each.",
    "edge: the node's path for direct callers (its holder decides, no cloud). cloud: the cloud tier's. infer: binary "
    "tensor in and out over the Open Inference Protocol. predict: a PNG in, JSON out. own ids: each request has an id "
    "of its own, as those have that are traced.",
)


class ServingRow(msgspec.Struct, frozen=True):
    """`cpu_us`: CPU time a request of the serving process."""

    model: str
    case: str
    concurrency: int
    of_raw: Ratio | None
    p50_of_raw: Ratio | None
    cpu_of_raw: Ratio | None
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


class _Question(NamedTuple):
    """One case of one model."""

    case: str
    concurrency: int


async def measure(stage: Stage, profile: Profile) -> Report:
    """Each model by itself: the raw engine and every case take turns."""
    served = _models(stage)
    edge, cloud = (_node(stage, tier, [*served.values()]) for tier in ("edge", "cloud"))
    canned = stage.start("canned", "benchmarks.canned", core=stage.cores.server)
    rows: list[ServingRow] = []
    rounds: list[Rounds[_Question]] = []
    async with AsyncExitStack() as closing:
        engines = {
            name: await closing.enter_async_context(stage.engine(model.packed.first_artifact, model.tensor))
            for name, model in served.items()
        }
        for name, model in served.items():
            cases: dict[_Question, Case] = {_RAW: engines[name], **_cases(stage, model, edge, cloud, canned)}
            rounds.append(await interleaved(cases, profile, stage.pids))
            rows += [_row(name, question, rounds[-1].runs) for question in cases]
        two = await _on_two_cores(stage, served[_LARGE], closing)
        rounds.append(await interleaved(two, profile, stage.pids))
        rows += _rows_on_two_cores(rounds[-1].runs)
    return report(NAME, rows, NOTES, rounds)


async def _on_two_cores(stage: Stage, model: Served, closing: AsyncExitStack) -> dict[_Question, Case]:
    """Server and client share both cores, so that the client does not poll."""
    model_file, tensor, cores = model.packed.first_artifact, model.tensor, stage.cores.both
    config = {"tier": "edge", "bundles": [str(model.packed.directory)], "hop_key": "00" * 32}
    node = stage.start_node("both", config, *cores)
    threads = await closing.enter_async_context(stage.engine(model_file, tensor, *cores))
    single = [await closing.enter_async_context(stage.engine(model_file, tensor, core)) for core in cores]
    target = _target(node, model.infer)
    return {
        _Question(RAW_THREADS, 1): threads,
        _Question(RAW_TWICE, len(cores)): _at_once(single),
        _Question(EDGE_TWO, _MOST): stage.asking(node, target, _MOST),
    }


def _at_once(cases: Sequence[Case]) -> Case:
    async def case(seconds: float) -> Run:
        runs = await asyncio.gather(*(each(seconds) for each in cases))
        latencies_ms = np.concatenate([run.latencies_ms for run in runs])
        return Run(max(run.wall_s for run in runs), sum(run.server_cpu_s for run in runs), 0.0, latencies_ms)

    return case


def _models(stage: Stage) -> dict[str, Served]:
    """All models that this machine has the files for."""
    known = {
        "digits student, int8": bundles.digits(stage.digits),
        "tiny, 59 µs a call": bundles.tiny(stage.work),
        _LARGE: bundles.mobilenet(stage.work),
        "EfficientNet-lite0, 224 px": bundles.efficientnet(stage.work),
    }
    return {name: model for name, model in known.items() if model is not None}


def _node(stage: Stage, tier: str, served: Sequence[Served]) -> Server:
    directories = [str(model.packed.directory) for model in served]
    config = {"tier": tier, "bundles": directories, "hop_key": "00" * 32}
    return stage.start_node(tier, config, stage.cores.server)


def _cases(stage: Stage, model: Served, edge: Server, cloud: Server, canned: Server) -> dict[_Question, Case]:
    asked = {EDGE: (edge, model.infer)}
    if model.packed.manifest.model == "digits":
        asked |= {CLOUD: (cloud, model.infer), PREDICT: (edge, bundles.digits_png())}
    cases = {
        _Question(case, concurrency): _asking(stage, *asked[case], concurrency)
        for case in asked
        for concurrency in CONCURRENCIES
    }
    own = stage.asking(edge, with_ids(_target(edge, model.infer)), _MOST, poll=True)
    cases[_Question(EDGE_IDS, _MOST)] = own
    return {**cases, _LIMIT: _asking(stage, canned, model.infer, _LIMIT.concurrency)}


def _asking(stage: Stage, server: Server, body: Body, concurrency: int) -> Case:
    return stage.asking(server, _target(server, body), concurrency, poll=True)


def _target(server: Server, body: Body) -> Target:
    return post(server.url, body.path, body.headers, body.content)


_RAW = _Question(RAW, 1)
_MOST = max(CONCURRENCIES)
_LIMIT = _Question(LIMIT, _MOST)
_LARGE = "MobileNetV2 size, 224 px"


def _rows_on_two_cores(runs: Mapping[_Question, Sequence[Run]]) -> list[ServingRow]:
    """Each of them beside the better of the raw ones."""
    best = max((question for question in runs if question.case != EDGE_TWO), key=lambda each: middle(runs[each], _rate))
    return [_row_of(_LARGE, question, own, None if question == best else runs[best]) for question, own in runs.items()]


def _rate(run: Run) -> float:
    return run.rate


def _row(model: str, question: _Question, runs: Mapping[_Question, Sequence[Run]]) -> ServingRow:
    return _row_of(model, question, runs[question], None if question in (_RAW, _LIMIT) else runs[_RAW])


def _row_of(model: str, question: _Question, own: Sequence[Run], raw: Sequence[Run] | None) -> ServingRow:
    return ServingRow(
        model=model,
        case=question.case,
        concurrency=question.concurrency,
        of_raw=ratio(own, raw, _rate) if raw else None,
        p50_of_raw=ratio(own, raw, lambda run: run.p50_ms) if raw else None,
        cpu_of_raw=ratio(own, raw, lambda run: run.cpu_us) if raw else None,
        requests_per_s=middle(own, _rate),
        p50_ms=percentile_ms(own, 50),
        p99_ms=percentile_ms(own, 99),
        cpu_us=middle(own, lambda run: run.cpu_us),
    )
