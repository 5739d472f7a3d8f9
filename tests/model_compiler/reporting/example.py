"""Findings as a compilation makes them: one with every part, one that had next to nothing to measure."""

from __future__ import annotations

import math

import numpy as np

from model_compiler.bootstrap import Interval
from model_compiler.reporting.curves import risk_curve
from model_compiler.reporting.findings import (
    BiasCorrection,
    Bin,
    Budget,
    Calibration,
    Candidate,
    Candidates,
    CompileReport,
    Confidence,
    Diagnosis,
    Equalized,
    Export,
    Fallback,
    Finding,
    Head,
    Int4,
    KeptLayer,
    Latency,
    LayerKeptWhole,
    LayerNoise,
    LayerPruned,
    Learning,
    Lint,
    MapTried,
    NotDone,
    NotMeasured,
    Parity,
    Pruning,
    Qat,
    Quantizing,
    Reliability,
    Rule,
    Score,
    Size,
    StageTook,
    Taken,
    Targets,
    Training,
    WayTried,
)

_KINDS = ("conv", "depthwise", "squeeze", "excite", "project")
NODES = (*(f"/features/{at // 5}/{_KINDS[at % 5]}/Conv" for at in range(40)), "/classifier/Gemm")
_NO_GPU = NotMeasured("This machine has no GPU.")


def full() -> CompileReport:
    return CompileReport(
        head=head(),
        budget=Budget(max_drop_points=0.5, min_speed_up=5.0, max_latency_ms=2.0, max_bytes=400_000),
        candidates=candidates(),
        learning=learning(),
        quantizing=quantizing(),
        confidence=Confidence((rule("cpu.u8s8.onnx"), infeasible("trt.s8.onnx")), "pictures-cloud@2.1.0"),
        export=export(),
        targets=targets(),
    )


def bare() -> CompileReport:
    """An ONNX file alone: no teacher, no calibration samples, no labels."""
    return CompileReport(
        head=Head("nanodet@1", "sha256:" + "5e" * 32, "detection", warnings=("There are no calibration samples.",)),
        budget=NotDone("No budget was given."),
        candidates=Candidates(
            metric="cosine to fp32",
            measured_on="seeded noise",
            tried=(
                Candidate(
                    "as it came", "fp32", 3_842_117, NotMeasured("There are no labels."), took(21.4), "fp32.onnx"
                ),
                Candidate("half", "fp16", 1_934_220, NotMeasured("There are no labels."), _NO_GPU, "fp16.onnx"),
            ),
            reference=NotMeasured("The recipe names no teacher."),
        ),
        learning=NotDone("The model came as a finished ONNX file."),
        quantizing=NotDone("There are no calibration samples. Give some with --calibration DIR."),
        confidence=NotDone("There is no cloud bundle to be certified against."),
    )


def head() -> Head:
    stages = (
        ("teacher", 1_912.0, True),
        ("prune", 14.2, True),
        ("try ways", 311.7, False),
        ("distil", 1_424.9, False),
        ("export", 6.3, False),
        ("observe", 9.8, False),
        ("quantize", 41.5, False),
        ("diagnose", 38.1, False),
        ("confidence", 0.7, False),
        ("measure", 22.4, False),
    )
    return Head(
        bundle="pictures-edge@1.4.0",
        digest="sha256:" + "3fa9c2e1" * 8,
        task="classification",
        measured_at="22 November 2026, 03:12 UTC",
        machine="x86_64, 2 cores, Linux",
        how="Medians of 150 runs at batch 1, one thread, ONNX Runtime 1.31.1; artifacts and teacher taking turns.",
        tools={"torch": "2.13.0", "onnx": "1.20.0", "onnxruntime": "1.31.1", "torch-pruning": "1.6.1"},
        stages=tuple(StageTook(*each) for each in stages),
        warnings=("The teacher was trained for 32 minutes only: its accuracy is what that reaches, not the data's.",),
    )


def took(ms: float, runs: int = 150) -> Latency:
    return Latency(ms, ms * 0.985, ms * 1.021, runs)


def scored(value: float, low: float, high: float) -> Score:
    return Score(value, 10_000, Interval(value - 0.9312, low, high))


