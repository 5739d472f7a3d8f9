"""A network captured with torch.export whose forward pass rounds as an int8 file does.

Only `learning.qat` imports this file, and only when it trains: torch and torchao load with it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO

import torch
from torch import nn
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import FakeQuantize
from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

from model_compiler.data.samples import Floats
from model_compiler.errors import CompileError
from model_compiler.learning.qat_quantizer import Form, Int8Quantizer

_VARIANCE, _TRAINING = 4, 5
"""Where torch.batch_norm takes its running variance, and whether it learns it."""


class Rounded(nn.Module):  # type: ignore[misc]
    """`net` in training, its numbers rounded to `form`; its parameters and buffers are `net`'s own.

    `sample`: (n >= 2, ...) float32. Raises CompileError for a net that torch.export or torchao does not take.
    """

    def __init__(self, net: nn.Module, sample: Floats, form: Form) -> None:
        super().__init__()
        self._graph = _prepared(_captured(net, sample), Int8Quantizer(form))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self._graph(inputs)
        return outputs

    def train(self, mode: bool = True) -> Rounded:
        """An exported graph trains as it was exported, and refuses to be told: only the flag moves."""
        self.training = mode
        return self

    def settle(self) -> None:
        """From here on batch norms normalise by the statistics that they have, as the exported file will."""
        learning = [node for node in self._graph.graph.nodes if _learns_statistics(node)]
        for node in learning:
            node.args = (*node.args[:_TRAINING], False, *node.args[_TRAINING + 1 :])
        if learning:
            self._graph.recompile()

    def state(self) -> dict[str, torch.Tensor]:
        """The trained tensors by the names that they have in the net, and no observer's."""
        observers = tuple(f"{name}." for name, part in self._graph.named_modules() if isinstance(part, FakeQuantize))
        return {name: value for name, value in self._graph.state_dict().items() if not name.startswith(observers)}

    def ranges(self) -> dict[str, tuple[float, float]]:
        """The range of each rounded activation, by the name of the captured graph's node."""
        found = {}
        for node in self._graph.graph.nodes:
            part = self._graph.get_submodule(node.target) if node.op == "call_module" else None
            if isinstance(part, FakeQuantize) and not part.is_per_channel:
                low, high = part.activation_post_process.min_val, part.activation_post_process.max_val
                found[node.args[0].name] = (min(0.0, low.item()), max(0.0, high.item()))
        return found


def _captured(net: nn.Module, sample: Floats) -> GraphModule:
    shapes = ({0: torch.export.Dim("batch")},)
    try:
        with _quiet_export():
            program = torch.export.export(net.train(), (torch.from_numpy(sample),), dynamic_shapes=shapes)
    except Exception as error:
        raise CompileError(
            f"torch.export cannot capture the network for quantization-aware training: {_reason(error)}. "
            "Write choices between values with torch.where, loops with a fixed count, and no batch size as a number; "
            "or compile without quantization-aware training."
        ) from error
    return program.module(check_guards=False)


def _prepared(captured: GraphModule, quantizer: Int8Quantizer) -> GraphModule:
    try:
        return prepare_qat_pt2e(captured, quantizer)
    except CompileError:
        raise
    except Exception as error:
        raise CompileError(
            f"torchao cannot prepare the network for quantization-aware training: {_reason(error)}. "
            "Compile without it, or write that operator otherwise."
        ) from error


def _reason(error: Exception) -> str:
    """The first line of what torch says, and the lines that name a place in the network's code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    places = [" ".join(lines[at : at + 2]) for at, line in enumerate(lines) if line.startswith('File "')]
    causes = [line for line in lines[1:] if line.startswith("- ")]
    return " ".join([lines[0], *causes, *places]).rstrip(".")


@contextmanager
def _quiet_export() -> Iterator[None]:
    """A capture that fails logs and prints the graph so far, pages of it; what a reader can use is in the error."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        logging.disable(before)


def _learns_statistics(node: Node) -> bool:
    return node.target is torch.batch_norm and isinstance(node.args[_VARIANCE], Node) and node.args[_TRAINING] is True
