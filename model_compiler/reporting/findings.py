"""What a compilation found, as it is handed to the report. These Structs are the schema of report.json.

Shares are of 1, points are hundredths of a share, times in ms or s, sizes in bytes, as the names say. All numbers are
finite. A part that there is nothing to say about is NotMeasured or NotDone, and says why: a report without a teacher,
without calibration samples or without labels is as true and as complete as any other.
"""

from __future__ import annotations

import msgspec

from model_compiler.bootstrap import Interval

EXACT_DB = 120.0
"""The signal-to-noise ratio to give where there is no noise at all."""

EQUALIZED = "equalized"
"""The step of a calibration whose layers were equalized first."""


class NotMeasured(msgspec.Struct, frozen=True, tag="not measured", tag_field="state"):
    """`why`: one sentence, such as "There are no labels."."""

    why: str


class NotDone(msgspec.Struct, frozen=True, tag="not done", tag_field="state"):
    """`why`: one sentence, such as "The recipe has no [prune] table."."""

    why: str


class Part(msgspec.Struct, frozen=True, tag="measured", tag_field="state"):
    """What is there: tells itself from the two above in JSON, by `state`."""


Absent = NotMeasured | NotDone
_UNTOLD = NotMeasured("The compilation did not say why.")


# --- the head


class StageTook(msgspec.Struct, frozen=True):
    """Seconds that a stage took when it ran: now, or, where it was `reused`, in an earlier compilation."""

    stage: str
    took_s: float
    reused: bool = False


class Head(msgspec.Struct, frozen=True):
    """What was compiled, on what, from what.

    `bundle` is name@version, `digest` its address, `measured_at` a date as people write it, `machine` what tells two
    machines apart, `how` how things were measured, `tools` the versions of the packages that decide what comes out.
    `warnings` are sentences.
    """

    bundle: str
    digest: str = ""
    task: str = ""
    measured_at: str = ""
    machine: str = ""
    how: str = ""
    tools: dict[str, str] = {}
    stages: tuple[StageTook, ...] = ()
    warnings: tuple[str, ...] = ()


# --- the budget, and the candidates it is held against


class Budget(Part, frozen=True):
    """What was promised; None where nothing was. Held against every candidate that became an artifact."""

    max_drop_points: float | None = None
    min_speed_up: float | None = None
    max_latency_ms: float | None = None
    max_bytes: int | None = None


class Score(Part, frozen=True):
    """`value` of the metric over `samples`. `against_reference`: the difference to the reference on the same rows, as
    shares, from bootstrap.paired_difference(candidate, reference); None where there is nothing to pair with."""

    value: float
    samples: int
    against_reference: Interval | None = None


class Latency(Part, frozen=True):
    """The median of `runs` at batch 1 on one thread, with its 95 % interval (reporting.spread.latency_of)."""

    median_ms: float
    low_ms: float
    high_ms: float
    runs: int


class Candidate(Part, frozen=True):
    """One form of the model that was tried. `file` is its artifact's name, empty where it was not packed.

    `chosen`: what the budget is about, and the headline: the artifact that a node of the first target takes.
    `note`: in words, such as why it was left out.
    """

    name: str
    precision: str
    bytes: int
    score: Score | Absent
    latency: Latency | Absent
    file: str = ""
    chosen: bool = False
    note: str = ""


class Candidates(Part, frozen=True):
    """`metric` in words, such as "accuracy"; `measured_on` says on which samples, such as "the test split".

    `reference` is what the others are compared with and `role` what it is; it is not among `tried`.
    """

    metric: str
    measured_on: str
    tried: tuple[Candidate, ...]
    reference: Candidate | Absent = _UNTOLD
    role: str = "teacher"


# --- learning


class LayerPruned(msgspec.Struct, frozen=True):
    """`layers` go together and are named by one, `layer`. Channels before and after; weights that are not 0 for
    unstructured pruning."""

    layer: str
    before: int
    after: int
    layers: int = 1


class LayerKeptWhole(msgspec.Struct, frozen=True):
    """A layer that keeps all its channels, and why."""

    layer: str
    channels: int
    why: str


class Size(msgspec.Struct, frozen=True):
    """As learning.size.Size: parameters, those that are not 0, multiply-adds for one sample, bytes as they are and
    compressed."""

    weights: int
    nonzero: int
    multiply_adds: int
    bytes: int
    compressed_bytes: int