def candidates() -> Candidates:
    return Candidates(
        metric="accuracy",
        measured_on="the test split, 10,000 pictures that nothing else has seen",
        reference=Candidate("teacher", "fp32", 4_912_336, Score(0.9312, 10_000), took(8.93)),
        tried=(
            Candidate("pruned, fp32", "fp32", 1_223_904, scored(0.9301, -0.0041, 0.0019), took(2.44), "fp32.onnx"),
            Candidate("pruned, fp16", "fp16", 614_720, scored(0.9301, -0.0041, 0.0019), _NO_GPU, "fp16.onnx"),
            Candidate("int8, min-max", "int8", 331_904, scored(0.9204, -0.0139, -0.0077), took(1.17)),
            Candidate("int8, percentile", "int8", 331_904, scored(0.9248, -0.0095, -0.0033), took(1.18)),
            Candidate(
                "int8, entropy", "int8", 349_312, scored(0.9281, -0.0061, -0.0001), took(1.31), "cpu.u8s8.onnx",
                chosen=True, note="equalized, bias corrected, 2 layers in float",
            ),
            Candidate("int8, TensorRT", "int8", 356_008, scored(0.9279, -0.0063, 0.0), _NO_GPU, "trt.s8.onnx"),
            Candidate("int4 weights", "int4", 298_112, scored(0.9093, -0.0253, -0.0185), took(2.61)),
        ),
    )  # fmt: skip


