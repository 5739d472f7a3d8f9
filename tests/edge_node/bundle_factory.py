"""Small real bundles: an 8x8 grey picture through one linear layer to ten logits, with golden files that hold."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.manifest import (
    FILE,
    Artifact,
    ConfidenceRule,
    File,
    Golden,
    Manifest,
    Postprocess,
    Preprocess,
    TensorSpec,
    digest_of,
    encode,
)
from contracts.strata import stratum_of

MODEL_FILE = "cpu.u8s8.onnx"
CLOUD_DIGEST = "sha256:" + "c" * 64

Array = npt.NDArray[np.float32]


def plain_manifest(*, version: str = "5", model: str = "digits", files: Mapping[str, bytes] | None = None) -> bytes:
    """A manifest that passes every check; the contents need not be a model."""
    contents = {
        MODEL_FILE: b"model " + version.encode(),
        "golden/inputs/image.npy": b"input",
        f"golden/{MODEL_FILE}/logits.npy": b"output",
    } | dict(files or {})
    return encode(_describe(version, model, contents, threshold=0.5))


def contents_of(version: str = "5", files: Mapping[str, bytes] | None = None) -> list[bytes]:
    """What `plain_manifest` with the same arguments describes."""
    return [b"model " + version.encode(), b"input", b"output", *(files or {}).values()]


def pack(
    directory: Path,
    *,
    version: str = "1",
    model: str = "digits",
    seed: int = 0,
    threshold: float = 0.5,
    golden_error: float = 0.0,
    model_bytes: bytes | None = None,
    extra: Mapping[str, bytes] | None = None,
) -> str:
    """Writes a packed bundle directory and returns its digest.

    `golden_error` shifts the golden outputs away from what the model computes; `model_bytes` replaces the model.
    """
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(64, 10)).astype(np.float32)
    images = rng.uniform(-1, 1, size=(4, 1, 8, 8)).astype(np.float32)
    logits = images.reshape(4, 64) @ weights + np.float32(golden_error)
    contents = {
        MODEL_FILE: _onnx(weights) if model_bytes is None else model_bytes,
        "golden/inputs/image.npy": _npy(images),
        f"golden/{MODEL_FILE}/logits.npy": _npy(logits),
    } | dict(extra or {})
    manifest = encode(_describe(version, model, contents, threshold))
    for name, data in {**contents, FILE: manifest}.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return digest_of(manifest)


def _describe(version: str, model: str, contents: Mapping[str, bytes], threshold: float) -> Manifest:
    rule = ConfidenceRule(
        temperature=1.0,
        threshold=threshold,
        epsilon=0.05,
        delta=0.05,
        n=100,
        feasible=True,
        stratum=stratum_of(digest_of(contents[MODEL_FILE]), CLOUD_DIGEST, "classification"),
        cloud_digest=CLOUD_DIGEST,
    )
    return Manifest(
        name=f"{model}-edge",
        version=version,
        model=model,
        task="classification",
        tier="edge",
        files={name: File(digest_of(data), len(data)) for name, data in contents.items()},
        artifacts=(Artifact(MODEL_FILE, "fp32", "onnxruntime", ("cpu-x86", "cpu-arm"), rule),),
        inputs=(TensorSpec("image", "FP32", (-1, 1, 8, 8)),),
        outputs=(TensorSpec("logits", "FP32", (-1, 10)),),
        postprocess=Postprocess("logits", "logits"),
        golden=Golden(
            {"image": "golden/inputs/image.npy"},
            {MODEL_FILE: {"logits": f"golden/{MODEL_FILE}/logits.npy"}},
            atol=1e-3,
            rtol=1e-3,
        ),
        preprocess=Preprocess(8, 8, "grey", 1 / 255, (0.5,), (0.5,)),
        labels=tuple("0123456789"),
    )


def _onnx(weights: Array) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        ],
        "linear",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(weights, "weights")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = made.SerializeToString()
    return data


def _npy(values: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def describe(directory: Path) -> Manifest:
    return msgspec.json.decode((directory / FILE).read_bytes(), type=Manifest)
