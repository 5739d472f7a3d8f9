"""The acceptance of one live node: is it ready, does it say what it serves, does it compute the same, how fast."""

from __future__ import annotations

import io
import time
from collections.abc import Awaitable, Callable, Mapping

import msgspec
import numpy as np

from contracts import manifest as manifests
from contracts import oip
from contracts.errors import FoothillError
from contracts.manifest import Golden, Manifest
from hil.node import NUMPY, Array, ModelConfig, NodeUnderTest
from hil.report import Check, Report, verdict_of
from runtime.links.upstream import Upstreams, UpstreamUnreachable

WARM_UP = 5
# A node that lies about sizes, names or types shows as one of the last two.
_FAULTS = (FoothillError, UpstreamUnreachable, ValueError, KeyError)


class Subject(msgspec.Struct, frozen=True):
    """One served model, as far as the node describes it."""

    name: str
    metadata: oip.ModelMetadata
    config: ModelConfig


async def accept(
    url: str, *, admin_token: str = "", requests: int = 200, wall: Callable[[], float] = time.time
) -> Report:
    """Runs every check; `requests` a model for its latency. A node's faults raise nothing: they are the report."""
    upstreams = Upstreams()
    try:
        node = NodeUnderTest(url, upstreams, admin_token=admin_token)
        checks = tuple(await _check_all(node, requests))
    finally:
        await upstreams.close()
    return Report(node.url, wall(), verdict_of(checks), checks)


async def _check_all(node: NodeUnderTest, requests: int) -> list[Check]:
    checks = [await _checked("ready", "", lambda: _check_ready(node))]
    for model in await _names(node) if checks[0].outcome == "passed" else []:
        described, subject = await _describe(node, model)
        checks.append(described)
        if subject is not None:
            checks += await _check_model(node, subject, requests)
    return checks


async def _names(node: NodeUnderTest) -> list[str]:
    return [entry.name for entry in await node.models()]


async def _check_model(node: NodeUnderTest, subject: Subject, requests: int) -> list[Check]:
    golden = await _checked("golden parity", subject.name, lambda: _check_golden(node, subject))
    latency = await _checked("latency", subject.name, lambda: _measure_latency(node, subject, requests))
    return [golden, latency]


async def _checked(name: str, model: str, check: Callable[[], Awaitable[Check]]) -> Check:
    try:
        return msgspec.structs.replace(await check(), name=name, model=model)
    except _FAULTS as error:
        return Check(name, "failed", str(error) or type(error).__name__, model)


async def _check_ready(node: NodeUnderTest) -> Check:
    for path in ("/v2/health/live", "/v2/health/ready"):
        await node.get(path)
    server = await node.get_json("/v2", oip.ServerMetadata)
    models = await _names(node)
    told = f"{server.name} {server.version} serves {', '.join(models) or 'nothing'}"
    return Check("", "passed" if models else "failed", told)


async def _describe(node: NodeUnderTest, model: str) -> tuple[Check, Subject | None]:
    """Metadata and configuration must be there, agree with each other, and be of types that can be asked for."""
    try:
        metadata = await node.get_json(f"/v2/models/{model}", oip.ModelMetadata)
        config = await node.config(model)
    except _FAULTS as error:
        return Check("metadata", "failed", str(error), model), None
    strange = [spec.name for spec in (*metadata.inputs, *metadata.outputs) if spec.datatype not in NUMPY]
    if strange or not metadata.inputs or not metadata.outputs:
        return Check("metadata", "failed", f"tensors missing or of unknown type: {strange}", model), None
    told = f"version {', '.join(metadata.versions)}, {config.default_model_filename}, {config.digest}"
    return Check("metadata", "passed", told, model), Subject(model, metadata, config)


