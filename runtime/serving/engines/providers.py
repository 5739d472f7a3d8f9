"""Which of ONNX Runtime's providers run an artifact: the table, what each is told, and who else may do its work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from contracts.boards import BOARDS
from contracts.engines import profile_of
from contracts.errors import FoothillError
from contracts.manifest import Artifact, Manifest

Choice = Literal["auto", "cpu", "cuda", "tensorrt", "openvino"]
Options = Mapping[str, str]

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
TENSORRT, OPENVINO = "TensorrtExecutionProvider", "OpenVINOExecutionProvider"
ON_NVIDIA = (CUDA, TENSORRT)

CHAINS: dict[str, tuple[str, ...]] = {
    "cpu": (CPU,),
    "cuda": (CUDA, CPU),
    "tensorrt": (TENSORRT, CUDA, CPU),
    "openvino": (OPENVINO, CPU),
}
"""Who runs a node of the graph, for each choice: the first that can. With all of them a CPU handles shapes."""

_BY_FAMILY: dict[str, Choice] = {"cpu": "cpu", "jetson": "cuda", "gpu": "cuda"}
INSTALL = {
    CPU: "onnxruntime",
    CUDA: "onnxruntime-gpu (on a Jetson, NVIDIA's build of it) in the place of onnxruntime",
    TENSORRT: "onnxruntime-gpu in the place of onnxruntime, and the TensorRT that it was built for",
    OPENVINO: "onnxruntime-openvino, in the place of onnxruntime",
}
_WORKSPACE_BYTES = 1 << 30
COMPILED = "compiled"
"""In the place of an operator: a part of the graph that a provider has compiled into one."""

_HEAVY = frozenset(
    {
        COMPILED,
        *("Conv", "ConvInteger", "ConvTranspose", "FusedConv", "NhwcConv", "QLinearConv"),
        *("Gemm", "FusedGemm", "QGemm", "MatMul", "FusedMatMul", "MatMulInteger", "MatMulNBits", "QLinearMatMul"),
        *("Attention", "GroupQueryAttention", "MultiHeadAttention", "QAttention", "Einsum", "GRU", "LSTM", "RNN"),
    }
)
"""Operators that multiply matrices: nearly all of a network's time."""

COMPILERS: frozenset[Choice] = frozenset(("tensorrt", "openvino"))
"""Those that can keep what they compile."""


class Wish(msgspec.Struct, frozen=True):
    """What the configuration of a process asks for. With `fallback` others may run what the provider does not, and it
    is reported; without it that is an error. `cache` is where all that is made of artifacts is kept, None: nowhere;
    `reserve_bytes` of its disk are left free."""

    provider: Choice = "auto"
    fallback: bool = False
    cache: Path | None = None
    reserve_bytes: int = 0


class Plan(NamedTuple):
    """Providers in order, each with its options. The first one is asked for."""

    chain: tuple[tuple[str, Options], ...]
    fallback: bool = False

    @property
    def asked(self) -> str:
        return self.chain[0][0]

    @property
    def on_cpu_alone(self) -> bool:
        return self.chain == ON_CPU.chain


ON_CPU = Plan(((CPU, {}),))


class Placement(msgspec.Struct, frozen=True):
    """How many nodes of a session's graph each provider runs, and how many of those multiply matrices.

    Without any nodes nothing is known.
    """

    nodes: Mapping[str, int] = {}
    heavy: Mapping[str, int] = {}

    @classmethod
    def of(cls, assigned: Sequence[tuple[str, str]]) -> Placement:
        """Of (provider, operator) for each node."""
        heavy = Counter(provider for provider, operator in assigned if operator in _HEAVY)
        return cls(dict(Counter(provider for provider, _ in assigned)), dict(heavy))

    @property
    def computes(self) -> str | None:
        """The provider that does most of the work; None where that is not known."""
        counts = self.heavy or self.nodes
        return max(counts, key=lambda provider: counts[provider]) if counts else None

    @property
    def told(self) -> str:
        """Such as `CUDAExecutionProvider 93, CPUExecutionProvider 4`."""
        ordered = sorted(self.nodes.items(), key=lambda entry: -entry[1])
        return ", ".join(f"{provider} {count}" for provider, count in ordered) or "unknown"

    def strays_from(self, asked: str) -> int:
        """How many nodes that matter run elsewhere: every one that multiplies matrices; if none does, all where most
        nodes are elsewhere."""
        if self.heavy:
            return sum(self.heavy.values()) - self.heavy.get(asked, 0)
        return 0 if self.computes in (None, asked) else sum(self.nodes.values()) - self.nodes.get(asked, 0)


def choice_for(choice: Choice, target: str) -> Choice:
    """What `auto` means on `target`. Raises FoothillError `bad_request` for one that is not in the board table."""
    if choice != "auto":
        return choice
    board = BOARDS.get(target)
    if board is None:
        raise FoothillError("bad_request", f"Target {target!r} is unknown. Use one of {', '.join(BOARDS)}.")
    return _BY_FAMILY[board.family]


