"""Opening a bundle: the artifact for the target, and every way in which a bundle does not fit this machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from contracts.errors import FoothillError
from contracts.manifest import (
    FILE,
    Artifact,
    File,
    Isotonic,
    Manifest,
    Postprocess,
    Preprocess,
    TensorSpec,
    decode,
    digest_of,
)
from contracts.predictions import label_answer
from runtime.serving.models.loaded import LoadedModel, pick_artifact
from tests.runtime.serving.bundle_factory import (
    MODEL_FILE,
    TARGET,
    change_manifest,
    make_classifier,
    make_echo,
    make_lookup,
)
from tests.runtime.serving.conftest import Load


def test_an_opened_bundle_runs_and_reads_its_own_answers(load: Load) -> None:
    loaded = load(make_lookup)
    outputs = loaded.run({"index": np.array([[3], [1]])})
    assert loaded.read(outputs).answer == label_answer([3, 1])
    assert loaded.read(outputs).confidence is None
    assert loaded.batches
    assert loaded.engine.provider == "CPUExecutionProvider"
    loaded.close()


def test_an_edge_artifact_brings_its_stratum_and_its_confidence(load: Load) -> None:
    loaded = load(bias=[9.0] + [0.0] * 9)
    reading = loaded.read(loaded.run({"image": np.zeros((2, 1, 8, 8), np.float32)}))
    assert len(loaded.stratum) == 32
    assert reading.answer == "0,0"
    assert reading.confidence == pytest.approx(np.exp(9) / (np.exp(9) + 9))
    loaded.close()


def test_a_confidence_goes_through_the_map_of_the_artifacts_rule(load: Load) -> None:
    logits = {"image": np.zeros((1, 1, 8, 8), np.float32)}
    plain = load(bias=[3.0] + [0.0] * 9)
    rule = plain.artifact.confidence
    assert rule is not None
    mapped = msgspec.structs.replace(rule, isotonic=Isotonic((0.0, 1.0), (0.4, 0.9)))
    digest = change_manifest(plain.directory, artifacts=(msgspec.structs.replace(plain.artifact, confidence=mapped),))
    loaded = LoadedModel.open(plain.directory, digest, target=TARGET, threads=1)
    before, after = plain.read(plain.run(logits)), loaded.read(loaded.run(logits))
    assert before.confidence is not None
    assert after.confidence == pytest.approx(0.4 + 0.5 * before.confidence)
    assert after.probabilities == pytest.approx(before.probabilities)
    plain.close()
    loaded.close()


def test_the_tensors_of_a_detector_without_a_head_are_read_as_nothing_more(load: Load) -> None:
    loaded = load(
        make_echo, datatypes=("FP32", "INT64"), task="detection", postprocess=Postprocess("y_FP32", "tensors")
    )
    outputs = loaded.run({"x_FP32": np.ones((1, 2), np.float32), "x_INT64": np.ones((1, 2), np.int64)})
    assert set(outputs) == {"y_FP32", "y_INT64"}
    reading = loaded.read(outputs)
    assert (reading.confidence, reading.answer, reading.probabilities, reading.found) == (None, "", None, None)
    loaded.close()


def manifest_with(load: Load, *artifacts: Artifact) -> Manifest:
    loaded = load()
    loaded.close()
    return msgspec.structs.replace(loaded.manifest, artifacts=artifacts)


def test_the_first_artifact_of_the_target_is_picked(load: Load) -> None:
    trt = Artifact("trt.s8.onnx", "int8", "tensorrt", ("cpu-x86",))
    arm = Artifact("arm.onnx", "int8", "onnxruntime", ("cpu-arm",))
    int8 = Artifact("cpu.u8s8.onnx", "int8", "onnxruntime", ("cpu-x86", "cpu-arm"))
    fp32 = Artifact("fp32.onnx", "fp32", "onnxruntime", ("cpu-x86",))
    manifest = manifest_with(load, trt, arm, int8, fp32)
    assert pick_artifact(manifest, "cpu-x86") is int8
    assert pick_artifact(manifest, "cpu-arm") is arm
    with pytest.raises(
        FoothillError, match="no ONNX Runtime artifact for jetson-thor; it has some for cpu-arm, cpu-x86"
    ):
        pick_artifact(manifest, "jetson-thor")


FP32 = TensorSpec("image", "FP32", (-1, 1, 8, 8))
BROKEN: list[tuple[str, Callable[..., str], dict[str, Any], str]] = [
    ("input name", make_classifier, {"inputs": (TensorSpec("x", "FP32", (-1, 1, 8, 8)),)}, "golden inputs"),
    ("input type", make_classifier, {"inputs": (TensorSpec("image", "FP16", (-1, 1, 8, 8)),)}, "preprocess gives"),
    ("input shape", make_classifier, {"inputs": (TensorSpec("image", "FP32", (-1, 1, 8, 9)),)}, "preprocess gives"),
    ("no shape of the model", make_lookup, {"inputs": (TensorSpec("index", "INT64", (-1, 2)),)}, r"shape \[-1, 1\]"),
    ("no type of the model", make_lookup, {"inputs": (TensorSpec("index", "INT32", (-1, 1)),)}, "is INT64, in"),
    ("output name", make_echo, {"outputs": (TensorSpec("y", "INT8", (-1, 2)),)}, "postprocess reads output"),
    ("unknown type", make_echo, {"inputs": (TensorSpec("x_INT8", "FP8", (-1, 2)),)}, "x_INT8 is FP8; served are"),
    ("picture", make_classifier, {"preprocess": Preprocess(9, 9, "grey", 1.0, (0.0,), (1.0,))}, "preprocess gives"),
    ("vector of classes", make_classifier, {"postprocess": Postprocess("logits", "vector")}, "needs logits or prob"),
    ("tensors of classes", make_lookup, {"postprocess": Postprocess("logits", "tensors")}, "needs logits or prob"),
    ("tensors of an embedding", make_echo, {"postprocess": Postprocess("y_INT8", "tensors")}, "needs a vector"),
    ("logits of an embedding", partial(make_classifier, tier="cloud"), {"task": "embedding"}, "needs a vector"),
    ("labels", make_classifier, {"labels": ("a", "b")}, "2 labels for 10 classes"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("factory", "changes", "says"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN]
)
def test_a_bundle_that_contradicts_itself_is_refused_by_name(
    tmp_path: Path, factory: Callable[..., str], changes: dict[str, Any], says: str
) -> None:
    options = {"datatypes": ("INT8",)} if factory is make_echo else {}
    factory(tmp_path, **options)
    digest = change_manifest(tmp_path, **changes)
    with pytest.raises(FoothillError, match=says) as refused:
        LoadedModel.open(tmp_path, digest, target=TARGET, threads=1)
    assert refused.value.code == "bad_bundle"


def test_logits_of_rank_three_cannot_answer(tmp_path: Path) -> None:
    make_lookup(tmp_path)
    digest = change_manifest(tmp_path, outputs=(TensorSpec("logits", "FP32", (-1, 2, 2)),))
    with pytest.raises(FoothillError, match="logits need an output of shape"):
        LoadedModel.open(tmp_path, digest, target=TARGET, threads=1)


def test_a_directory_of_another_bundle_is_refused(tmp_path: Path) -> None:
    make_lookup(tmp_path)
    with pytest.raises(FoothillError, match="holds another bundle than"):
        LoadedModel.open(tmp_path, "sha256:" + "0" * 64, target=TARGET, threads=1)
    with pytest.raises(FoothillError, match="no bundle directory"):
        LoadedModel.open(tmp_path / "nothing", "sha256:" + "0" * 64, target=TARGET, threads=1)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    make_lookup(tmp_path)
    data = b"not a model"
    (tmp_path / MODEL_FILE).write_bytes(data)
    files = decode((tmp_path / FILE).read_bytes()).files
    digest = change_manifest(tmp_path, files={**files, MODEL_FILE: File(digest_of(data), len(data))})
    with pytest.raises(FoothillError, match="does not load"):
        LoadedModel.open(tmp_path, digest, target=TARGET, threads=1)


def test_an_artifact_that_changed_on_the_disk_is_not_opened(tmp_path: Path) -> None:
    digest = make_lookup(tmp_path)
    for harm in ("changed", "gone"):
        (tmp_path / MODEL_FILE).write_bytes(b"not a model")
        if harm == "gone":
            (tmp_path / MODEL_FILE).unlink()
        with pytest.raises(FoothillError, match=r"fp32\.onnx changed on disk") as refused:
            LoadedModel.open(tmp_path, digest, target=TARGET, threads=1)
        assert refused.value.code == "bad_bundle"


def test_a_missing_accelerator_is_an_error_and_never_the_cpu_without_a_word(tmp_path: Path) -> None:
    make_lookup(tmp_path)
    artifact = Artifact(MODEL_FILE, "fp32", "onnxruntime", ("rtx-sm89",))
    digest = change_manifest(tmp_path, artifacts=(artifact,))
    with pytest.raises(FoothillError, match=r"was to run on CUDAExecutionProvider, but ONNX Runtime offers .*CPU"):
        LoadedModel.open(tmp_path, digest, target="rtx-sm89", threads=1)
