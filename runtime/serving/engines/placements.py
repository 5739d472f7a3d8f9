"""Who runs the nodes of a session: ONNX Runtime tells it from version 1.24 on; before, one run is watched."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.serving.engines.providers import COMPILED, CPU, OPENVINO, TENSORRT, Placement
from runtime.serving.engines.tensors import Array

RECORD = "session.record_ep_graph_assignment_info"
"""The session option, set to "1", without which nothing is told."""

_COMPILING = (TENSORRT, OPENVINO)
_NODE_ENDS = "_kernel_time"

OpenProfiled = Callable[[str], Any]
"""From a prefix for files to a session of the same model on the same providers that is profiled."""


def told(session: Any) -> Placement | None:
    """What a session says; None from an ONNX Runtime that does not tell."""
    tell = getattr(session, "get_provider_graph_assignment_info", None)
    if tell is None:
        return None
    return Placement.of([(part.ep_name, node.op_type) for part in tell() for node in part.get_nodes()])


def watched(open_profiled: OpenProfiled, datatypes: Mapping[str, np.dtype[Any]]) -> Placement:
    """What a profile of one run over zeros says. Nothing is known where the model refuses zeros.

    Raises what ONNX Runtime raises when it opens the session.
    """
    with tempfile.TemporaryDirectory(prefix="foothill-profile-") as directory:
        session = open_profiled(str(Path(directory) / "run"))
        try:
            session.run(None, _zeros(session, datatypes))
        except Exception:  # noqa: BLE001 - the binding's errors share no base, and zeros may be no input of this model
            session.end_profiling()
            return Placement()
        return read_profile(Path(session.end_profiling()).read_bytes())


def known(started: Sequence[str]) -> Placement | None:
    """What needs no looking: a session with one provider runs everything there, how much that is aside."""
    return Placement() if list(started) == [CPU] else None


def read_profile(profile: bytes) -> Placement:
    """A node in a profile is an event `NAME_kernel_time`; what a provider has compiled is one node."""
    events = [event for event in json.loads(profile) if event.get("cat") == "Node"]
    nodes = [event["args"] for event in events if event["name"].endswith(_NODE_ENDS)]
    return Placement.of(
        [(node["provider"], COMPILED if node["provider"] in _COMPILING else node["op_name"]) for node in nodes]
    )


def _zeros(session: Any, datatypes: Mapping[str, np.dtype[Any]]) -> dict[str, Array]:
    return {
        tensor.name: np.zeros([size if isinstance(size, int) else 1 for size in tensor.shape], datatypes[tensor.type])
        for tensor in session.get_inputs()
    }