def learning() -> Learning:
    layers = tuple(
        LayerPruned(f"features.{at}.0", 32 * (1 + at // 3), 16 * (1 + at // 3), 1 + at % 2) for at in range(14)
    )
    return Learning(
        pruning=Pruning(
            method="sensitivity",
            asked=0.5,
            reached=0.48,
            before=Size(1_228_084, 1_228_084, 88_412_160, 4_912_336, 4_551_020),
            after=Size(305_976, 305_976, 23_104_512, 1_223_904, 1_131_882),
            layers=layers,
            whole=(LayerKeptWhole("classifier", 10, "it writes the output"),),
        ),
        ways=(
            WayTried("plain", 0.9014),
            WayTried("kd", 0.9162, "Hinton, Vinyals, Dean 2015, Distilling the Knowledge in a Neural Network"),
            WayTried("dkd", 0.9188, "Zhao et al. 2022, Decoupled Knowledge Distillation", winner=True),
            WayTried("dist", 0.9170, "Huang et al. 2022, Knowledge Distillation from A Stronger Teacher"),
            WayTried("hints", 0.9098, "Romero et al. 2015, FitNets: Hints for Thin Deep Nets"),
        ),
        validation_samples=2_500,
        training=Training("dkd", 60, 40_000, 0.9288),
    )


def noise() -> tuple[LayerNoise, ...]:
    ratios = [34.0 + 6.0 * math.sin(1.7 * at) + 3.0 * math.cos(0.6 * at) - 0.12 * at for at in range(len(NODES))]
    ratios[6], ratios[17], ratios[28] = 9.4, 5.8, 14.1
    return tuple(
        LayerNoise(node, f"{node}_output_0", ratio, "fp16" if at in (6, 17) else "int8")
        for at, (node, ratio) in enumerate(zip(NODES, ratios, strict=True))
    )


def found(at: int, sqnr_db: float, gain: float, loss: float, cause: str = "", advice: str = "") -> Finding:
    return Finding(NODES[at], f"{NODES[at]}_output_0", sqnr_db, gain, loss, (cause,) if cause else (), advice)


def quantizing() -> Quantizing:
    return Quantizing(
        calibration_rows=512,
        calibrations=(
            Calibration("minmax", 0.9180, ("equalized", "bias corrected")),
            Calibration("entropy", 0.9252, ("equalized", "bias corrected"), chosen=True),
            Calibration("percentile", 0.9224, ("equalized", "bias corrected")),
            Calibration("entropy", 0.9196),
        ),
        validation_samples=2_500,
        float_validation=0.9288,
        equalized=(
            Equalized("/features/0/conv/Conv", "/features/0/depthwise/Conv", 16, 3.8, 0.41, 0.78),
            Equalized("/features/2/conv/Conv", "/features/2/depthwise/Conv", 32, 11.2, 0.23, 0.69),
        ),
        bias=BiasCorrection(41, 0.9231, 0.9252),
        diagnosis=Diagnosis(
            layers=noise(),
            findings=(
                found(17, 5.8, 0.31, 0.44, "outlier channel", "Equalize the layers around it, or keep it in float."),
                found(6, 9.4, 0.12, 0.16, "saturating range", "Calibrate by min-max: values beyond the range are cut."),
                found(28, 14.1, 0.0, 0.04),
            ),
            lost_points=0.36,
            samples=2_500,
            answer_db=19.3,
        ),
        fallback=Fallback(
            (KeptLayer(NODES[17], "fp16", 0.082, 9_216, 0.31), KeptLayer(NODES[6], "fp16", 0.049, 8_192, 0.12)),
            0.9252,
            0.9282,
            latency_ratio=1.111,
        ),
        qat=NotDone("The fallback kept the budget, so it was not needed."),
        int4=Int4(32, 1, 0.852, 20.4, 0.756, 2, 0.9288, 0.9106),
    )  # fmt: skip


def tried_qat() -> Qat:
    return Qat(4, 0.9252, 0.9279, kept=True)


def reliability(off: float, ece: float) -> Reliability:
    centres = np.linspace(0.15, 0.985, 9)
    counts = (18, 44, 71, 95, 130, 181, 240, 402, 3_819)
    bins = tuple(
        Bin(float(centre), float(np.clip(centre - off * math.sin(math.pi * centre), 0, 1)), count)
        for centre, count in zip(centres, counts, strict=True)
    )
    return Reliability(ece, bins)


def scores(n: int = 5_000) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and whether the cloud answers otherwise: more often the less sure the edge is."""
    rng = np.random.default_rng(7)
    confidence = rng.beta(6.0, 0.9, n)
    return confidence, rng.random(n) > confidence**0.6


def rule(artifact: str) -> Rule:
    confidence, differs = scores()
    curve = risk_curve(confidence, differs)
    at = next(point for point in reversed(curve) if point.risk <= 0.0255)
    return Rule(
        artifact=artifact,
        temperature=1.382,
        epsilon=0.03,
        delta=0.05,
        n=len(confidence),
        feasible=True,
        threshold=at.threshold,
        escalation=at.escalation,
        risk=at.risk,
        smallest_epsilon=0.03,
        stratum="b41c77e0d2f9",
        before=reliability(0.17, 0.0614),
        after=reliability(0.015, 0.0108),
        reliability_samples=5_000,
        maps=(MapTried("temperature", 0.0183, 0.04712), MapTried("isotonic", 0.0108, 0.04603, chosen=True)),
        isotonic=((0.0, 0.02), (0.41, 0.38), (0.73, 0.70), (1.0, 0.99)),
        curve=curve,
    )


def infeasible(artifact: str) -> Rule:
    confidence, differs = scores(400)
    return Rule(
        artifact=artifact,
        temperature=0.91,
        epsilon=0.01,
        delta=0.05,
        n=400,
        feasible=False,
        threshold=2.0,
        escalation=1.0,
        risk=0.0,
        smallest_epsilon=0.0218,
        stratum="0c9d5a61be22",
        before=reliability(0.02, 0.0121),
        after=reliability(0.03, 0.0150),
        reliability_samples=400,
        curve=risk_curve(confidence, differs),
        max_escalation=0.4,
    )


def export() -> Export:
    parity = (
        Parity("cpu.u8s8.onnx", 256, 0.412, 0.9883),
        Parity("trt.s8.onnx", 256, 0.398, 0.9883),
        Parity("fp16.onnx", 256, 0.0021, 1.0),
        Parity("fp32.onnx", 256, 0.0000019, 1.0),
    )
    return Export(20, dynamic_batch=True, parity=parity, slimmed=37)


def targets() -> Targets:
    return Targets(
        taken=(
            Taken("cpu-x86", "cpu.u8s8.onnx"),
            Taken("cpu-arm", "cpu.u8s8.onnx", not_measured="speed: this machine is x86"),
            Taken("jetson-orin-nano", "trt.s8.onnx", "tensorrt", "speed and engine: no Jetson here"),
            Taken("rtx-sm89", "trt.s8.onnx", "tensorrt", "speed and engine: no GPU here"),
        ),
        lint=(Lint("trt.s8.onnx"),),
        not_measured=("Engines are built on the node itself, from trt.s8.onnx; none was built here.",),
    )