class Pruning(Part, frozen=True):
    """`method` is magnitude, sensitivity or unstructured; `asked` and `reached` are shares of the channels that can go,
    or of the weights."""

    method: str
    asked: float
    reached: float
    before: Size
    after: Size
    layers: tuple[LayerPruned, ...] = ()
    whole: tuple[LayerKeptWhole, ...] = ()


class WayTried(msgspec.Struct, frozen=True):
    """One way of distilling after a short trial: its metric on the validation samples, and its paper."""

    way: str
    validation: float
    paper: str = ""
    winner: bool = False


class Training(Part, frozen=True):
    """The training in full. `validation`: the metric after it; None where there are no validation samples."""

    way: str
    epochs: int
    samples: int
    validation: float | None = None
    note: str = ""


class Learning(Part, frozen=True):
    """`control` names the way that learns from labels alone, what the others must beat."""

    pruning: Pruning | Absent = _UNTOLD
    ways: tuple[WayTried, ...] = ()
    validation_samples: int = 0
    training: Training | Absent = _UNTOLD
    control: str = "plain"


# --- quantizing


class Calibration(msgspec.Struct, frozen=True):
    """One way to int8 after calibrating by `method` (and what else `steps` names): its metric on validation samples."""

    method: str
    validation: float
    steps: tuple[str, ...] = ()
    chosen: bool = False


class Equalized(msgspec.Struct, frozen=True):
    """As quantizing.equalize.Equalized: a pair of layers, how much of their channels' precision is used (0 to 1)."""

    first: str
    second: str
    channels: int
    changed: float
    precision_before: float
    precision_after: float


class BiasCorrection(Part, frozen=True):
    """Layers whose bias was moved. The metric on validation samples before and after; None where not measured."""

    layers: int
    validation_before: float | None = None
    validation_after: float | None = None


class LayerNoise(msgspec.Struct, frozen=True):
    """A tensor rounded to int8, against itself: signal to noise in dB, at most EXACT_DB. `node` writes it; `precision`
    is what it has now."""

    node: str
    tensor: str
    sqnr_db: float
    precision: str = "int8"


class Finding(msgspec.Struct, frozen=True):
    """A place that int8 hurts, the named causes, what to do.

    `gain_points`: won back when this place alone is float again; `loss_points`: lost when it alone is int8; None where
    that was not tried.
    """

    node: str
    tensor: str
    sqnr_db: float
    gain_points: float | None = None
    loss_points: float | None = None
    causes: tuple[str, ...] = ()
    advice: str = ""


class Diagnosis(Part, frozen=True):
    """`layers` in the order of the graph, `findings` the worst first and few, where they were `sought`.

    `lost_points`: fp32 less int8 on the task over `samples`; `answer_db`: signal to noise at the answers.
    """

    layers: tuple[LayerNoise, ...]
    findings: tuple[Finding, ...] = ()
    lost_points: float | None = None
    samples: int = 0
    answer_db: float | None = None
    sought: bool = True


class KeptLayer(msgspec.Struct, frozen=True):
    """A layer that stays in fp16 or fp32: what it costs beside the same file with it in int8, what it wins back.

    `cost_ms` is None for a file that this machine does not run as its target does.
    """

    node: str
    precision: str
    cost_ms: float | None
    cost_bytes: int
    gain_points: float


class Fallback(Part, frozen=True):
    """`validation_*`: the metric in int8 throughout, and with the layers kept. `holds`: whether the budget does now.

    `latency_ratio`: over int8 throughout, None where it was not measured. `told`: what else there is to say.
    """

    kept: tuple[KeptLayer, ...]
    validation_before: float
    validation_after: float
    holds: bool = True
    latency_ratio: float | None = None
    told: str = ""


class Qat(Part, frozen=True):
    """Quantization-aware training: the metric in int8 on validation samples before and after; whether it was `kept`."""

    epochs: int
    validation_before: float
    validation_after: float
    kept: bool
    note: str = ""


class Int4(Part, frozen=True):
    """Weight-only. `share_smaller`: of the quantized weights, with scales counted; `file_share_smaller`: of the file.

    `sqnr_db` is that of the weights. `left`: nodes that could have been quantized and were not.
    """

    block: int
    nodes: int
    share_smaller: float
    sqnr_db: float
    file_share_smaller: float | None = None
    left: int = 0
    validation_before: float | None = None
    validation_after: float | None = None


