from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnxruntime as ort
import pytest

from contracts.boards import BOARDS
from runtime.serving.engines.cuda import CudaGpu
from runtime.serving.engines.fingerprint import (
    Gpu,
    TensorRt,
    count_dla_cores,
    detect,
    find_tensorrt,
    jetson_target,
    parse_l4t,
    parse_mem_total,
    parse_nvidia_smi,
    parse_power_mode,
    pick_target,
    run_command,
)

CUDA = ("CUDAExecutionProvider", "CPUExecutionProvider")
CPU = ("CPUExecutionProvider",)
MEMINFO = "MemTotal:        7620912 kB\nMemFree:          103440 kB\n"
L4T = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025"
)


def machine(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("model", "target"),
    [
        ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "jetson-orin-nano"),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "jetson-orin-nx"),
        ("NVIDIA Jetson AGX Orin Developer Kit", "jetson-agx-orin"),
        ("NVIDIA Jetson AGX Thor Developer Kit", "jetson-thor"),
        ("NVIDIA Jetson Nano Developer Kit", None),
        ("Raspberry Pi 5 Model B Rev 1.0", None),
        ("", None),
    ],
)
def test_a_jetson_is_known_by_its_device_tree(model: str, target: str | None) -> None:
    assert jetson_target(model) == target
    assert target is None or target in BOARDS


def test_gpus_are_read_from_nvidia_smi() -> None:
    text = "NVIDIA GeForce RTX 3060, 8.6, 12288\nNVIDIA RTX 4000 Ada Generation, 8.9, 20475\n"
    assert parse_nvidia_smi(text) == [
        Gpu("NVIDIA GeForce RTX 3060", 86, 12288 << 20),
        Gpu("NVIDIA RTX 4000 Ada Generation", 89, 20475 << 20),
    ]


@pytest.mark.parametrize("text", ["", "No devices were found", "NVIDIA-SMI has failed", "Orin, [N/A], [N/A]"])
def test_no_gpu_is_made_out_of_an_error(text: str) -> None:
    assert parse_nvidia_smi(text) == []


@pytest.mark.parametrize(
    ("arch", "jetson", "gpus", "providers", "target"),
    [
        ("x86_64", None, [], CPU, "cpu-x86"),
        ("aarch64", None, [], CPU, "cpu-arm"),
        ("aarch64", "jetson-orin-nx", [], CUDA, "jetson-orin-nx"),
        ("aarch64", "jetson-orin-nx", [], CPU, "cpu-arm"),
        ("x86_64", None, [Gpu("a", 89, 1)], CUDA, "rtx-sm89"),
        ("x86_64", None, [Gpu("a", 89, 1)], CPU, "cpu-x86"),
        ("x86_64", None, [Gpu("a", 90, 1)], CUDA, "cpu-x86"),
        ("x86_64", None, [Gpu("a", 90, 1), Gpu("b", 86, 1)], CUDA, "rtx-sm86"),
        ("x86_64", None, [], CUDA, "cpu-x86"),
    ],
)
def test_the_target_is_what_the_installed_runtime_can_use(
    arch: str, jetson: str | None, gpus: list[Gpu], providers: tuple[str, ...], target: str
) -> None:
    assert pick_target(arch, jetson, gpus, providers) == target


def test_memory_release_and_power_mode_are_read() -> None:
    assert parse_mem_total(MEMINFO) == 7620912 * 1024
    assert parse_mem_total("") == 0
    assert parse_l4t(L4T) == "L4T 36.4.3"
    assert parse_l4t("") is None
    assert parse_power_mode("NV Power Mode: 15W\n0\n") == "15W"
    assert parse_power_mode("") is None


def test_a_board_is_put_together_from_its_files(tmp_path: Path) -> None:
    files = {
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        "proc/meminfo": MEMINFO,
        "etc/nv_tegra_release": L4T,
    }
    found = detect(
        target="jetson-orin-nano",
        root=machine(tmp_path, files),
        run=lambda command: "NV Power Mode: MAXN\n2\n" if command[0] == "nvpmodel" else "",
    )
    assert (found.target, found.sm, found.jetpack, found.power_mode) == ("jetson-orin-nano", 87, "L4T 36.4.3", "MAXN")
    assert found.memory_bytes == 7620912 * 1024


def test_a_gpu_that_cuda_sees_is_described_by_cuda(tmp_path: Path) -> None:
    gpu = CudaGpu("NVIDIA GeForce RTX 4090", 89, 128, 24 << 30, "12.6")
    found = detect(target="rtx-sm86", root=tmp_path, run=lambda _: "", probe=lambda: gpu, versions=lambda _: None)
    assert (found.gpu, found.sm, found.sm_count) == ("NVIDIA GeForce RTX 4090", 89, 128)
    found = detect(target="cpu-x86", root=tmp_path, run=lambda _: "", probe=lambda: gpu, versions=lambda _: None)
    assert (found.gpu, found.sm, found.sm_count) == (None, None, None)
    assert (found.tensorrt, found.tensorrt_rtx) == (None, None)


