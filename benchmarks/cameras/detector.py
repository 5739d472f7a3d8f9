"""The person detector out of the assets folder, as a bundle."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from benchmarks.bundles import ASSETS
from contracts.boards import BOARDS
from contracts.manifest import (
    Artifact,
    ConfidenceRule,
    Detector,
    Golden,
    Manifest,
    Postprocess,
    Preprocess,
    TensorSpec,
    digest_of,
)
from contracts.strata import stratum_of
from model_compiler import pack
from model_compiler.pack import Packed

MODEL = "pedestrians"
FILE = "fp32.onnx"
SIDE = 300
SCORE = 0.1
"""Cameras track the unsure ones too."""
_CLOUD = f"sha256:{0:064x}"
_CPUS = tuple(target for target, board in BOARDS.items() if board.family == "cpu")
_OUTPUTS = {
    "num_detections": (-1,),
    "detection_boxes": (-1, 100, 4),
    "detection_scores": (-1, 100),
    "detection_classes": (-1, 100),
}


def assets() -> Path:
    """Raises SystemExit where no folder is named."""
    folder = os.environ.get(ASSETS)
    if not folder:
        raise SystemExit(f"The cameras' benchmark needs real clips and a detector: name their folder in {ASSETS}.")
    return Path(folder)


def person_detector(directory: Path) -> Packed:
    """Finds what it finds by itself: the graph holds its own non-maximum suppression."""
    model = _plainly_named(onnx.load(str(assets() / "models/pedestrian_ssdlite.onnx")))
    data: bytes = model.SerializeToString()
    picture = np.random.default_rng(0).integers(0, 255, (1, SIDE, SIDE, 3), np.uint8)
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    told = dict(zip(_OUTPUTS, session.run(list(_OUTPUTS), {"image_tensor": picture}), strict=True))
    golden = {name: f"golden/{name}.npy" for name in _OUTPUTS}
    contents = {FILE: data, "golden/in.npy": pack.npy(picture)}
    contents |= {golden[name]: pack.npy(array) for name, array in told.items()}
    manifest = Manifest(
        name=f"{MODEL}-edge",
        version="1",
        model=MODEL,
        task="detection",
        tier="edge",
        files=pack.files_of(contents),
        artifacts=(Artifact(FILE, "fp32", "onnxruntime", _CPUS, _rule(data)),),
        inputs=(TensorSpec("image_tensor", "UINT8", (-1, SIDE, SIDE, 3)),),
        outputs=tuple(TensorSpec(name, "FP32", shape) for name, shape in _OUTPUTS.items()),
        preprocess=Preprocess(SIDE, SIDE, "rgb", 1.0, (0.0,) * 3, (1.0,) * 3, "stretch", layout="nhwc"),
        postprocess=Postprocess(
            "detection_boxes",
            "ssd",
            Detector(
                boxes=("detection_boxes",),
                scores=("detection_scores",),
                classes="detection_classes",
                box="yxyx",
                normalised=True,
                first_class=1,
                iou_threshold=1.0,
                score_threshold=SCORE,
            ),
        ),
        labels=("person",),
        golden=Golden({"image_tensor": "golden/in.npy"}, {FILE: golden}, atol=1e-2, rtol=1e-2),
    )
    return pack.pack(directory, manifest, contents)


def _rule(model: bytes) -> ConfidenceRule:
    """Made up, and as strict as one that was fitted would be: a fifth of the street's tracks are less sure."""
    return ConfidenceRule(
        temperature=1.0,
        threshold=0.6,
        epsilon=0.05,
        delta=0.05,
        n=1000,
        feasible=True,
        stratum=stratum_of(digest_of(model), _CLOUD, "detection"),
        cloud_digest=_CLOUD,
    )


def _plainly_named(model: onnx.ModelProto) -> onnx.ModelProto:
    """TensorFlow's `name:0` is no name for a tensor in a manifest."""
    outer = {value.name for value in (*model.graph.input, *model.graph.output)}
    for node in model.graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                names[at] = name.removesuffix(":0") if name in outer else name
    for value in (*model.graph.input, *model.graph.output):
        value.name = value.name.removesuffix(":0")
    return model
