"""NVIDIA's Python modules without NVIDIA: the names each version has, exactly, and a builder that writes down what it
was told.

The names are those of the bindings in https://github.com/NVIDIA/TensorRT (python/src/infer/pyCore.cpp) at the tags of
these versions, and of the module tensorrt_rtx 1.7.1.116. What a version lacks raises AttributeError, as there.
"""

from __future__ import annotations

import enum
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_SHARED = {"DEBUG", "GPU_FALLBACK", "REFIT", "TF32", "VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME", "STRIP_PLAN"}
_SHARED |= {"REFIT_IDENTICAL", "WEIGHT_STREAMING"}
_WEAK = {"FP16", "BF16", "INT8", "FP8", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS"}
_BUILDER_FLAGS = {
    "10.0.1": _SHARED | _WEAK,
    "10.3.0": _SHARED | _WEAK | {"INT4", "REFIT_INDIVIDUAL"},
    "10.11.0": _SHARED | _WEAK | {"INT4", "FP4", "REFIT_INDIVIDUAL"},
    "10.12.0": _SHARED | _WEAK | {"INT4", "FP4", "REFIT_INDIVIDUAL"},
    "10.16.1.11": _SHARED | _WEAK | {"INT4", "FP4", "REFIT_INDIVIDUAL"},
    "11.1.0.23": _SHARED | {"REFIT_INDIVIDUAL"},
    "1.7.1.116": _SHARED | {"REFIT_INDIVIDUAL", "REQUIRE_USER_ALLOCATION"},
}
_LEVELS = {version: {"NONE", "AMPERE_PLUS"} for version in ("10.0.1", "10.3.0")}
_NETWORK_FLAGS = {"11.1.0.23": {"STRONGLY_TYPED"}, "1.7.1.116": {"STRONGLY_TYPED"}}

RTX = "1.7.1.116"
VERSIONS = tuple(version for version in _BUILDER_FLAGS if version != RTX)


def _enum(name: str, members: set[str]) -> Any:
    return enum.IntEnum(name, {member: index for index, member in enumerate(sorted(members))})


class ILogger:
    pass


class Severity(enum.Enum):
    ERROR = 1
    WARNING = 2


class ParserError:
    def __init__(self, node: int, name: str, operator: str, why: str) -> None:
        self._values = node, name, operator, why

    def node(self) -> int:
        return self._values[0]

    def node_name(self) -> str:
        return self._values[1]

    def node_operator(self) -> str:
        return self._values[2]

    def desc(self) -> str:
        return self._values[3]

    def code(self) -> str:
        return "ErrorCode.INVALID_NODE"


class Config:
    """What the builder was told, in `told`. It keeps only the names that its version has."""

    _fake: Fake
    _cache: Any
    told: dict[str, Any]

    def __init__(self, fake: Fake) -> None:
        self.__dict__["_fake"] = fake
        self.__dict__["told"] = {"flags": [], "pools": {}, "capabilities": []}
        self.__dict__["hardware_compatibility_level"] = 0
        self.__dict__["DLA_core"] = -1
        self.__dict__["_cache"] = None

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "hardware_compatibility_level" and self._fake.rtx:
            self._fake.log.log(Severity.WARNING, "setHardwareCompatibilityLevel() is unsupported in TensorRT-RTX.")
        self.__dict__[name] = value
        self.told[name] = int(value)

    def set_flag(self, flag: Any) -> None:
        self.told["flags"].append(flag.name)

    def get_flag(self, flag: Any) -> bool:
        return flag.name in self.told["flags"] and flag.name not in self._fake.deaf

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.told["pools"][pool.name] = size

    def set_compute_capability(self, capability: Any, index: int) -> bool:
        self.told["capabilities"].insert(index, capability.name)
        return True

    def create_timing_cache(self, data: bytes) -> bytes:
        return data

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not self._fake.rtx, "a timing cache binds the build to a GPU"
        assert not ignore_mismatch
        if cache and cache != self._fake.own_timings:
            return False
        self.__dict__["_cache"] = SimpleNamespace(serialize=lambda: cache + b"+measured")
        self.told["timings"] = cache.decode()
        return True

    def get_timing_cache(self) -> Any:
        return self._cache

    def add_optimization_profile(self, profile: Any) -> int:
        self.told["profile"] = profile.shapes
        return 0


class Fake:
    """One module. `lacks` is a builder flag that it does not have although its version should.

    `refuses` are the parser's errors; `builds` False: nothing comes out; `deaf`: flags that are set to no effect.
    """

    def __init__(
        self, version: str, *, dla_cores: int = 0, own_timings: bytes = b"own", lacks: str = "nothing"
    ) -> None:
        self.__version__ = version
        self.rtx = version == RTX
        self.refuses: list[ParserError] = []
        self.builds = True
        self.deaf: set[str] = set()
        self.own_timings = own_timings
        self.inputs: dict[str, tuple[int, ...]] = {"image": (-1, 3, 8, 8)}
        self.log: Any = None
        self.network_flags = -1
        self._dla_cores = dla_cores
        self.ILogger = ILogger
        self.BuilderFlag = _enum("BuilderFlag", _BUILDER_FLAGS[version] - {lacks})
        self.MemoryPoolType = _enum("MemoryPoolType", {"WORKSPACE", "TACTIC_DRAM"})
        self.DeviceType = _enum("DeviceType", {"GPU", "DLA"})
        known = _LEVELS.get(version, {"NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"})
        self.HardwareCompatibilityLevel = _enum("HardwareCompatibilityLevel", known)
        flags = _NETWORK_FLAGS.get(version, {"EXPLICIT_BATCH", "STRONGLY_TYPED"})
        self.NetworkDefinitionCreationFlag = _enum("NetworkDefinitionCreationFlag", flags)
        if self.rtx:
            self.ComputeCapability = _enum("ComputeCapability", {"SM75", "SM80", "SM86", "SM89", "SM120"})

    def Builder(self, log: Any) -> Any:  # noqa: N802 - NVIDIA's name
        self.log = log
        return SimpleNamespace(
            num_DLA_cores=self._dla_cores,
            create_network=self._create_network,
            create_builder_config=lambda: Config(self),
            create_optimization_profile=_Profile,
            build_serialized_network=self._build,
        )

    def OnnxParser(self, network: Any, log: Any) -> Any:  # noqa: N802 - NVIDIA's name
        return SimpleNamespace(
            parse_from_file=lambda path: Path(path).exists() and not self.refuses,
            num_errors=len(self.refuses),
            get_error=lambda index: self.refuses[index],
        )

    def _create_network(self, flags: int) -> Any:
        self.network_flags = flags
        tensors = [SimpleNamespace(name=name, shape=shape) for name, shape in self.inputs.items()]
        return SimpleNamespace(num_inputs=len(tensors), get_input=lambda index: tensors[index])

    def _build(self, network: Any, config: Config) -> bytes | None:
        if not self.builds:
            self.log.log(Severity.ERROR, "Error Code 2: OutOfMemory\n (no tactic fits)")
            return None
        return json.dumps({"version": self.__version__, "network": self.network_flags, **config.told}).encode()


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, name: str, low: Any, best: Any, high: Any) -> None:
        self.shapes[name] = [list(low), list(best), list(high)]
