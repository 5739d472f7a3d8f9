"""Scores of torch networks: the numbers that a metric sees are the network's own, whatever it gives them in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from model_compiler.data.samples import Arrays
from model_compiler.errors import CompileError
from model_compiler.learning.judge import evaluating, judge_by, outputs_by_name

INPUTS = np.random.default_rng(0).standard_normal((300, 4)).astype(np.float32)
SAMPLES = Arrays(INPUTS, INPUTS.argmax(axis=1))


class Shaped(nn.Module):  # type: ignore[misc]
    """Gives its inputs and their double, in the form asked for."""

    def __init__(self, form: type) -> None:
        super().__init__()
        self.form = form

    def forward(self, inputs: torch.Tensor) -> Any:
        if self.form is dict:
            return {"double": 2 * inputs, "logits": inputs, "unasked": inputs}
        return self.form((inputs, 2 * inputs))


@pytest.mark.parametrize("form", [tuple, list, dict])
def test_outputs_are_told_apart_by_order_or_by_name(form: type) -> None:
    outputs = outputs_by_name(Shaped(form), SAMPLES, ("logits", "double"))
    assert np.array_equal(outputs["logits"], INPUTS)
    assert np.array_equal(outputs["double"], 2 * INPUTS)


def test_an_output_that_the_network_lacks_is_named() -> None:
    with pytest.raises(CompileError, match="no output 'boxes'"):
        outputs_by_name(nn.Identity(), SAMPLES, ("logits", "boxes"))


def test_accuracy_is_the_default_and_any_metric_serves() -> None:
    assert judge_by(SAMPLES)(nn.Identity()) == 1
    wrong = Arrays(INPUTS, INPUTS.argmin(axis=1))
    assert judge_by(wrong)(nn.Identity()) == 0
    assert judge_by(wrong, lambda outputs, labels: float(len(outputs["x"]) + len(labels)), ("x",))(nn.Identity()) == 600


def test_a_network_is_judged_in_eval_mode_and_left_in_its_own() -> None:
    net = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(4))
    net[1].eval()
    assert judge_by(SAMPLES)(net) == judge_by(SAMPLES)(net) > 0.9
    assert [net.training, net[0].training, net[1].training] == [True, True, False]
    with evaluating(net):
        assert not net[0].training
