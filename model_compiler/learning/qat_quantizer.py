"""How a captured network is rounded in training: to the levels of the int8 file that it becomes.

Only `learning.qat` imports this file, by way of `qat_capture`, and only when it trains: torch and torchao load with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.fx import Graph, GraphModule, Node
from torchao.quantization.pt2e import FakeQuantize
from torchao.quantization.pt2e.observer import MovingAverageMinMaxObserver, UniformQuantizationObserverBase
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer

from model_compiler.errors import CompileError
from model_compiler.learning.qat_places import WEIGHT_AXIS, Places, cpu_places, is_depthwise, operator, tensorrt_places
from model_compiler.quantizing.levels import weight_levels

_NOTE = "quantization_annotation"
_GATES = {"silu": "sigmoid", "hardswish": "hardsigmoid"}
_RANGE_STEP = 0.05
"""How far a range moves towards each batch's: fine-tunings are short, and torchao's 0.01 would still be on its way."""


class Form(NamedTuple):
    """How one int8 file holds numbers.

    `low`, `high`: the integers of activations, symmetric where low = -high. `pairs_fit`: see `weight_levels`; depthwise
    convolutions are excepted. `places`: what is rounded.
    """

    low: int
    high: int
    pairs_fit: bool
    places: Callable[[Graph], Places]


FORMS = {"u8s8": Form(0, 255, True, cpu_places), "s8s8": Form(-127, 127, False, tensorrt_places)}


class Int8Quantizer(Quantizer):  # type: ignore[misc]
    """torchao's door for a target's rules: notes on the nodes of a captured graph how their tensors are rounded."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self._form = form

    def transform_for_annotation(self, model: GraphModule) -> GraphModule:
        """Swish and hard swish in the two operators that ONNX spells each with: the product rounds both its inputs."""
        for node in [each for each in model.graph.nodes if operator(each) in _GATES]:
            _spell_swish(model.graph, node)
        model.recompile()
        return model

    def annotate(self, model: GraphModule) -> GraphModule:
        """Raises CompileError where no operator's weights are rounded: training would change nothing."""
        places = self._form.places(model.graph)
        if not places.layers:
            raise CompileError(
                "Quantization-aware training found no convolution or linear layer to round. Compile without it."
            )
        rule = _activation_rule(self._form)
        for node in places.layers:
            _note(node).input_qspec_map[node.args[1]] = _weight_rule(self._form, node)
        for node in places.written:
            _note(node).output_qspec = rule
        for source, reader in places.read:
            _note(reader).input_qspec_map[source] = rule
        _hide_batch_norms(model.graph)
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing: the rules fit every graph."""


class FileWeights(UniformQuantizationObserverBase):  # type: ignore[misc]
    """Scales of weights by the function that scales them for the file, from the weights as they are at each step."""

    def __init__(self, *, ch_axis: int, pairs_fit: bool, **options: Any) -> None:
        super().__init__(**options)
        self.ch_axis = ch_axis
        self._pairs_fit = pairs_fit
        self._scale = torch.ones(1)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        levels = weight_levels(weight.detach().numpy(), self.ch_axis, pairs_fit=self._pairs_fit)
        self._scale = torch.from_numpy(levels.scale)
        return weight

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self._scale, torch.zeros(len(self._scale), dtype=torch.int32)


def _note(node: Node) -> QuantizationAnnotation:
    return node.meta.setdefault(_NOTE, QuantizationAnnotation(_annotated=True))


def _activation_rule(form: Form) -> QuantizationSpec:
    symmetric = form.low == -form.high
    return QuantizationSpec(
        dtype=torch.int8 if symmetric else torch.uint8,
        observer_or_fake_quant_ctr=FakeQuantize.with_args(
            observer=MovingAverageMinMaxObserver, averaging_constant=_RANGE_STEP
        ),
        quant_min=form.low,
        quant_max=form.high,
        qscheme=torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine,
    )


def _weight_rule(form: Form, node: Node) -> QuantizationSpec:
    observer = FileWeights.with_args(
        ch_axis=WEIGHT_AXIS[operator(node)], pairs_fit=form.pairs_fit and not is_depthwise(node)
    )
    return QuantizationSpec(
        dtype=torch.int8,
        observer_or_fake_quant_ctr=FakeQuantize.with_args(observer=observer),
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
    )


def _hide_batch_norms(graph: Graph) -> None:
    """Spells each batch norm as torch's function, which torchao does not know and so does not fold.

    A channel's scale follows its weights: rounded and then normalised they are what they are folded and then rounded.
    torchao's folding takes seconds, forgets eps and momentum, and divides by gains, which may be zero or missing.
    """
    for node in graph.nodes:
        if operator(node) == "batch_norm":
            node.target = torch.batch_norm


def _spell_swish(graph: Graph, node: Node) -> None:
    aten, source = torch.ops.aten, node.args[0]
    with graph.inserting_before(node):
        gate = graph.call_function(getattr(aten, _GATES[operator(node)]).default, (source,))
        product = graph.call_function(aten.mul.Tensor, (source, gate))
    gate.meta, product.meta = dict(node.meta), dict(node.meta)
    node.replace_all_uses_with(product)
    graph.erase_node(node)
