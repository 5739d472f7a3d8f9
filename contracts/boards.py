"""The board table: every target a bundle can name, and the fingerprint a node reports of itself."""

from __future__ import annotations

from typing import Literal

import msgspec

Family = Literal["cpu", "jetson", "gpu"]


class Board(msgspec.Struct, frozen=True):
    """One class of machine. `sm` is NVIDIA's compute capability times ten, None on CPUs; memory in bytes."""

    target: str
    family: Family
    arch: Literal["x86_64", "aarch64"]
    sm: int | None = None
    memory_bytes: int | None = None
    fp8: bool = False


_GIB = 1 << 30

BOARDS: dict[str, Board] = {
    board.target: board
    for board in (
        Board("cpu-x86", "cpu", "x86_64"),
        Board("cpu-arm", "cpu", "aarch64"),
        Board("jetson-orin-nano", "jetson", "aarch64", sm=87, memory_bytes=8 * _GIB),
        Board("jetson-orin-nx", "jetson", "aarch64", sm=87, memory_bytes=16 * _GIB),
        Board("jetson-agx-orin", "jetson", "aarch64", sm=87, memory_bytes=64 * _GIB),
        Board("jetson-thor", "jetson", "aarch64", sm=110, memory_bytes=128 * _GIB, fp8=True),
        Board("rtx-sm86", "gpu", "x86_64", sm=86),
        Board("rtx-sm89", "gpu", "x86_64", sm=89, fp8=True),
        Board("rtx-sm120", "gpu", "x86_64", sm=120, fp8=True),
    )
}
"""Compute capabilities: https://developer.nvidia.com/cuda-gpus. Memory is the largest of the module's variants."""


class Fingerprint(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node says its machine is. An engine file is valid only for one exact fingerprint.

    `sm` is the compute capability times ten, `sm_count` the multiprocessors that run (a Jetson's power mode may switch
    some off), `gpu` the name that CUDA gives, `board` the one that the machine gives itself. `provider` is ONNX
    Runtime's that runs models here: the one asked for, or what took over where that is allowed; native engines change
    nothing of it. `tensorrt` and `tensorrt_rtx` are full versions, with the build where the machine tells it; `cuda` is
    the CUDA that TensorRT was built for, `jetpack` the release of Jetson Linux, such as `L4T 36.4.3`. None: not there,
    or not found out.
    """

    target: str
    arch: str
    os: str
    cores: int
    memory_bytes: int
    provider: str
    runtime: str
    sm: int | None = None
    sm_count: int | None = None
    tensorrt: str | None = None
    jetpack: str | None = None
    power_mode: str | None = None
    gpu: str | None = None
    cuda: str | None = None
    tensorrt_rtx: str | None = None
    dla_cores: int = 0
    board: str | None = None
