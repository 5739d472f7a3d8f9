"""What a node does about a TensorRT engine: load one, build one, or stay with ONNX Runtime. A pure decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from contracts.engines import EngineRecord, Machine, TimingCacheRecord, Wanted
from contracts.portability import cache_fits, differences, obstacles

_PERFORMANCE = ("power_mode", "jetpack", "cuda")
_REACH = {"none": 0, "same_compute_capability": 1, "ampere_plus": 2}


class Facts(msgspec.Struct, frozen=True):
    """What speaks for and against building now.

    `no_builder` says why nothing can build here ("": it can). `free_bytes` of memory are available, a build is taken to
    need `needed_bytes`; it is not started above `limit_c`. `refused` are engine digests that failed here,
    `failed_builds` keys of what was wanted and could not be built.
    """

    free_bytes: int
    needed_bytes: int
    temperature_c: float | None = None
    limit_c: float = 80.0
    no_builder: str = ""
    refused: frozenset[str] = frozenset()
    failed_builds: frozenset[str] = frozenset()


class Load(msgspec.Struct, frozen=True):
    """Take this engine. `differs` names what is not the same as where it was built: () when `why` is "exact"."""

    record: EngineRecord
    why: Literal["exact", "compatible"]
    differs: tuple[str, ...] = ()


class Build(msgspec.Struct, frozen=True):
    """Build from the ONNX file, with these timings where there are any, while ONNX Runtime serves."""

    cache: TimingCacheRecord | None
    why: str


class Fallback(msgspec.Struct, frozen=True):
    """ONNX Runtime goes on serving. `passing`: this may change by itself, so ask again later."""

    why: str
    passing: bool
    runtime: Literal["onnxruntime"] = "onnxruntime"


Decision = Load | Build | Fallback


def choose(
    wanted: Wanted,
    records: Sequence[EngineRecord],
    caches: Sequence[TimingCacheRecord],
    machine: Machine,
    facts: Facts,
) -> Decision:
    """The first that holds: an engine of this exact machine; one that NVIDIA's rules allow here; a build; ONNX Runtime.

    The order of `records` does not matter: the same ones always give the same answer.
    """
    usable = [one for one in records if one.engine not in facts.refused and not obstacles(one, wanted, machine)]
    if usable:
        best = min(usable, key=lambda one: _strangeness(one, wanted, machine))
        differs = differences(best, machine)
        return Load(best, "compatible" if differs else "exact", differs)
    hindrance = hindrance_to_build(wanted, machine, facts)
    if hindrance is not None:
        return hindrance
    return Build(nearest_cache(caches, machine), _why_build(wanted, records, machine, facts))


def hindrance_to_build(wanted: Wanted, machine: Machine, facts: Facts) -> Fallback | None:
    """Why nothing is built now; None: nothing speaks against it."""
    if not machine.version:
        return Fallback(f"{machine.kind} is not installed", passing=False)
    if machine.sm is None or (machine.kind == "tensorrt" and None in (machine.gpu, machine.sm_count)):
        # What is built for a GPU that nobody can name could never be loaded again.
        return Fallback("no GPU was found, or CUDA does not say which", passing=False)
    if facts.no_builder:
        return Fallback(facts.no_builder, passing=False)
    if wanted.key in facts.failed_builds:
        return Fallback("building it failed here before", passing=False)
    if facts.temperature_c is not None and facts.temperature_c > facts.limit_c:
        return Fallback(f"the board is at {facts.temperature_c:.0f} °C, above {facts.limit_c:.0f} °C", passing=True)
    if facts.free_bytes < facts.needed_bytes:
        return Fallback(
            f"building may need {facts.needed_bytes >> 20} MiB of memory and {facts.free_bytes >> 20} MiB are free",
            passing=True,
        )
    return None


def nearest_cache(caches: Sequence[TimingCacheRecord], machine: Machine) -> TimingCacheRecord | None:
    """Timings of this very device and TensorRT; those of the same power mode first, then the newest."""
    fitting = [one for one in caches if cache_fits(one, machine)]
    return max(
        fitting,
        key=lambda one: (one.machine.power_mode == machine.power_mode, one.machine == machine, one.at_s, one.cache),
        default=None,
    )


def _strangeness(record: EngineRecord, wanted: Wanted, machine: Machine) -> tuple[object, ...]:
    """Engines of this machine sort first, then those that differ in less; the tightest profile is tuned best."""
    differs = differences(record, machine)
    weighty = [name for name in differs if name not in _PERFORMANCE]
    tuned = record.profile != wanted.profile
    reach = (_REACH[record.hardware], record.version_compatible)
    return (len(weighty), len(differs), reach, record.weight_stripped, tuned, record.engine)


def _why_build(wanted: Wanted, records: Sequence[EngineRecord], machine: Machine, facts: Facts) -> str:
    same = [one for one in records if one.onnx == wanted.onnx]
    if not same:
        return "no engine of this ONNX file is at hand"
    nearest = min(same, key=lambda one: (len(obstacles(one, wanted, machine)), one.engine))
    reasons = obstacles(nearest, wanted, machine) or ["it failed here"]
    return f"the nearest of {len(same)} engines does not fit: {'; '.join(reasons)}"
