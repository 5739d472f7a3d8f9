"""What sensors print, as boards print it, and garbage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.bench import Looked
from hil.boards import Limits
from hil.checks.thermals import judge, power_of
from hil.commands import run
from hil.sensors import COMMANDS, PARSERS, Reading, energy_j, of_nvidia_smi, of_rapl, of_sysfs, of_tegrastats, read

ORIN_NANO = (
    "11-22-2026 08:00:00 RAM 2570/7620MB (lfb 3x4MB) SWAP 0/3810MB (cached 0MB) CPU [2%@1510,1%@1510,0%@1510,off,off,"
    "off] EMC_FREQ 0%@2133 GR3D_FREQ 0%@[305] NVDEC off cpu@48.5C soc2@47.1C soc0@46.9C gpu@47.3C tj@48.5C soc1@47C "
    "VDD_IN 4523mW/4511mW VDD_CPU_GPU_CV 480mW/480mW VDD_SOC 1401mW/1395mW"
)
AGX_ORIN = (
    "RAM 3000/30536MB (lfb 5x4MB) CPU [1%@729] gpu@-256C tboard@40C tdiode@42.25C VDD_GPU_SOC 3205mW/3205mW "
    "VDD_CPU_CV 801mW/801mW VIN_SYS_5V0 4226mW/4226mW"
)
TX2 = (
    "RAM 977/7846MB (lfb 1509x4MB) IRAM 0/252kB(lfb 252kB) CPU [85%@2035,67%@2033] MTS fg 0% bg 0% BCPU@38.5C "
    "PMIC@100C thermal@37.3C VDD_IN 7358/7453 VDD_CPU 3353/3429"
)


@pytest.mark.parametrize(
    ("line", "celsius", "watts"), [(ORIN_NANO, 48.5, 4.523), (AGX_ORIN, 42.25, 8.232), (TX2, 38.5, 7.358)]
)
def test_tegrastats_of_several_boards(line: str, celsius: float, watts: float) -> None:
    reading = of_tegrastats(line)
    assert reading.celsius == celsius
    assert reading.watts == pytest.approx(watts)


def test_nvidia_smi_tells_heat_power_and_why_it_slows_down() -> None:
    reading = of_nvidia_smi("61, 123.45, 0x0000000000000000\n72, 100.00, 0x0000000000000060\n")
    assert reading.celsius == 72.0
    assert reading.watts == pytest.approx(223.45)
    assert reading.throttled == ("hardware thermal", "software thermal")
    assert of_nvidia_smi("50, [N/A], 0x0000000000000004\n") == Reading(50.0, None)
    assert of_nvidia_smi("No devices were found").says_nothing


def test_sysfs_tells_the_hottest_zone_and_what_cools() -> None:
    text = (
        "zone x86_pkg_temp 61000\nzone acpitz 27800\nzone gone \ncooling 2 Processor\ncooling 3 pwm-fan\nthrottle 7\n"
    )
    reading = of_sysfs(text)
    assert (reading.celsius, reading.throttled, reading.throttle_counts) == (61.0, ("Processor",), 7)


def test_energy_counters_wrap() -> None:
    before, after = of_rapl("energy 9000000 10000000\n"), of_rapl("energy 500000 10000000\n")
    assert energy_j(before, after) == pytest.approx(1.5)
    assert energy_j(before, Reading()) is None
    two = of_rapl("energy 9000000 10000000\nenergy 1 10000000\n")
    assert energy_j(two, of_rapl("energy 1 10000000\nenergy 2 10000000\n")) is None


@pytest.mark.parametrize("kind", COMMANDS)
@given(text=st.text(max_size=300))
def test_garbage_is_no_reading_and_no_error(kind: str, text: str) -> None:
    parser = next(parser for name, parser in PARSERS.items() if name == kind)
    assert isinstance(parser(text), Reading)


async def test_the_command_of_sysfs_runs_here() -> None:
    reading = await read("sysfs", lambda argv: run(argv, timeout_s=20.0))
    assert reading.celsius is None or -50 < reading.celsius < 150


def looked(celsius: float, watts: float, *, during: str = "soak", kind: str = "tegrastats") -> Looked:
    after = Reading(celsius=celsius, watts=watts)
    return Looked(kind, during, Reading(), after, 1.0)  # type: ignore[arg-type]


def test_heat_and_throttling_fail_beyond_their_limits_and_joules_are_told() -> None:
    cool = judge([looked(60, 10), looked(70, 20)], Limits(max_celsius=80), (), per_s=30.0)
    assert cool.outcome == "passed"
    assert cool.figures["joules_per_answer"] == pytest.approx(0.5)
    hot = judge([looked(60, 10), looked(90, 20)], Limits(max_celsius=80), (), per_s=30.0)
    assert (hot.outcome, hot.detail.partition(";")[0]) == ("failed", "90.0 °C is over the limit of 80 °C")


def test_throttling_fails_or_is_told_as_the_entry_says() -> None:
    slowed = Looked("sysfs", "soak", Reading(throttle_counts=1), Reading(celsius=50, throttle_counts=2), 1.0)
    assert "slowed down: CPU package" in judge([slowed], Limits(), (), per_s=1.0).detail
    assert judge([slowed], Limits(), (), per_s=1.0).outcome == "failed"
    assert judge([slowed], Limits(throttling="tell"), (), per_s=1.0).outcome == "passed"


def test_a_sensor_that_cannot_be_read_is_a_failure() -> None:
    assert judge([], Limits(), ["rapl cannot be read: Permission denied"], per_s=1.0).outcome == "failed"
    assert "no sensor was read" in judge([], Limits(), (), per_s=1.0).detail


def test_power_of_several_sensors_adds_up() -> None:
    assert power_of([looked(1, 10), looked(1, 20), looked(1, 5, kind="nvidia-smi")]) == pytest.approx(20.0)
