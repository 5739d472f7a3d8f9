"""An ONNX graph by name: who makes a tensor, who takes it, what is constant."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[Any]


class Graph:
    """A view of `model` that follows changes of constants made through it, not changes of nodes."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: dict[str, onnx.NodeProto] = {node.name: node for node in model.graph.node}
        self.outputs = tuple(output.name for output in model.graph.output)
        self._constants = {each.name: each for each in model.graph.initializer}
        self._producers = {name: node for node in model.graph.node for name in node.output if name}
        self._consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in dict.fromkeys(node.input):
                self._consumers.setdefault(name, []).append(node)

    @classmethod
    def read(cls, path: Path) -> Graph:
        """Of a file that this package wrote, as it is; `prepare.load_prepared` reads those of others."""
        import onnx

        return cls(onnx.load(str(path)))

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """None for an input or a constant of the graph."""
        return self._producers.get(tensor)

    def consumers(self, tensor: str) -> list[onnx.NodeProto]:
        return self._consumers.get(tensor, [])

    def only_consumer(self, tensor: str) -> onnx.NodeProto | None:
        """The one node that takes `tensor`; None where several do or where it is an output of the graph."""
        takers = self.consumers(tensor)
        return takers[0] if len(takers) == 1 and tensor not in self.outputs else None

    def shape(self, tensor: str) -> tuple[int, ...]:
        """As ONNX infers it, 0 for what is free; empty for a tensor of unknown rank."""
        found = self._shapes.get(tensor)
        return () if found is None else tuple(dim.dim_value for dim in found.tensor_type.shape.dim)

    @cached_property
    def _shapes(self) -> dict[str, onnx.TypeProto]:
        import onnx

        inferred = onnx.shape_inference.infer_shapes(self.model).graph
        return {each.name: each.type for each in (*inferred.input, *inferred.value_info, *inferred.output)}

    def constant(self, tensor: str) -> Array | None:
        import onnx

        found = self._constants.get(tensor)
        return None if found is None else onnx.numpy_helper.to_array(found)

    def set_constant(self, tensor: str, values: Array) -> None:
        """Keeps the element type. Raises KeyError for a tensor that is no constant."""
        import onnx

        old = self._constants[tensor]
        array = np.asarray(values, onnx.helper.tensor_dtype_to_np_dtype(old.data_type), order="C")
        old.CopyFrom(onnx.numpy_helper.from_array(array, tensor))

    def add_constant(self, tensor: str, values: Array) -> None:
        import onnx

        self.model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values, order="C"), tensor))
        self._constants[tensor] = self.model.graph.initializer[-1]

    def insert_before(self, node: onnx.NodeProto, new: onnx.NodeProto) -> None:
        """`new` may be read by `node` from then on."""
        self.model.graph.node.insert([each.name for each in self.model.graph.node].index(node.name), new)
        self.nodes[new.name] = new
        self._producers.update(dict.fromkeys(new.output, new))
        for name in dict.fromkeys(new.input):
            self._consumers.setdefault(name, []).append(new)

    def write_part(self, out: Path, tensors: Sequence[str]) -> None:
        """Writes what leads to `tensors`, and nothing else, as a model whose outputs they are."""
        import onnx

        needed, waiting = set(), [*tensors]
        while waiting:
            node = self.producer(waiting.pop())
            if node is not None and node.name not in needed:
                needed.add(node.name)
                waiting += node.input
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        graph = model.graph
        del graph.node[:], graph.output[:], graph.value_info[:]
        graph.node.extend(node for node in self.model.graph.node if node.name in needed)
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(tensors))
        out.write_bytes(model.SerializeToString())


def attribute(node: onnx.NodeProto, name: str, otherwise: Any) -> Any:
    """The value of a node's attribute as Python knows it, `otherwise` where it is not set."""
    import onnx

    for each in node.attribute:
        if each.name == name:
            return onnx.helper.get_attribute_value(each)
    return otherwise
