"""Which of the builder's interfaces the installed version has, and what each of them lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from contracts.engines import Kind, numbers
from contracts.manifest import Precision
from runtime.serving.engines.tensorrt_errors import OptionRefused
from runtime.serving.engines.tensorrt_module import Installed
from runtime.serving.engines.tensorrt_options import BuildOptions

Typing = Literal["weak", "strong", "graph"]
"""Who decides a layer's precision: flags of the builder; the graph, when the network is made so; always the graph."""


class BuildPath(NamedTuple):
    """Versions from `lowest` up to but without `below` build by `typing`."""

    kind: Kind
    lowest: tuple[int, ...]
    below: tuple[int, ...]
    typing: Typing


PATHS = (
    BuildPath("tensorrt", (10, 0), (10, 12), "weak"),
    BuildPath("tensorrt", (10, 12), (11,), "strong"),
    BuildPath("tensorrt", (11,), (12,), "graph"),
    BuildPath("tensorrt-rtx", (1, 0), (2,), "graph"),
)
"""Weak typing is deprecated from 10.12 and gone in 11: its flags, calibrators and per-layer precisions went with it."""

PRECISION_FLAGS: dict[Precision, tuple[str, ...]] = {"fp32": (), "fp16": ("FP16",), "int8": ("INT8", "FP16")}
"""Builder flags of the weakly typed path. An int8 file has QDQ nodes, so that it needs no calibrator; what it leaves in
float may run in fp16."""


class Need(NamedTuple):
    """An option, and the name that the module must have for it: `holder.name`."""

    option: str
    asked: Callable[[BuildOptions], bool]
    holder: str
    name: Callable[[BuildOptions], str]


class NoEffect(NamedTuple):
    """An option that a runtime takes without a word, or with a warning, and then does not follow."""

    option: str
    asked: Callable[[BuildOptions], bool]
    why: str


NEEDS = (
    Need("workspace_bytes", lambda _: True, "MemoryPoolType", lambda _: "WORKSPACE"),
    Need("version_compatible", lambda o: o.version_compatible, "BuilderFlag", lambda _: "VERSION_COMPATIBLE"),
    Need("hardware", lambda o: o.hardware != "none", "HardwareCompatibilityLevel", lambda o: o.hardware.upper()),
    Need("weight_stripped", lambda o: o.weight_stripped, "BuilderFlag", lambda _: "STRIP_PLAN"),
    Need("weight_stripped", lambda o: o.weight_stripped, "BuilderFlag", lambda o: refit_flag(o.kind)),
    Need("dla_core", lambda o: o.dla_core is not None, "DeviceType", lambda _: "DLA"),
    Need("dla_core", lambda o: o.dla_core is not None, "BuilderFlag", lambda _: "GPU_FALLBACK"),
)

NO_EFFECT: dict[Kind, tuple[NoEffect, ...]] = {
    "tensorrt": (
        NoEffect(
            "compute_capabilities",
            lambda o: bool(o.compute_capabilities),
            "TensorRT builds for the GPU it runs on; set hardware to reach others",
        ),
    ),
    "tensorrt-rtx": (
        NoEffect("hardware", lambda o: o.hardware != "none", "it has compute_capabilities instead"),
        NoEffect("version_compatible", lambda o: o.version_compatible, "its engines belong to one release"),
        NoEffect("dla_core", lambda o: o.dla_core is not None, "it builds for the GPU and says nothing"),
    ),
}
"""Seen with TensorRT-RTX 1.7.1: each of these attributes is there."""


def path_of(installed: Installed) -> BuildPath:
    """Raises OptionRefused for a version that this program does not know."""
    version = numbers(installed.version)
    for path in PATHS:
        if path.kind == installed.kind and path.lowest <= version < path.below:
            return path
    known = ", ".join(f"{_dotted(p.lowest)} to below {_dotted(p.below)}" for p in PATHS if p.kind == installed.kind)
    raise OptionRefused(
        f"{installed.kind} {installed.version} is installed; engines are built with {known}. Install one of those."
    )


def check_options(installed: Installed, options: BuildOptions) -> None:
    """Raises OptionRefused for the first thing asked for that the installed version lacks or would not follow."""
    name = f"{installed.kind} {installed.version}"
    if options.kind != installed.kind:
        raise OptionRefused(f"The options are for {options.kind}, and {name} is installed. Ask for the one that is.")
    if options.version_compatible and options.weight_stripped:
        raise OptionRefused(
            "A version-compatible engine runs on the lean runtime, which cannot put weights back. Drop one."
        )
    if options.dla_core is not None and options.precision == "fp32":
        raise OptionRefused("A DLA computes in fp16 and int8. Build it from the fp16 or int8 artifact.")
    for idle in NO_EFFECT[installed.kind]:
        if idle.asked(options):
            raise OptionRefused(f"{name} does not follow {idle.option}: {idle.why}. Leave {idle.option} out.")
    for need in NEEDS:
        if need.asked(options):
            require(installed, need.holder, need.name(options), f"{need.option} was asked for")
    for flag in precision_flags(installed, options.precision):
        require(installed, "BuilderFlag", flag, f"the artifact is {options.precision}")


def precision_flags(installed: Installed, precision: Precision) -> tuple[str, ...]:
    """() where the graph decides. Raises OptionRefused for a precision that the path has no flags for."""
    if path_of(installed).typing != "weak":
        return ()
    if precision not in PRECISION_FLAGS:
        raise OptionRefused(
            f"{installed.kind} {installed.version} builds fp32, fp16 and int8 artifacts, not {precision}. "
            f"Use one of those, or TensorRT 10.12 or later."
        )
    return PRECISION_FLAGS[precision]


def network_flags(installed: Installed) -> int:
    """The argument of `Builder.create_network`."""
    if path_of(installed).typing != "strong":
        return 0
    typed = require(installed, "NetworkDefinitionCreationFlag", "STRONGLY_TYPED", "its precisions come from the graph")
    return 1 << int(typed)


def refit_flag(kind: Kind) -> str:
    """REFIT_IDENTICAL costs no speed, and TensorRT 11.3 may drop a bias with REFIT; TensorRT-RTX has REFIT alone."""
    return "REFIT" if kind == "tensorrt-rtx" else "REFIT_IDENTICAL"


def require(installed: Installed, holder: str, name: str, because: str) -> int:
    """`holder.name` of the module. Raises OptionRefused where it is not: building on without it would be silent."""
    found = getattr(getattr(installed.module, holder, None), name, None)
    if found is None:
        raise OptionRefused(
            f"{installed.kind} {installed.version} has no {holder}.{name}, and {because}. "
            f"Leave it out, or install a version that has it."
        )
    value: int = found
    return value


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