def provider_for(target: str, choice: Choice = "auto") -> str:
    """The provider that is asked for on `target`. Raises FoothillError `bad_request` for an unknown target."""
    return CHAINS[choice_for(choice, target)][0]


def provider_at_hand(target: str, choice: Choice, available: Sequence[str]) -> str:
    """The first one that may run models and is installed: another than the one asked for, with the fallback alone.

    Raises FoothillError `bad_request` for an unknown target.
    """
    chain = CHAINS[choice_for(choice, target)]
    return next((name for name in chain if name in available), chain[0])


def plan(
    wish: Wish, target: str, manifest: Manifest, artifact: Artifact, *, threads: int, cache: Path | None = None
) -> Plan:
    """How to run `artifact` on `target`; `cache` is a directory for what is compiled from it.

    Raises FoothillError `bad_request` for an unknown target, and `bad_bundle` for an input whose size TensorRT cannot
    know.
    """
    case = _Case(manifest, artifact, threads, cache)
    chain = CHAINS[choice_for(wish.provider, target)]
    return Plan(tuple((name, _OPTIONS[name](case)) for name in chain), wish.fallback)


def offered(plan: Plan, available: Sequence[str], what: str) -> tuple[tuple[str, Options], ...]:
    """The part of the plan that the installed ONNX Runtime has.

    Raises FoothillError `bad_bundle` where what was asked for is not in it, and no other may take its place.
    """
    if plan.asked not in available and not plan.fallback:
        raise FoothillError(
            "bad_bundle",
            f"{what} was to run on {plan.asked}, but ONNX Runtime offers {', '.join(available)}. "
            f"Install {INSTALL[plan.asked]}, set another `provider` or target, or allow `provider_fallback`.",
        )
    return tuple(entry for entry in plan.chain if entry[0] in available)


def check_started(plan: Plan, started: Sequence[str], what: str) -> None:
    """A build may list a provider that finds no hardware or library: ONNX Runtime then goes on without it.

    Raises FoothillError `bad_bundle` where it was asked for and no other may take its place.
    """
    if started[:1] != [plan.asked] and not plan.fallback:
        raise FoothillError(
            "bad_bundle",
            f"{what} was to run on {plan.asked}, which ONNX Runtime could not start here: {', '.join(started)} would "
            f"run it. Look at the driver and its libraries, set another `provider`, or allow `provider_fallback`.",
        )


def check_placement(plan: Plan, placement: Placement, what: str) -> None:
    """Raises FoothillError `bad_bundle` where the provider was started and others do its work, if they may not."""
    strays = placement.strays_from(plan.asked)
    if strays and not plan.fallback:
        raise FoothillError(
            "bad_bundle",
            f"{what} was to run on {plan.asked}, which leaves {strays} of its operators to others: {placement.told}. "
            f"Compile the bundle for this provider, set another `provider`, or allow `provider_fallback`.",
        )


class _Case(NamedTuple):
    manifest: Manifest
    artifact: Artifact
    threads: int
    cache: Path | None


def _cpu(_: _Case) -> Options:
    return {}


def _cuda(_: _Case) -> Options:
    """Requests come in batches of every size: cuDNN's exhaustive search would stop the first of each for seconds. An
    arena that doubles takes memory that a Jetson's CPU needs."""
    return {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}


def _tensorrt(case: _Case) -> Options:
    """One engine for all batches, as the profile says: without one, TensorRT builds anew for each larger batch.

    The cache's engines fit one GPU and version, which the names of their files tell.
    https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html
    """
    options = {
        "trt_max_workspace_size": str(_WORKSPACE_BYTES),
        "trt_fp16_enable": _flag(case.artifact.precision in ("fp16", "int8")),
        "trt_int8_enable": _flag(case.artifact.precision == "int8"),
        **_profile(case.manifest),
    }
    if case.cache is not None:
        for kept in ("engine", "timing"):
            options[f"trt_{kept}_cache_enable"] = "True"
            options[f"trt_{kept}_cache_path"] = str(case.cache)
    return options


def _openvino(case: _Case) -> Options:
    """ACCURACY computes in the artifact's own precision: the default rounds to bfloat16 where the processor can."""
    options = {
        "device_type": "CPU",
        "precision": "ACCURACY",
        "num_of_threads": str(case.threads),
        "num_streams": "1",
    }
    return {**options, "cache_dir": str(case.cache)} if case.cache is not None else options


_OPTIONS: dict[str, Callable[[_Case], Options]] = {CPU: _cpu, CUDA: _cuda, TENSORRT: _tensorrt, OPENVINO: _openvino}


def _profile(manifest: Manifest) -> Options:
    profile = profile_of(manifest)
    return {
        f"trt_profile_{end}_shapes": ",".join(f"{shapes.name}:{_by(getattr(shapes, end))}" for shapes in profile)
        for end in ("min", "opt", "max")
    }


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _flag(value: bool) -> str:
    return "True" if value else "False"