async def _check_golden(node: NodeUnderTest, subject: Subject) -> Check:
    """The bundle's own inputs through HTTP must give its own outputs, within its own tolerances."""
    if not node.admin_token:
        return Check("", "skipped", "give --admin-token: bundle files are handed to admins only")
    manifest = manifests.decode(await _bundle_file(node, subject.config.digest, manifests.FILE, subject.config.digest))
    inputs = await _load(node, subject, manifest, manifest.golden.inputs)
    expected = await _load(node, subject, manifest, manifest.golden.outputs[subject.config.default_model_filename])
    got = await _run(node, subject, inputs)
    head = manifest.postprocess
    for name, wanted in expected.items():
        labels = head.scores_classes and name == head.output
        fault = compare(got.get(name), wanted, manifest.golden, labels=labels)
        if fault:
            return Check("", "failed", f"output {name}: {fault}")
    rows = len(next(iter(inputs.values())))
    return Check("", "passed", f"{rows} rows of {manifest.reference} within atol {manifest.golden.atol:g}")


def compare(got: Array | None, wanted: Array, golden: Golden, *, labels: bool) -> str:
    """What is wrong with an output, "" when nothing is; `labels`: the best label of each row must agree too."""
    if got is None or got.shape != wanted.shape:
        return f"shape {None if got is None else got.shape}, expected {wanted.shape}"
    error = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
    # Not-a-number compares false, so it always fails here.
    if not np.all(error <= golden.atol + golden.rtol * np.abs(wanted.astype(np.float64))):
        return f"off by up to {np.max(error):.6g}"
    if labels and wanted.ndim == 2:
        agreement = float(np.mean(np.argmax(got, axis=1) == np.argmax(wanted, axis=1)))
        if agreement < golden.min_agreement:
            return f"labels agree in {agreement:.2%} of rows, not {golden.min_agreement:.2%}"
    return ""


async def _run(node: NodeUnderTest, subject: Subject, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """In slices of the largest batch the model takes; in one piece where it takes none."""
    step = subject.config.max_batch_size
    if step == 0:
        return (await node.infer(subject.name, inputs, subject.metadata)).outputs
    rows = len(next(iter(inputs.values())))
    runs = [
        (await node.infer(subject.name, _slice(inputs, at, at + step), subject.metadata)).outputs
        for at in range(0, rows, step)
    ]
    return {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}


async def _measure_latency(node: NodeUnderTest, subject: Subject, requests: int) -> Check:
    """One request after another over one connection, one row each."""
    inputs = {
        spec.name: np.zeros([max(1, size) for size in spec.shape], NUMPY[spec.datatype])
        for spec in subject.metadata.inputs
    }
    answers = [await node.infer(subject.name, inputs, subject.metadata) for _ in range(WARM_UP + requests)][WARM_UP:]
    hops = [answer.hop_ms for answer in answers]
    engine = [answer.infer_ms for answer in answers if answer.infer_ms is not None]
    ms = {"p50": _quantile(hops, 50), "p95": _quantile(hops, 95)}
    if engine:
        ms |= {"infer_p50": _quantile(engine, 50), "infer_p95": _quantile(engine, 95)}
    told = ", ".join(f"{name} {value:.2f} ms" for name, value in ms.items())
    return Check("", "passed", f"{told} over {requests} requests", ms=ms)


async def _load(
    node: NodeUnderTest, subject: Subject, manifest: Manifest, files: Mapping[str, str]
) -> dict[str, Array]:
    arrays = {}
    for name, path in files.items():
        data = await _bundle_file(node, subject.config.digest, path, manifest.files[path].sha256)
        arrays[name] = np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
    return arrays


async def _bundle_file(node: NodeUnderTest, digest: str, path: str, expected: str) -> bytes:
    data = (await node.get(f"/v1/bundles/{digest}/{path}", admin=True)).body
    if manifests.digest_of(data) != expected:
        raise FoothillError("bad_bundle", f"The node's {path} is not the one its bundle names: the copy is damaged.")
    return data


def _slice(inputs: Mapping[str, Array], start: int, end: int) -> dict[str, Array]:
    return {name: array[start:end] for name, array in inputs.items()}


def _quantile(values: list[float], percent: float) -> float:
    return float(np.percentile(values, percent))
