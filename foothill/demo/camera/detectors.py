"""Two detectors as bundles for one model: a small one that knows people, for the box, and a larger one behind it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from contracts.boards import BOARDS
from contracts.manifest import Artifact, Detector, Golden, Manifest, Postprocess, Preprocess, TensorSpec, Tier
from foothill.demo.camera import frozen, parcels, ssd
from foothill.site import MachineError
from model_compiler import pack
from model_compiler.label_lists import COCO90
from model_compiler.pack import Packed

MODEL = "street"
_FILE, _GOLDEN = "fp32.onnx", "golden/{}.npy"
_LOWEST_SCORES: dict[Tier, float] = {"edge": 0.1, "cloud": 0.4}
"""Cameras track the unsure ones too; a second look should know."""
_OVERLAP = 0.6
_CPUS = tuple(target for target, board in BOARDS.items() if board.family == "cpu")


def small(packages: Path, directory: Path) -> Packed:
    return _packed(parcels.opened(parcels.PEOPLE, packages), ("person",), "edge", directory)


def large(packages: Path, directory: Path) -> Packed:
    return _packed(parcels.opened(parcels.COCO, packages), COCO90, "cloud", directory)


def _packed(graph: bytes, labels: Sequence[str], tier: Tier, directory: Path) -> Packed:
    """Raises MachineError where the graph is no such detector."""
    try:
        onnx = ssd.to_onnx(frozen.nodes_of(graph), len(labels))
    except ValueError as error:
        raise MachineError(str(error)) from error
    picture = np.random.default_rng(0).uniform(-1.0, 1.0, (1, 3, ssd.SIDE, ssd.SIDE)).astype(np.float32)
    names = [ssd.BOXES, ssd.SCORES]
    session = ort.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    told = dict(zip(names, session.run(names, {ssd.INPUT: picture}), strict=True))
    golden = {name: _GOLDEN.format(name) for name in (ssd.INPUT, *names)}
    contents = {_FILE: onnx, golden[ssd.INPUT]: pack.npy(picture)}
    contents |= {golden[name]: pack.npy(array) for name, array in told.items()}
    manifest = Manifest(
        name=f"{MODEL}-{tier}",
        version="1",
        model=MODEL,
        task="detection",
        tier=tier,
        files=pack.files_of(contents),
        artifacts=(Artifact(_FILE, "fp32", "onnxruntime", _CPUS),),
        inputs=(TensorSpec(ssd.INPUT, "FP32", (-1, 3, ssd.SIDE, ssd.SIDE)),),
        outputs=tuple(TensorSpec(name, "FP32", (-1, *told[name].shape[1:])) for name in names),
        preprocess=Preprocess(ssd.SIDE, ssd.SIDE, "rgb", 2 / 255, (1.0,) * 3, (1.0,) * 3, "stretch"),
        postprocess=Postprocess(
            ssd.BOXES,
            "ssd",
            Detector(
                boxes=(ssd.BOXES,),
                scores=(ssd.SCORES,),
                box="yxyx",
                normalised=True,
                score_threshold=_LOWEST_SCORES[tier],
                iou_threshold=_OVERLAP,
            ),
        ),
        labels=tuple(labels),
        golden=Golden({ssd.INPUT: golden[ssd.INPUT]}, {_FILE: {name: golden[name] for name in names}}, 1e-2, 1e-2),
    )
    return pack.pack(directory, manifest, contents)