class Quantizing(Part, frozen=True):
    """`calibration_rows`: samples that the ranges come from. `float_validation`: the metric before quantizing.

    `scored_by`: what it is called where it is not the metric of the whole report.
    """

    calibration_rows: int
    calibrations: tuple[Calibration, ...] = ()
    validation_samples: int = 0
    float_validation: float | None = None
    equalized: tuple[Equalized, ...] | None = None
    bias: BiasCorrection | Absent = _UNTOLD
    diagnosis: Diagnosis | Absent = _UNTOLD
    fallback: Fallback | Absent = _UNTOLD
    qat: Qat | Absent = _UNTOLD
    int4: Int4 | Absent = NotDone("The recipe asks for no int4 artifact.")
    scored_by: str = ""


# --- confidence


class Bin(msgspec.Struct, frozen=True):
    """Rows whose confidence falls into one bin: their mean confidence, the share of them that is right, how many."""

    confidence: float
    right: float
    count: int


class Reliability(msgspec.Struct, frozen=True):
    """`ece`: the expected calibration error as a share. `bins`: those with rows, by rising confidence."""

    ece: float
    bins: tuple[Bin, ...]


class RiskPoint(msgspec.Struct, frozen=True):
    """What a threshold does on the samples it was chosen on: shares escalated, and kept though the cloud differs."""

    threshold: float
    escalation: float
    risk: float


class MapTried(msgspec.Struct, frozen=True):
    """One way from a score to a confidence: `ece` on samples that no map was fitted on; `brier`: the mean squared error
    on halves that it was not fitted on, by which the lower is `chosen`; None where there were too few samples."""

    way: str
    ece: float
    brier: float | None = None
    chosen: bool = False


class Rule(msgspec.Struct, frozen=True):
    """The confidence rule of one artifact. `isotonic`: the map's knots (confidence, share right); empty without one.

    `right` in the reliability diagrams is agreement with the cloud's answer, on samples that no map was fitted on.
    `curve` is thinned by curves.risk_curve. Certified: at `threshold` a share `escalation` goes to the cloud, and of
    the `n` samples a share `risk` is kept and differs. Not `feasible`: everything escalates, and `smallest_epsilon` is
    the least that these samples certify within the escalation allowed.
    """

    artifact: str
    temperature: float
    epsilon: float
    delta: float
    n: int
    feasible: bool
    threshold: float
    escalation: float
    risk: float
    smallest_epsilon: float
    stratum: str
    before: Reliability | None = None
    after: Reliability | None = None
    reliability_samples: int = 0
    maps: tuple[MapTried, ...] = ()
    isotonic: tuple[tuple[float, float], ...] = ()
    curve: tuple[RiskPoint, ...] = ()
    max_escalation: float | None = None


class Confidence(Part, frozen=True):
    """`cloud` is the bundle that the rules are fitted against, name@version; `things`: of detectors, so that a sample
    is a thing in a picture."""

    rules: tuple[Rule, ...]
    cloud: str = ""
    things: bool = False


# --- export, targets


class Parity(msgspec.Struct, frozen=True):
    """An artifact against the network it came from, on real inputs: the largest difference, and top labels alike."""

    artifact: str
    rows: int
    largest_difference: float
    agreement: float | None = None


class Export(Part, frozen=True):
    """`slimmed`: nodes that onnxslim took out."""

    opset: int
    dynamic_batch: bool
    parity: tuple[Parity, ...] = ()
    slimmed: int | None = None


class Taken(msgspec.Struct, frozen=True):
    """Which artifact a node of `target` takes (empty: none fits), and what is not measured about it."""

    target: str
    artifact: str
    runtime: str = "onnxruntime"
    not_measured: str = ""


class Lint(msgspec.Struct, frozen=True):
    """A TensorRT artifact against the rules of TensorRT's parser; no `problems` is a pass."""

    artifact: str
    problems: tuple[str, ...] = ()


class Targets(Part, frozen=True):
    """`not_measured`: sentences about what this machine cannot say, such as speed on a Jetson."""

    taken: tuple[Taken, ...]
    lint: tuple[Lint, ...] = ()
    not_measured: tuple[str, ...] = ()


class CompileReport(msgspec.Struct, frozen=True):
    """All of it."""

    head: Head
    budget: Budget | Absent = _UNTOLD
    candidates: Candidates | Absent = _UNTOLD
    learning: Learning | Absent = _UNTOLD
    quantizing: Quantizing | Absent = _UNTOLD
    confidence: Confidence | Absent = _UNTOLD
    export: Export | Absent = _UNTOLD
    targets: Targets | Absent = _UNTOLD
