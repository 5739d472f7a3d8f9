"""The bundle's manifest: what a bundle is made of, and the rules that every reader holds it to."""

from __future__ import annotations

import hashlib
import re
from itertools import pairwise
from typing import Literal

import msgspec

from contracts.boards import BOARDS
from contracts.decoding import UNREADABLE
from contracts.errors import FoothillError
from contracts.strata import stratum_of
from contracts.topics import NODE_NAME

SCHEMA = 1
FILE = "manifest.json"
MEASUREMENTS_FILE = "measurements.json"
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILES = 256
MAX_FILE_BYTES = 1 << 46
"""More than any disk of a node has, and exact in JSON, also when all files are added up."""
MAX_PIXELS = 64_000_000
MAX_THRESHOLD = 2.0
"""A confidence is at most 1: a threshold above it escalates everything."""
MAX_KNOTS = 64

Precision = Literal["fp32", "fp16", "int8", "int4"]
Runtime = Literal["onnxruntime", "tensorrt"]
PostprocessKind = Literal["logits", "probabilities", "vector", "tensors"]
DetectorKind = Literal["yolo", "ssd", "nanodet"]
DETECTORS: tuple[DetectorKind, ...] = ("yolo", "ssd", "nanodet")
BoxFormat = Literal["cxcywh", "xyxy", "yxyx"]
Task = Literal["classification", "detection", "embedding"]
Tier = Literal["edge", "cloud"]

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,2}")
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}(/[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}){0,3}")


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`sha256` is a digest `sha256:<64 hex>`; `bytes` the exact length."""

    sha256: str
    bytes: int


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`datatype` is an Open Inference Protocol name (`FP32`, `UINT8`, …); -1 in `shape` is the batch."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Preprocess(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From a decoded picture to the input tensor NCHW: resize, colour order, then `(pixel * scale - mean) / std`.

    `mean` and `std` have one value a channel, in units of the scaled pixel. `layout` is told where it is not NCHW. A
    model that takes UINT8 gets the pixels as they are.
    """

    width: int
    height: int
    colour: Literal["grey", "rgb", "bgr"]
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Literal["stretch", "letterbox", "crop"] = "stretch"
    layout: Literal["nhwc"] | msgspec.UnsetType = msgspec.UNSET


class Detector(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a detector's outputs become boxes. Boxes are in pixels of the model's picture, or shares of it where they are
    `normalised`; classes count from `first_class`, those below are background.

    `yolo`: one output [rows, anchors, values], or [rows, values, anchors] where the `anchors_last`; values are four of
    the box, then an `objectness` where there is one, then a score for each class.
    `ssd`: `boxes` [rows, found, 4] with `scores` [rows, found] and `classes` [rows, found], or without `classes` scores
    [rows, found, classes].
    `nanodet`: for each of the `strides` an output of `scores` [rows, cells, classes] and one of `boxes`
    [rows, cells, 4 * (reg_max + 1)]: distributions of the distances from a cell's centre to the four sides, in strides
    (Li et al. 2020, "Generalized Focal Loss", arXiv:2006.04388). `cell_offset` is where in a cell its centre is.

    `activation`: what makes scores of the graph's outputs. Boxes below `score_threshold` are left out, and those that
    overlap a better one of the same class (of any, where it is `class_agnostic`) by more than `iou_threshold`; 1: the
    graph has seen to that.
    """

    boxes: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()
    classes: str = ""
    strides: tuple[int, ...] = ()
    reg_max: int = 7
    cell_offset: float = 0.5
    box: BoxFormat = "cxcywh"
    normalised: bool = False
    objectness: bool = False
    anchors_last: bool = False
    activation: Literal["none", "sigmoid"] = "none"
    first_class: int = 0
    score_threshold: float = 0.25
    iou_threshold: float = 0.5
    class_agnostic: bool = False
    max_objects: int = 300


class Postprocess(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How `output` becomes an answer: `logits` (softmax, top label), `probabilities`, or `vector` (embedding).

    `tensors`: all outputs as they are, whichever of them is named here; no head makes an answer of them.
    `yolo`, `ssd`, `nanodet`: boxes, as `detector` says; `output` is the first of those that they are made of.
    """

    output: str
    kind: PostprocessKind | DetectorKind
    detector: Detector | None = None

    @property
    def scores_classes(self) -> bool:
        """Whether each row of `output` scores classes, so that its largest value names a label."""
        return self.kind in ("logits", "probabilities")


class Isotonic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A strictly rising map, linear between its 2 to 64 knots: `scores` run from 0 to 1, `probabilities` lie within.

    Rising strictly, it keeps the order of what it maps.
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]


class ConfidenceRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The confidence of one artifact, and the seed threshold fitted on it for the joint risk.

    confidence = isotonic(max softmax(logits / temperature)), the probability that the cloud would answer the same;
    without `isotonic` it is the softmax itself. Of a detector it is isotonic(score) of an object, the probability that
    the cloud would say the same label there; a picture is as sure as the least sure label in it, each by its best
    object. Its `temperature` is 1. Accept at the edge when confidence >= threshold.
    `threshold` above 1 escalates everything (`feasible` is then False). `n` calibration samples; joint risk at most
    `epsilon` with confidence 1 - `delta`, against the cloud bundle `cloud_digest`.

    A rule without a map is encoded without that field: manifests older than the map keep their bytes.
    """

    temperature: float
    threshold: float
    epsilon: float
    delta: float
    n: int
    feasible: bool
    stratum: str
    cloud_digest: str
    isotonic: Isotonic | None = None


class Artifact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One runnable form of the model. `file` names an entry of `Manifest.files`."""

    file: str
    precision: Precision
    runtime: Runtime
    targets: tuple[str, ...]
    confidence: ConfidenceRule | None = None


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Golden inputs and outputs: `.npy` files by tensor name, per artifact file.

    An output passes when every value is within `atol + rtol * |expected|` and the share of rows whose top label
    agrees is at least `min_agreement`.
    """

    inputs: dict[str, str]
    outputs: dict[str, dict[str, str]]
    atol: float
    rtol: float
    min_agreement: float = 1.0


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that is signed about a bundle. Its digest is the bundle's address."""

    name: str
    version: str
    model: str
    task: Task
    tier: Tier
    files: dict[str, File]
    artifacts: tuple[Artifact, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    postprocess: Postprocess
    golden: Golden
    preprocess: Preprocess | None = None
    labels: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    max_batch: int = 32
    schema: int = SCHEMA

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one artifact did when it was compiled.

    `accuracy`: a share of 1 by the metric that the measurements name, over `samples`; None where there were none.
    `latency_ms`: at batch 1 on one thread; None for an artifact that the compiling machine cannot run.
    """

    accuracy: float | None
    samples: int
    latency_ms: float | None
    bytes: int
    agreement: float | None = None
    escalation: float | None = None


class Measurements(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The attached file, outside the content address, so that a bundle rebuilds byte for byte.

    `teacher` is the cloud bundle's first artifact, or the teacher's fp32 form, on the same samples, timed in turns with
    this bundle's artifacts.
    """

    bundle: str
    artifacts: dict[str, Measured]
    how: str
    machine: str
    teacher: Measured | None = None
    metric: str = "accuracy"


def encode(manifest: Manifest) -> bytes:
    """Canonical JSON: sorted keys, no spaces. The same manifest always has the same bytes."""
    return msgspec.json.encode(manifest, order="sorted")


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest(manifest: Manifest) -> str:
    return digest_of(encode(manifest))


def decode(data: bytes) -> Manifest:
    """Reads and checks a manifest. Raises FoothillError `bad_bundle` that names the field and the rule."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise _bad(f"it has {len(data)} bytes; at most {MAX_MANIFEST_BYTES} are read")
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except UNREADABLE as error:
        raise _bad(str(error)) from error
    check(manifest)
    return manifest


def check(manifest: Manifest) -> None:
    """Raises FoothillError `bad_bundle` for the first broken rule."""
    _check_names(manifest)
    _check_files(manifest)
    _check_artifacts(manifest)
    _check_golden(manifest)
    _check_preprocess(manifest)
    _check_detector(manifest)


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether `text` can name a bundle or a model."""
    return NODE_NAME.fullmatch(text) is not None


def is_version(text: str) -> bool:
    return _VERSION.fullmatch(text) is not None


def parse_reference(text: str) -> tuple[str, str]:
    """`name@version` as its two parts; raises FoothillError `bad_request`."""
    name, _, version = text.partition("@")
    if not is_name(name) or not is_version(version):
        raise FoothillError("bad_request", f"{text!r} is not a bundle: write NAME@VERSION, such as detector@1.4.0.")
    return name, version


def _check_names(manifest: Manifest) -> None:
    if manifest.schema != SCHEMA:
        raise _bad(f"schema {manifest.schema} is unknown; this version reads schema {SCHEMA}")
    for field, value in (("name", manifest.name), ("model", manifest.model)):
        if not NODE_NAME.fullmatch(value):
            raise _bad(f"{field} {value!r} must be lower-case letters, digits and '-', at most 63")
    if not _VERSION.fullmatch(manifest.version):
        raise _bad(f"version {manifest.version!r} must be one to three numbers with dots, such as 1.4.0")
    if not all(is_digest(parent) for parent in manifest.parents):
        raise _bad("parents must be digests sha256:<64 hex digits>")
    if not 1 <= manifest.max_batch <= 4096:
        raise _bad(f"max_batch {manifest.max_batch} must be in 1..4096")


def _check_files(manifest: Manifest) -> None:
    if not 1 <= len(manifest.files) <= MAX_FILES:
        raise _bad(f"it names {len(manifest.files)} files; 1 to {MAX_FILES} are allowed")
    sizes: dict[str, int] = {}
    for path, file in manifest.files.items():
        if not _PATH.fullmatch(path):
            raise _bad(f"file {path[:80]!r} is no plain relative path (letters, digits, '.', '_', '-', at most 4 deep)")
        if not is_digest(file.sha256) or not 0 <= file.bytes <= MAX_FILE_BYTES:
            raise _bad(f"file {path}: sha256 must be sha256:<64 hex digits> and bytes 0 to {MAX_FILE_BYTES}")
        if sizes.setdefault(file.sha256, file.bytes) != file.bytes:
            raise _bad(f"file {path}: the same content cannot have {file.bytes} and {sizes[file.sha256]} bytes")
    _check_paths(set(manifest.files))


def _check_paths(paths: set[str]) -> None:
    """All of them, and what lies beside them, must fit into one directory."""
    taken = [path for path in paths if path.startswith((FILE, MEASUREMENTS_FILE))]
    if taken:
        # With a suffix too: that is how these files are called while they are written.
        raise _bad(f"{sorted(taken)} are names of the bundle itself, not of its files")
    for path in paths:
        above = {"/".join(path.split("/")[:depth]) for depth in range(1, path.count("/") + 1)}
        if above & paths:
            raise _bad(f"file {path} lies under another file, {sorted(above & paths)[0]}")


def _check_artifacts(manifest: Manifest) -> None:
    if not manifest.artifacts or not manifest.inputs or not manifest.outputs:
        raise _bad("it needs at least one artifact, one input and one output")
    for artifact in manifest.artifacts:
        if artifact.file not in manifest.files:
            raise _bad(f"artifact {artifact.file!r} is not among its files")
        unknown = [target for target in artifact.targets if target not in BOARDS]
        if unknown or not artifact.targets:
            raise _bad(f"artifact {artifact.file}: targets {unknown} are not in the board table: {', '.join(BOARDS)}")
        if artifact.confidence is not None:
            _check_rule(manifest, artifact.file, artifact.confidence)
    if manifest.postprocess.output not in {spec.name for spec in manifest.outputs}:
        raise _bad(f"postprocess reads output {manifest.postprocess.output!r}, which the model does not have")


def _check_rule(manifest: Manifest, file: str, rule: ConfidenceRule) -> None:
    if not (rule.temperature > 0 and 0 < rule.epsilon < 1 and 0 < rule.delta < 1 and rule.n >= 0):
        raise _bad(f"confidence of {file}: temperature > 0, 0 < epsilon < 1, 0 < delta < 1 and n >= 0 must hold")
    if not 0 <= rule.threshold <= MAX_THRESHOLD:
        raise _bad(f"confidence of {file}: threshold must be 0 to {MAX_THRESHOLD:g}; above 1 escalates everything")
    if not is_digest(rule.cloud_digest):
        raise _bad(f"confidence of {file}: cloud_digest must be sha256:<64 hex digits>")
    if rule.stratum != stratum_of(manifest.files[file].sha256, rule.cloud_digest, manifest.task):
        raise _bad(f"confidence of {file}: stratum must be that of the artifact, the cloud bundle and the task")
    _check_scale(manifest.postprocess, file, rule)
    if rule.isotonic is not None:
        _check_isotonic(file, rule.isotonic)


def _check_scale(head: Postprocess, file: str, rule: ConfidenceRule) -> None:
    """What the rule's confidence is made of."""
    if head.detector is None and not head.scores_classes:
        raise _bad(f"confidence of {file}: it needs logits or probabilities, or a detector's head, not {head.kind}")
    if head.detector is not None and rule.temperature != 1:
        raise _bad(f"confidence of {file}: a detector's scores have no temperature: it must be 1")


def _check_isotonic(file: str, isotonic: Isotonic) -> None:
    scores, probabilities = isotonic.scores, isotonic.probabilities
    if not 2 <= len(scores) == len(probabilities) <= MAX_KNOTS:
        raise _bad(f"confidence of {file}: isotonic must have 2 to {MAX_KNOTS} scores and as many probabilities")
    if not (_rises(scores) and _rises(probabilities) and (scores[0], scores[-1]) == (0.0, 1.0)):
        raise _bad(f"confidence of {file}: isotonic must rise strictly, scores from 0 to 1, probabilities within 0..1")


def _rises(values: tuple[float, ...]) -> bool:
    # Not-a-number compares false, so it is refused here.
    return all(0.0 <= low < high <= 1.0 for low, high in pairwise(values))


def _check_golden(manifest: Manifest) -> None:
    golden = manifest.golden
    named = [*golden.inputs.values(), *(path for outputs in golden.outputs.values() for path in outputs.values())]
    missing = [path for path in named if path not in manifest.files]
    if missing:
        raise _bad(f"golden files {missing} are not among its files")
    if set(golden.inputs) != {spec.name for spec in manifest.inputs}:
        raise _bad("golden inputs must name each input tensor once")
    without = [artifact.file for artifact in manifest.artifacts if artifact.file not in golden.outputs]
    if without:
        raise _bad(f"artifacts {without} have no golden outputs")


def _check_preprocess(manifest: Manifest) -> None:
    pre = manifest.preprocess
    if pre is None:
        return
    channels = 1 if pre.colour == "grey" else 3
    if len(pre.mean) != channels or len(pre.std) != channels or not all(value > 0 for value in pre.std):
        raise _bad(f"preprocess: {pre.colour} needs {channels} means and {channels} positive standard deviations")
    if not (0 < pre.width * pre.height <= MAX_PIXELS and pre.width > 0):
        raise _bad(f"preprocess: {pre.width}x{pre.height} must be positive and at most {MAX_PIXELS} pixels")


def _check_detector(manifest: Manifest) -> None:
    head, detector = manifest.postprocess, manifest.postprocess.detector
    if (head.kind in DETECTORS) != (detector is not None):
        raise _bad(f"postprocess: {head.kind} and a detector do not go together")
    if detector is None:
        return
    if manifest.task != "detection":
        raise _bad(f"postprocess: {head.kind} is for detection, not {manifest.task}")
    _check_outputs(manifest, head.kind, detector)
    if not (0 < detector.score_threshold < 1 and 0 < detector.iou_threshold <= 1):
        raise _bad("detector: score_threshold must lie between 0 and 1, iou_threshold too, or be 1")
    if not (1 <= detector.max_objects <= 10_000 and 0 <= detector.first_class <= 10_000):
        raise _bad("detector: max_objects must be 1 to 10000, first_class 0 to 10000")


def _check_outputs(manifest: Manifest, kind: str, detector: Detector) -> None:
    """Each head has the outputs that it needs, and none that the model does not have."""
    told = (len(detector.boxes), len(detector.scores), bool(detector.classes), len(detector.strides))
    levels = len(detector.strides)
    wanted = {"yolo": [(0, 0, False, 0)], "ssd": [(1, 1, True, 0), (1, 1, False, 0)]}
    if told not in wanted.get(kind, [(levels, levels, False, levels)]) or (kind == "nanodet" and not levels):
        raise _bad(
            f"detector: {kind} needs "
            + {
                "yolo": "postprocess.output alone",
                "ssd": "one output of boxes, one of scores, and maybe one of classes",
                "nanodet": "as many outputs of boxes and of scores as strides",
            }[kind]
        )
    known = {spec.name for spec in manifest.outputs}
    unknown = {*detector.boxes, *detector.scores, *filter(None, [detector.classes])} - known
    if unknown:
        raise _bad(f"detector: the model has no outputs {sorted(unknown)}")
    if not (1 <= detector.reg_max <= 64 and all(1 <= stride <= 1024 for stride in detector.strides)):
        raise _bad("detector: reg_max must be 1 to 64, strides 1 to 1024")
    if manifest.preprocess is None:
        raise _bad("detector: it needs a preprocess, which says how large the model's picture is")


def _bad(what: str) -> FoothillError:
    return FoothillError("bad_bundle", f"The manifest is refused: {what}.")
