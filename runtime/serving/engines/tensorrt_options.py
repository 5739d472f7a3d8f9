"""What a TensorRT engine is to be built like."""

from __future__ import annotations

import msgspec

from contracts.engines import Hardware, Kind, Shapes, Wanted
from contracts.manifest import Precision, digest_of

WORKSPACE_BYTES = 1 << 30


class BuildOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that the builder is told, but for the ONNX file and the timings.

    `precision` is that of the ONNX file: it decides the flags of the versions whose networks are not typed. `profile`
    names every input. `workspace_bytes` bounds the scratch memory of one tactic. `dla_core` None: the GPU; else layers
    that the core cannot run go to the GPU. `weight_stripped`: the engine carries no weights and needs the ONNX file
    again when it is loaded. `compute_capabilities`: TensorRT-RTX alone, such as (86, 89); () is its own default.
    """

    precision: Precision
    profile: tuple[Shapes, ...]
    kind: Kind = "tensorrt"
    workspace_bytes: int = WORKSPACE_BYTES
    hardware: Hardware = "none"
    version_compatible: bool = False
    weight_stripped: bool = False
    dla_core: int | None = None
    compute_capabilities: tuple[int, ...] = ()

    @property
    def digest(self) -> str:
        return digest_of(msgspec.json.encode(self, order="sorted"))


def options_for(wanted: Wanted, kind: Kind) -> BuildOptions:
    """The plainest engine: for this very machine and runtime, weights inside."""
    return BuildOptions(wanted.precision, wanted.profile, kind)
