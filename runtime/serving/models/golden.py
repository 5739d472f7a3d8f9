"""The golden test: a loaded model must answer the bundle's own inputs as it did when it was compiled."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np

from contracts.errors import FoothillError
from contracts.manifest import Golden
from runtime.serving.engines.opening import Opening
from runtime.serving.engines.providers import Wish
from runtime.serving.engines.tensors import Array
from runtime.serving.models.loaded import LoadedModel
from runtime.serving.models.postprocess import check_found
from runtime.serving.models.warm_up import warm_up


class GoldenMismatch(FoothillError):  # noqa: N818 - it names what was found
    """The model on this machine does not answer as its bundle says."""

    def __init__(self, reference: str, what: str) -> None:
        super().__init__(
            "bad_bundle",
            f"Bundle {reference} fails its golden test here: {what}. It is not served; compile it for this target.",
        )


def open_tested(
    directory: Path,
    digest: str,
    *,
    target: str,
    threads: int,
    wish: Wish | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> LoadedModel:
    """A verified bundle, loaded, held to its golden test and warm; blocks. Raises FoothillError `bad_bundle`."""
    began_s = clock()
    loaded = LoadedModel.open(directory, digest, target=target, threads=threads, wish=wish)
    loaded_s = clock()
    try:
        check_golden(loaded)
    except FoothillError as error:
        if loaded.kept is None or wish is None:
            loaded.close()
            raise
        loaded.kept.refuse(error.message)
        loaded.close()
        itself = msgspec.structs.replace(wish, cache=None)
        return open_tested(directory, digest, target=target, threads=threads, wish=itself, clock=clock)
    if loaded.kept is not None:
        loaded.kept.survived()
    answered_s = clock()
    try:
        warm_up(loaded)
    except FoothillError:
        loaded.close()
        raise
    loaded.opening = Opening(loaded_s - began_s, answered_s - began_s, clock() - answered_s)
    return loaded


def check_golden(model: LoadedModel) -> None:
    """Runs the golden inputs; blocks. Raises GoldenMismatch naming the tensor and its worst error, or FoothillError
    `bad_bundle` where a detector's head cannot read its outputs."""
    golden = model.manifest.golden
    reference = model.manifest.reference
    inputs = _load(model, golden.inputs)
    expected = _load(model, golden.outputs[model.artifact.file])
    if not expected:
        raise GoldenMismatch(reference, f"it has no golden outputs for {model.artifact.file}")
    got = _run(model, inputs)
    for name, wanted in expected.items():
        _check_tensor(reference, name, wanted, got, golden)
    head = model.manifest.postprocess
    if head.scores_classes and head.output in expected:
        _check_labels(reference, head.output, expected[head.output], got[head.output], golden)
    check_found(got, model.manifest)


def _check_tensor(reference: str, name: str, wanted: Array, outputs: Mapping[str, Array], golden: Golden) -> None:
    got = outputs.get(name)
    if got is None or got.shape != wanted.shape or got.dtype != wanted.dtype:
        found = "nothing" if got is None else f"{got.dtype} {list(got.shape)}"
        raise GoldenMismatch(reference, f"tensor {name!r} is {found}, expected {wanted.dtype} {list(wanted.shape)}")
    if got.dtype.kind not in "fiu":
        if not np.array_equal(got, wanted):
            unlike = np.argwhere(np.asarray(got != wanted))
            raise GoldenMismatch(reference, f"tensor {name!r} is not what it should be in {len(unlike)} of {got.size}")
        return
    error = _error(got, wanted)
    # Not-a-number compares false, so it always fails here.
    if not np.all(error <= golden.atol + golden.rtol * np.abs(wanted.astype(np.float64))):
        worst = float(np.max(error))
        raise GoldenMismatch(
            reference, f"tensor {name!r} is off by up to {worst:.6g} (atol {golden.atol:g}, rtol {golden.rtol:g})"
        )


def _check_labels(reference: str, name: str, wanted: Array, got: Array, golden: Golden) -> None:
    agreement = float(np.mean(np.argmax(got, axis=1) == np.argmax(wanted, axis=1)))
    if agreement < golden.min_agreement:
        raise GoldenMismatch(
            reference, f"the top labels of {name!r} agree in {agreement:.2%} of rows, not {golden.min_agreement:.2%}"
        )


def _error(got: Array, wanted: Array) -> Array:
    return np.asarray(np.abs(got.astype(np.float64) - wanted.astype(np.float64)))


def _run(model: LoadedModel, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """In slices of at most `max_batch` rows, as requests come; in one piece where there is no batch."""
    if not model.batches:
        return model.run(inputs)
    rows = min(len(array) for array in inputs.values())
    step = model.manifest.max_batch
    runs = [model.run({name: array[at : at + step] for name, array in inputs.items()}) for at in range(0, rows, step)]
    return {name: np.concatenate([run[name] for run in runs]) for name in runs[0]} if runs else {}


def _load(model: LoadedModel, paths: Mapping[str, str]) -> dict[str, Array]:
    return {name: _read(model.manifest.reference, model.directory / path) for name, path in paths.items()}


def _read(reference: str, path: Path) -> Array:
    try:
        array = np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise GoldenMismatch(reference, f"{path.name} is no array file ({error})") from error
    # Text lies in a file in elements of one length, and comes out of a session as it is.
    return array.astype(object) if array.dtype.kind == "U" else array
