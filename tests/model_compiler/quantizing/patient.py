"""A float model that quantizes well but for planted faults, with all that diagnosis and its remedies are given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from model_compiler.data.samples import Arrays
from model_compiler.metrics import Metric, accuracy
from model_compiler.quantizing.int8 import quantize_cpu
from model_compiler.quantizing.observe import Observations, observe
from model_compiler.quantizing.prepare import prepare
from model_compiler.quantizing.ranges import Table, table_of
from model_compiler.replay import Ends, outputs_of
from tests.model_compiler.quantizing.chains import convolutions, normal

ENDS = Ends("image", ("logits",))
METRIC: Metric = accuracy("logits")


class Patient(msgspec.Struct, frozen=True):
    """`samples` are labelled by the float model itself: whatever int8 loses, rounding has lost.

    Random convolutions answer nearly alike whatever they see; the last bias takes their usual answer off.
    """

    fp32: Path
    int8: Path
    observations: Observations
    table: Table
    samples: Arrays


def patient(work: Path, *, loud: Mapping[int, float] | None = None, layers: int = 5, rows: int = 400) -> Patient:
    fp32, int8 = work / "fp32.onnx", work / "int8.onnx"
    exported, inputs = work / "exported.onnx", normal(rows, 3, 8, 8, seed=7)
    convolutions(exported, layers=layers, answer_bias=np.zeros(5))
    usual = outputs_of(exported, inputs, ENDS).mean(axis=0)
    prepare(convolutions(exported, layers=layers, answer_bias=-usual, loud=loud), fp32)
    samples = Arrays(inputs, outputs_of(fp32, inputs, ENDS).argmax(axis=1))
    observations = observe(fp32, Arrays(normal(64, 3, 8, 8, seed=8), np.zeros(64, np.int64)), ENDS)
    table = table_of(observations, "minmax")
    quantize_cpu(fp32, int8, table)
    return Patient(fp32, int8, observations, table, samples)