@pytest.mark.parametrize(
    ("installed", "debian", "found"),
    [
        ({}, "10.3.0.30-1+cuda12.5", TensorRt()),
        ({"tensorrt": "10.3.0"}, "10.3.0.30-1+cuda12.5", TensorRt("10.3.0.30", "12.5")),
        ({"tensorrt": "10.3.0"}, "10.30.0.1-1+cuda12.5", TensorRt("10.3.0")),
        ({"tensorrt": "10.3.0"}, "", TensorRt("10.3.0")),
        ({"tensorrt": "10.16.1.11", "tensorrt-cu13": "10.16.1.11"}, "", TensorRt("10.16.1.11", "13")),
        ({"tensorrt-cu12": "10.16.1.11"}, "", TensorRt("10.16.1.11", "12")),
    ],
)
def test_tensorrt_is_known_by_its_build_where_the_machine_tells_it(
    installed: dict[str, str], debian: str, found: TensorRt
) -> None:
    assert find_tensorrt(lambda command: debian if command[-1] == "libnvinfer10" else "", installed.get) == found


def test_dla_cores_are_counted_but_for_those_that_are_off(tmp_path: Path) -> None:
    for core, status in {"nvdla0@15880000": "okay", "nvdla1@158c0000": "disabled"}.items():
        node = tmp_path / "proc/device-tree/bus@0/host1x@13e00000" / core
        node.mkdir(parents=True)
        (node / "status").write_text(f"{status}\0")
    assert count_dla_cores(tmp_path) == 1
    assert count_dla_cores(tmp_path / "proc") == 0


@pytest.mark.parametrize(
    ("files", "board"),
    [
        ({"proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"}, "Raspberry Pi 5 Model B Rev 1.0"),
        ({"sys/class/dmi/id/product_name": "NUC13ANKi5\n"}, "NUC13ANKi5"),
        ({"proc/device-tree/model": "\0", "sys/class/dmi/id/product_name": "NUC13ANKi5\n"}, "NUC13ANKi5"),
        ({}, None),
    ],
)
def test_a_board_is_called_what_it_calls_itself(tmp_path: Path, files: dict[str, str], board: str | None) -> None:
    found = detect(target="cpu-x86", root=machine(tmp_path, files), run=lambda _: "")
    assert found.board == board


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="this ONNX Runtime has CUDA")
@pytest.mark.parametrize(
    ("files", "gpus", "told"),
    [
        ({"proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0"}, "", "NVIDIA Jetson Orin Nano .*-nano"),
        ({}, "NVIDIA GeForce RTX 4090, 8.9, 24564\n", "NVIDIA GeForce RTX 4090 is not used: .* and not rtx-sm89"),
        ({}, "NVIDIA H200, 9.0, 143771\n", ""),
        ({}, "", ""),
    ],
    ids=["a Jetson", "an RTX card", "a GPU without a target", "no GPU"],
)
def test_a_gpu_that_is_left_idle_is_warned_of_once_and_with_what_to_install(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, files: dict[str, str], gpus: str, told: str
) -> None:
    root = machine(tmp_path, files)

    def run(command: Sequence[str]) -> str:
        return gpus if command[0] == "nvidia-smi" else ""

    assert detect(root=root, run=run).target in ("cpu-x86", "cpu-arm")
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == bool(told)
    assert all(re.search(told, message) and "Install onnxruntime-gpu" in message for message in messages)
    caplog.clear()
    detect(root=root, run=run, provider="cpu")
    detect(root=root, run=run, target="cpu-x86")
    assert not caplog.records, "nobody is told what they asked for"


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="this ONNX Runtime has CUDA")
def test_the_provider_is_the_one_asked_for_or_with_a_fallback_one_that_is_installed(tmp_path: Path) -> None:
    found = [
        detect(target="jetson-orin-nano", fallback=fallback, root=tmp_path, run=lambda _: "", probe=lambda: None)
        for fallback in (False, True)
    ]
    assert [one.provider for one in found] == ["CUDAExecutionProvider", "CPUExecutionProvider"]


def test_this_machine_has_a_fingerprint() -> None:
    found = detect()
    assert found.target in BOARDS
    assert found.arch == platform.machine()
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert found.memory_bytes > 0
    assert found.runtime.startswith("onnxruntime ")


def test_a_missing_command_says_nothing() -> None:
    assert run_command(["foothill-no-such-command"]) == ""
    assert run_command(["false"]) == ""
