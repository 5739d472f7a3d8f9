"""Heat and power under the curve and the soak: how hot, whether it slowed down, and what an answer costs in joules."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from contracts.acceptance import Check
from hil.bench import Bench, Looked
from hil.boards import Limits
from hil.sensors import energy_j


async def thermals(bench: Bench) -> list[Check]:
    """Judges what was read meanwhile; a sensor that the board's entry names and that cannot be read is a failure."""
    if {"curve", "soak"} <= bench.plan.skip:
        return [Check("thermals", "skipped", "nothing made the board work: curve and soak were left out")]
    faults = [f"{kind} cannot be read: {why}" for kind, why in sorted(bench.sensor_faults.items())]
    return [judge(bench.readings, bench.board.limits, faults, per_s=bench.soak_per_s)]


def judge(readings: Sequence[Looked], limits: Limits, faults: Sequence[str], *, per_s: float) -> Check:
    """Pure. `per_s`: the answers a second of the soak."""
    found = list(faults)
    heat = [look.after.celsius for look in readings if look.after.celsius is not None]
    power = power_of(readings)
    if not readings and not found:
        found.append("no sensor was read: run the curve or the soak too")
    if heat and max(heat) > limits.max_celsius:
        found.append(f"{max(heat):.1f} °C is over the limit of {limits.max_celsius:g} °C")
    slowed = throttled(readings)
    if slowed and limits.throttling == "fail":
        found.append(f"it slowed down: {', '.join(slowed)}")
    told = [f"at most {max(heat):.1f} °C, limit {limits.max_celsius:g} °C"] if heat else []
    told += [f"{power:.1f} W on the mean"] if power is not None else []
    told += [f"slowed down: {', '.join(slowed)}"] if slowed and limits.throttling == "tell" else []
    figures = {"celsius": max(heat)} if heat else {}
    figures |= {"watts": power} if power is not None else {}
    soaking = power_of([look for look in readings if look.during == "soak"])
    if soaking is not None and per_s > 0:
        figures["joules_per_answer"] = soaking / per_s
        told.append(f"{soaking / per_s:.4g} J an answer in the soak")
    return Check("thermals", "failed" if found else "passed", "; ".join([*found, *told]), figures=figures)


def power_of(readings: Sequence[Looked]) -> float | None:
    """The mean of each kind of sensor, added up: a GPU beside a processor. None where none tells."""
    found: dict[str, list[float]] = {}
    for look in readings:
        watts = watts_of(look)
        if watts is not None:
            found.setdefault(look.kind, []).append(watts)
    return sum(fmean(watts) for watts in found.values()) if found else None


def watts_of(look: Looked) -> float | None:
    """The sensor's own, or what its counter counted."""
    if look.after.watts is not None:
        return look.after.watts
    used = energy_j(look.before, look.after)
    return used / look.seconds if used is not None and look.seconds > 0 else None


def throttled(readings: Sequence[Looked]) -> tuple[str, ...]:
    reasons = {reason for look in readings for reason in look.after.throttled}
    counted = any(
        look.before.throttle_counts is not None
        and look.after.throttle_counts is not None
        and look.after.throttle_counts > look.before.throttle_counts
        for look in readings
    )
    return tuple(sorted(reasons | ({"CPU package"} if counted else set())))
