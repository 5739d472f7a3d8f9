"""The suite's own bundles: valid, the same each time, and wrong just where they should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from contracts import manifest as manifests
from contracts.errors import FoothillError
from contracts.manifest import File, Manifest, digest_of
from hil.trials import PROBE_FILE, PROBE_INPUT, Trial, broken, golden_output_files, probe, twin
from runtime.serving.models.golden import open_tested
from tests.edge_node.bundle_factory import MODEL_FILE, describe, pack


def placed(trial: Trial, directory: Path, base: Path | None = None) -> str:
    """The bundle's directory, its own contents beside those of the bundle it was made of; its digest."""
    for name, file in trial.manifest.files.items():
        data = trial.contents.get(file.sha256) or (base / name if base else directory).read_bytes()
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    (directory / manifests.FILE).write_bytes(manifests.encode(trial.manifest))
    return manifests.digest(trial.manifest)


@pytest.fixture
def base(tmp_path: Path) -> tuple[Path, str, Manifest]:
    digest = pack(tmp_path / "base")
    return tmp_path / "base", digest, describe(tmp_path / "base")


def test_a_twin_is_another_bundle_that_answers_the_same(base: tuple[Path, str, Manifest], tmp_path: Path) -> None:
    directory, digest, manifest = base
    trial = twin(manifest, digest, 1, 100_000)
    manifests.check(trial.manifest)
    assert trial == twin(manifest, digest, 1, 100_000)
    assert manifests.digest(trial.manifest) not in (digest, manifests.digest(twin(manifest, digest, 2, 9).manifest))
    assert trial.manifest.model == manifest.model
    made = placed(trial, tmp_path / "twin", directory)
    open_tested(tmp_path / "twin", made, target="cpu-x86", threads=1).close()


def test_a_broken_one_fails_its_golden_test(base: tuple[Path, str, Manifest], tmp_path: Path) -> None:
    directory, digest, manifest = base
    outputs = {path: (directory / path).read_bytes() for path in golden_output_files(manifest)}
    trial = broken(manifest, digest, outputs)
    manifests.check(trial.manifest)
    made = placed(trial, tmp_path / "broken", directory)
    with pytest.raises(FoothillError, match="golden test"):
        open_tested(tmp_path / "broken", made, target="cpu-x86", threads=1)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", "<i4", "<i8", "u1", "?"])
def test_golden_outputs_of_every_type_are_spoilt(base: tuple[Path, str, Manifest], dtype: str, tmp_path: Path) -> None:
    _, digest, manifest = base
    path = f"golden/{MODEL_FILE}/logits.npy"
    values = np.array([[0, 1, 5], [1, 0, 100]], dtype)
    np.save(tmp_path / "v.npy", values)
    data = (tmp_path / "v.npy").read_bytes()
    trial = broken(manifest, digest, {path: data})
    (tmp_path / "w.npy").write_bytes(trial.contents[trial.manifest.files[path].sha256])
    wrong = np.load(tmp_path / "w.npy")
    assert wrong.dtype == values.dtype
    assert np.all(wrong != values)
    assert trial.manifest.files[path] == File(digest_of((tmp_path / "w.npy").read_bytes()), len(data))


def test_so_are_texts(base: tuple[Path, str, Manifest], tmp_path: Path) -> None:
    _, digest, manifest = base
    path = f"golden/{MODEL_FILE}/logits.npy"
    values = np.array([["", "a"], ["zwölf", "?"]])
    np.save(tmp_path / "v.npy", values)
    trial = broken(manifest, digest, {path: (tmp_path / "v.npy").read_bytes()})
    (tmp_path / "w.npy").write_bytes(trial.contents[trial.manifest.files[path].sha256])
    wrong = np.load(tmp_path / "w.npy")
    assert wrong.dtype.kind == "U"
    assert np.all(wrong != values)


@pytest.mark.parametrize("target", ["cpu-x86", "jetson-orin-nano", "rtx-sm120"])
def test_a_probe_is_valid_for_every_target(target: str) -> None:
    trial = probe(target)
    manifests.check(trial.manifest)
    assert {file.sha256 for file in trial.manifest.files.values()} == set(trial.contents)


def test_the_probe_passes_its_golden_test_and_fails_in_the_engine_when_asked_for_more(tmp_path: Path) -> None:
    trial = probe("cpu-x86")
    loaded = open_tested(tmp_path, placed(trial, tmp_path), target="cpu-x86", threads=1)
    rows = np.ones((3, 2), np.float32)
    assert np.array_equal(loaded.run({PROBE_INPUT: rows})["same"], rows)
    with pytest.raises(FoothillError) as failed:
        loaded.run({PROBE_INPUT: np.full((1, 2), 9, np.float32)})
    # The caller's fault would be `bad_tensor`, which takes no bundle back.
    assert failed.value.code == "internal"
    loaded.close()


def test_the_probe_is_the_graph_that_is_drawn_here() -> None:
    """Two numbers as they are; above 2 the shape that they shall have is one that they cannot have."""
    nodes = [
        helper.make_node("ReduceMax", ["values"], ["most"], keepdims=1),
        helper.make_node("Greater", ["most", "limit"], ["over"]),
        helper.make_node("Cast", ["over"], ["step"], to=TensorProto.INT64),
        helper.make_node("Mul", ["step", "seven"], ["wrong"]),
        helper.make_node("Reshape", ["wrong", "one"], ["flat"]),
        helper.make_node("Add", ["flat", "two"], ["width"]),
        helper.make_node("Concat", ["free", "width"], ["shape"], axis=0),
        helper.make_node("Reshape", ["values", "shape"], ["same"]),
    ]
    constants = {
        "limit": np.array(2.0, np.float32),
        "seven": np.array(1_000_001, np.int64),
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "free": np.array([-1], np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("same", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="foothill")
    assert made.SerializeToString() in probe("cpu-x86").contents.values()
    assert PROBE_FILE in probe("cpu-x86").manifest.files
