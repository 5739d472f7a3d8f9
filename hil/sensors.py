"""How hot a board is and what it draws: a command for each kind of sensor, and pure parsers of what it prints."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from hil.boards import SensorKind

Run = Callable[[Sequence[str]], Awaitable[str]]


class Reading(msgspec.Struct, frozen=True):
    """One look; None for what the sensor does not tell. `watts` of the whole board or GPU, `joules` a counter that
    starts over at `wraps_at`, `throttle_counts` how often the hardware slowed down so far, `throttled` why it does now.
    """

    celsius: float | None = None
    watts: float | None = None
    joules: float | None = None
    wraps_at: float = 0.0
    throttle_counts: int | None = None
    throttled: tuple[str, ...] = ()

    @property
    def says_nothing(self) -> bool:
        return self.celsius is None and self.watts is None and self.joules is None and self.throttle_counts is None


_ZONES = (
    'for z in /sys/class/thermal/thermal_zone*; do echo "zone $(cat $z/type) $(cat $z/temp)"; done 2>/dev/null; '
    'for c in /sys/class/thermal/cooling_device*; do echo "cooling $(cat $c/cur_state) $(cat $c/type)"; done '
    "2>/dev/null; for t in /sys/devices/system/cpu/cpu*/thermal_throttle/package_throttle_count; do "
    'echo "throttle $(cat $t)"; done 2>/dev/null; true'
)
_RAPL = (
    "for d in /sys/class/powercap/intel-rapl:?; do "
    'echo "energy $(cat $d/energy_uj) $(cat $d/max_energy_range_uj)"; done'
)
_SMI_FIELDS = "temperature.gpu,power.draw,clocks_throttle_reasons.active"

COMMANDS: dict[SensorKind, tuple[str, ...]] = {
    "sysfs": ("sh", "-c", _ZONES),
    "rapl": ("sh", "-c", _RAPL),
    "tegrastats": ("sh", "-c", "timeout 5 tegrastats --interval 500 | head -n 1"),
    "nvidia-smi": ("nvidia-smi", f"--query-gpu={_SMI_FIELDS}", "--format=csv,noheader,nounits"),
}


def of_sysfs(text: str) -> Reading:
    """Thermal zones in thousandths of a degree; cooling devices that are at work, but for fans, are throttling.

    https://docs.kernel.org/driver-api/thermal/sysfs-api.html
    """
    zones = [_number(line.split()[-1]) for line in text.splitlines() if line.startswith("zone ")]
    hot = [degrees / 1000.0 for degrees in zones if degrees is not None and -100_000 < degrees < 200_000]
    counts = [_number(line.split()[-1]) for line in text.splitlines() if line.startswith("throttle ")]
    counted = [int(count) for count in counts if count is not None]
    return Reading(
        celsius=max(hot, default=None),
        throttle_counts=max(counted, default=None),
        throttled=tuple(sorted(set(_cooling(text)))),
    )


def _cooling(text: str) -> list[str]:
    found = re.findall(r"^cooling ([0-9]+) (\S+)", text, re.MULTILINE)
    return [kind for state, kind in found if int(state) > 0 and "fan" not in kind.lower()]


def of_rapl(text: str) -> Reading:
    """Energy of all packages in microjoules, which starts over at the range of the counter.

    https://docs.kernel.org/power/powercap/powercap.html. With several packages the sum of the ranges is no wrap of
    any: a single package's wrap is then seen as a negative step, and left out.
    """
    found = re.findall(r"^energy ([0-9]{1,20}) ([0-9]{1,20})$", text, re.MULTILINE)
    if not found:
        return Reading()
    return Reading(
        joules=sum(int(used) for used, _ in found) / 1e6,
        wraps_at=int(found[0][1]) / 1e6 if len(found) == 1 else 0.0,
    )


_HEAT = re.compile(r"(\w+)@(-?[0-9]+(?:\.[0-9]+)?)C\b")
_RAIL = re.compile(r"\b([A-Z][A-Z0-9_]*) ([0-9]+)(?:mW)?/[0-9]+(?:mW)?(?=\s|$)")
_TOTALS = ("VDD_IN", "POM_5V_IN")


def of_tegrastats(text: str) -> Reading:
    """One line: `cpu@48.5C` for temperatures, `VDD_IN 4500mW/4420mW` (now/mean) for rails.

    The rail of the whole module where there is one, else the sum of all. PMIC is a constant of 100 °C on older boards,
    and a sensor that is off says -256. https://docs.nvidia.com/jetson/archives/r36.4/DeveloperGuide/AT/JetsonLinuxDevelopmentTools/TegrastatsUtility.html
    """
    heat = [float(value) for name, value in _HEAT.findall(text) if name.upper() != "PMIC" and float(value) > -100]
    rails = {name: int(value) / 1000.0 for name, value in _RAIL.findall(text)}
    total = next((rails[name] for name in _TOTALS if name in rails), sum(rails.values()))
    return Reading(celsius=max(heat, default=None), watts=total if rails else None)


_REASONS = {0x08: "hardware slowdown", 0x20: "software thermal", 0x40: "hardware thermal", 0x80: "power brake"}
"""Bits of NVML's clocks event reasons that mean too hot or too little power; a power cap is a setting, not a fault.

https://docs.nvidia.com/deploy/nvml-api/group__nvmlClocksEventReasons.html"""


def of_nvidia_smi(text: str) -> Reading:
    """A line for each GPU: degrees, watts, a mask. `[N/A]` is nothing."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    rows = [row for row in rows if len(row) == 3]
    heat = [number for row in rows if (number := _number(row[0])) is not None]
    watts = [number for row in rows if (number := _number(row[1])) is not None]
    masks = [int(row[2], 16) for row in rows if re.fullmatch(r"0x[0-9a-fA-F]{1,16}", row[2])]
    reasons = {told for mask in masks for bit, told in _REASONS.items() if mask & bit}
    return Reading(max(heat, default=None), sum(watts) if watts else None, throttled=tuple(sorted(reasons)))


PARSERS: dict[SensorKind, Callable[[str], Reading]] = {
    "sysfs": of_sysfs,
    "rapl": of_rapl,
    "tegrastats": of_tegrastats,
    "nvidia-smi": of_nvidia_smi,
}


async def read(kind: SensorKind, run: Run) -> Reading:
    """Raises FoothillError `unavailable` when the command fails."""
    return PARSERS[kind](await run(COMMANDS[kind]))


def energy_j(before: Reading, after: Reading) -> float | None:
    """What a counter has counted between two looks; None where there is none, or it cannot be told."""
    if before.joules is None or after.joules is None:
        return None
    step = after.joules - before.joules
    if step < 0 and after.wraps_at:
        step += after.wraps_at
    return step if step >= 0 else None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
