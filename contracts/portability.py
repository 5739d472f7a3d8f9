"""Whether an engine may be loaded on a machine: NVIDIA's rules as a table, read before the runtime is asked.

Sources: "Engine Compatibility" and "Support Matrix" of TensorRT 10.16 and 11.4, "Engine Compatibility" and "CPU-Only
AOT" of TensorRT-RTX 1.7 (docs.nvidia.com/deeplearning). Where NVIDIA says nothing (another JetPack line, another CUDA
major version), the answer is no: a needless build costs minutes, a wrong engine costs answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from contracts.engines import EngineRecord, Machine, Shapes, TimingCacheRecord, Wanted, numbers

ACROSS_MAJORS = {(8, 10), (10, 11)}
"""Built with, run by: where a version-compatible engine may cross a major version (TensorRT 11.4.1 support matrix)."""

AMPERE = 80
RTX_DEFAULT = (80, 86, 89)
RTX_BLACKWELL = 120
RTX_SYSTEMS = ("linux", "windows")


class Rule(NamedTuple):
    """`what` is said when `holds` is false."""

    what: str
    holds: Callable[[EngineRecord, Machine], bool]


def obstacles(record: EngineRecord, wanted: Wanted, machine: Machine) -> list[str]:
    """Why the engine must not be loaded here for what is wanted; empty: it may be."""
    found = [] if record.onnx == wanted.onnx else ["it was built from another ONNX file"]
    if not covers(record.profile, wanted.profile):
        found.append("its profile leaves out shapes that requests may have")
    if record.machine.kind != machine.kind:
        return [*found, f"it is built for {record.machine.kind}, here is {machine.kind}"]
    return found + [rule.what for rule in RULES[machine.kind] if not rule.holds(record, machine)]


def covers(profile: tuple[Shapes, ...], wanted: tuple[Shapes, ...]) -> bool:
    """Whether every shape of `wanted` lies within the profile, for the same inputs."""
    by_name = {shapes.name: shapes for shapes in profile}
    same_inputs = set(by_name) == {shapes.name for shapes in wanted}
    return same_inputs and all(_holds(by_name[want.name], want) for want in wanted)


def differences(record: EngineRecord, machine: Machine) -> tuple[str, ...]:
    """The names of what is not the same here as where the engine was built; () for the exact machine."""
    return tuple(name for name in Machine.__struct_fields__ if getattr(record.machine, name) != getattr(machine, name))


def cache_fits(cache: TimingCacheRecord, machine: Machine) -> bool:
    """Whether the builder may use these timings: the same version and the same device, else they mislead it.

    TensorRT can be told to ignore another device, "but this may lead to functional or performance bugs"
    (IBuilderConfig::setTimingCache). TensorRT-RTX has no timings: its builder is told nothing.
    """
    there = cache.machine
    if not machine.kind == there.kind == "tensorrt" or None in _device(machine):
        return False
    return (there.version, there.os, there.arch, there.cuda, _device(there)) == (
        machine.version,
        machine.os,
        machine.arch,
        machine.cuda,
        _device(machine),
    )


def _holds(have: Shapes, want: Shapes) -> bool:
    if not len(have.min) == len(have.max) == len(want.min) == len(want.max):
        return False
    lowest = all(least <= size for least, size in zip(have.min, want.min, strict=True))
    return lowest and all(most >= size for most, size in zip(have.max, want.max, strict=True))


def _platform(record: EngineRecord, machine: Machine) -> bool:
    """Serialized engines are not portable across operating systems and processors."""
    return (record.machine.os, record.machine.arch) == (machine.os, machine.arch)


def _rtx_platform(record: EngineRecord, machine: Machine) -> bool:
    """An engine of TensorRT-RTX runs on Linux and on Windows, wherever it was built; the processor stays the same."""
    systems = {record.machine.os, machine.os}
    return record.machine.arch == machine.arch and systems <= set(RTX_SYSTEMS)


def _version(record: EngineRecord, machine: Machine) -> bool:
    """The very same build of TensorRT; a version-compatible engine also runs with a later one of its major version."""
    built, here = numbers(record.machine.version), numbers(machine.version)
    if not built or not here:
        return False
    if record.machine.version == machine.version:
        return True
    majors = (built[0], here[0])
    return record.version_compatible and built < here and (majors[0] == majors[1] or majors in ACROSS_MAJORS)


def _rtx_version(record: EngineRecord, machine: Machine) -> bool:
    """Engines are not compatible between releases of TensorRT-RTX."""
    return bool(machine.version) and record.machine.version == machine.version


def _gpu(record: EngineRecord, machine: Machine) -> bool:
    """The very same kind of GPU, unless the engine was built for more; on JetPack no engine can be."""
    there = record.machine
    if record.hardware == "none":
        return _device(there) == _device(machine) and None not in _device(machine)
    if there.jetpack or machine.jetpack or there.sm is None or machine.sm is None:
        return False
    if record.hardware == "same_compute_capability":
        return there.sm == machine.sm
    return there.sm >= AMPERE and machine.sm >= AMPERE


def _rtx_gpu(record: EngineRecord, machine: Machine) -> bool:
    """One of the compute capabilities that the engine was built for; by default 8.0, 8.6, 8.9, 12.0 and later."""
    if machine.sm is None:
        return False
    if record.compute_capabilities:
        return machine.sm in record.compute_capabilities
    return machine.sm in RTX_DEFAULT or machine.sm >= RTX_BLACKWELL


def _jetpack(record: EngineRecord, machine: Machine) -> bool:
    """The same Jetson Linux line (`L4T 36.4.3` is of line 36), or both without."""
    return _line(record.machine.jetpack) == _line(machine.jetpack)


def _cuda(record: EngineRecord, machine: Machine) -> bool:
    """The same major version; a version-compatible engine brings its own runtime, built for its own CUDA."""
    return record.version_compatible or numbers(record.machine.cuda or "")[:1] == numbers(machine.cuda or "")[:1]


def _dla(record: EngineRecord, machine: Machine) -> bool:
    return record.dla_core is None or record.dla_core < machine.dla_cores


def _refit(record: EngineRecord, _: Machine) -> bool:
    """A version-compatible engine runs on the lean runtime, which cannot put weights back."""
    return not (record.weight_stripped and record.version_compatible)


def _device(machine: Machine) -> tuple[str | int | None, ...]:
    """What makes two GPUs the same. All Orin modules have one CUDA name, so on a Jetson the module counts too."""
    return (machine.gpu, machine.sm, machine.sm_count, machine.target if machine.jetpack else "")


def _line(jetpack: str | None) -> tuple[int, ...] | None:
    return None if jetpack is None else numbers(jetpack.rpartition(" ")[2])[:1]


RULES: dict[str, tuple[Rule, ...]] = {
    "tensorrt": (
        Rule("it was built for another operating system or processor", _platform),
        Rule("it was built with another TensorRT, and not to be compatible with this one", _version),
        Rule("it was built for another GPU, or this one is not known well enough", _gpu),
        Rule("it was built on another JetPack line", _jetpack),
        Rule("its TensorRT was built for another CUDA major version", _cuda),
        Rule("it needs a DLA core that this board does not have", _dla),
        Rule("its weights were stripped, and a version-compatible engine cannot be refitted", _refit),
    ),
    "tensorrt-rtx": (
        Rule("it was built for another operating system or processor", _rtx_platform),
        Rule("it was built with another release of TensorRT-RTX", _rtx_version),
        Rule("it was not built for this GPU's compute capability", _rtx_gpu),
    ),
}
"""All of them must hold. Power mode is no rule: clocks change which tactic is fastest, not what it computes, so the
engine is loaded and its latency looked at; where a mode switches multiprocessors off, their number differs, and that is
a rule. Nor is the driver: NVIDIA's drivers run what older ones ran, and a load that fails is found out by loading."""
