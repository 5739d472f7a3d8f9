"""A task that a small network learns in a moment, and plans for it: which of the first three numbers is the largest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from model_compiler.compilation import Compilation
from model_compiler.data.samples import Arrays, Data, Floats, Relabelled, Samples
from model_compiler.learning.train import seeded
from model_compiler.plan import Net, Plan, artifacts_for
from model_compiler.progress import silent
from model_compiler.replay import Ends
from model_compiler.stages import Stages
from tests.model_compiler.quantizing.chains import Array, node

NUMBERS, CLASSES = 6, 3
ENDS = Ends("numbers", ("logits",))
RIGHT = 8 * np.eye(NUMBERS, CLASSES, dtype=np.float32)
"""What a linear model multiplies with that never errs."""


def rows(count: int, seed: int) -> Arrays:
    inputs = np.random.default_rng(seed).standard_normal((count, NUMBERS)).astype(np.float32)
    return Arrays(inputs, inputs[:, :CLASSES].argmax(axis=1))


def unlabelled(samples: Samples) -> Relabelled:
    return Relabelled(samples, np.full(len(samples), -1))


def data(count: int = 64, train: int = 256) -> Data:
    parts = [rows(train, 0), *(rows(count, seed) for seed in range(1, 6))]
    return Data(*parts)


def net(width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(NUMBERS, width), nn.ReLU(), nn.Linear(width, CLASSES))


def first_net(width: int = 8, seed: int = 0) -> nn.Module:
    """As a plan of this seed begins with it."""
    with seeded(seed):
        return net(width).eval()


def weights_of(some: nn.Module) -> list[bytes]:
    return [parameter.detach().numpy().tobytes() for parameter in some.parameters()]


def told_by(some: nn.Module, inputs: Floats) -> Floats:
    with torch.no_grad():
        return np.asarray(some(torch.from_numpy(inputs)), np.float32)


def linear(
    path: Path, outputs: Mapping[str, Array], *, given: str = ENDS.input, batch: int | str = "n", last: str = ""
) -> Path:
    """An ONNX file whose outputs are its input times these matrices, behind the operator `last` where there is one."""
    width = next(iter(outputs.values())).shape[0]
    nodes, ends = [], []
    for name, weight in outputs.items():
        product = f"{name}.product" if last else name
        nodes.append(node("MatMul", [given, f"{name}.weight"], product))
        if last:
            nodes.append(node(last, [product], name))
        ends.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, weight.shape[1]]))
    taken = helper.make_tensor_value_info(given, TensorProto.FLOAT, [batch, width])
    weights = [
        numpy_helper.from_array(np.asarray(weight, np.float32), f"{name}.weight") for name, weight in outputs.items()
    ]
    graph = helper.make_graph(nodes, "main", [taken], ends, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(made)
    path.write_bytes(made.SerializeToString(deterministic=True))
    return path


def plan(**changes: Any) -> Plan:
    """An edge bundle of a network that learns from labels, in float32 for CPUs."""
    plain = Plan(
        name="largest",
        version="1",
        model="largest",
        task="classification",
        tier="edge",
        data=data(),
        artifacts=artifacts_for(("cpu-x86",), ("fp32",)),
        how="rows of normal numbers",
        student=Net("small.net", net),
        ends=ENDS,
    )
    return msgspec.structs.replace(plain, **changes)


def work_on(some: Plan, directory: Path) -> Compilation:
    """A compilation of which every stage is kept in `directory`."""
    return Compilation(some, Stages(directory), silent)


def stages_run(work: Compilation) -> list[str]:
    """Those that were not kept from before, in order."""
    return [each.stage for each in work.stages.ran if not each.reused]
