"""What this machine is: its target in the board table, its size, its runtime."""

from __future__ import annotations

import logging
import os
import platform
import re
import subprocess
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import msgspec
import onnxruntime

from contracts.boards import BOARDS, Fingerprint
from runtime.serving.engines import cuda
from runtime.serving.engines.cuda import CudaGpu
from runtime.serving.engines.providers import CUDA, INSTALL, Choice, provider_at_hand, provider_for

log = logging.getLogger(__name__)

Run = Callable[[Sequence[str]], str]
"""A command's standard output; "" where there is no such command or it fails."""

Probe = Callable[[], "CudaGpu | None"]
Versions = Callable[[str], "str | None"]
"""A Python distribution's version; None where it is not installed."""

_JETSONS = (
    ("thor", "jetson-thor"),
    ("orin nano", "jetson-orin-nano"),
    ("orin nx", "jetson-orin-nx"),
    ("agx orin", "jetson-agx-orin"),
)
_L4T = re.compile(r"# R([0-9]+) \(release\), REVISION: ([0-9.]+)")
_MEM_TOTAL = re.compile(r"MemTotal:\s+([0-9]+) kB")
_NVPMODEL = re.compile(r"NV Power Mode: (\S+)")
_NVINFER = re.compile(r"([0-9]+(?:\.[0-9]+){2,3})-[0-9]+\+cuda([0-9]+\.[0-9]+)")
_TENSORRT = {"tensorrt": None, "tensorrt-cu13": "13", "tensorrt-cu12": "12"}
"""Distributions of TensorRT, and the CUDA that their name stands for."""
_TENSORRT_RTX = ("tensorrt-rtx", "tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu12-bindings")
_DLA = ("proc/device-tree/host1x@*/nvdla*", "proc/device-tree/bus@0/host1x@*/nvdla*")
_COMMAND_S = 5.0


class Gpu(msgspec.Struct, frozen=True):
    """`sm` is the compute capability times ten, memory in bytes."""

    name: str
    sm: int
    memory_bytes: int


class TensorRt(msgspec.Struct, frozen=True):
    """What is installed: the version with its build number where the machine tells it, and the CUDA it is built for."""

    version: str | None = None
    cuda: str | None = None


def detect(
    *,
    target: str = "",
    provider: Choice = "auto",
    fallback: bool = False,
    root: Path = Path("/"),
    run: Run | None = None,
    probe: Probe = cuda.probe,
    versions: Versions | None = None,
) -> Fingerprint:
    """Looks at this machine. `target` overrides what it would be taken for; models are to run on `provider`, with
    `fallback` on another one that is installed. A GPU that is left idle for want of a package is warned of."""
    run, versions = run or run_command, versions or _version
    arch, own_name, available = platform.machine(), read_board(root), tuple(onnxruntime.get_available_providers())
    jetson = jetson_target(own_name)
    gpus = parse_nvidia_smi(
        run(["nvidia-smi", "--query-gpu=name,compute_cap,memory.total", "--format=csv,noheader,nounits"])
    )
    if not target:
        target = pick_target(arch, jetson, gpus, available)
        if provider == "auto" and target != (better := pick_target(arch, jetson, gpus, (*available, CUDA))):
            log.warning("%s", idle_gpu(own_name if jetson else gpus[0].name, target, better))
    board = BOARDS[target]
    gpu = probe() if board.family != "cpu" else None
    listed = gpus[0].sm if gpus and board.family == "gpu" else board.sm
    tensorrt = find_tensorrt(run, versions)
    return Fingerprint(
        target=target,
        arch=arch,
        os=f"{platform.system().lower()} {platform.release()}",
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=parse_mem_total(_read(root / "proc/meminfo")),
        provider=provider_at_hand(target, provider, available) if fallback else provider_for(target, provider),
        runtime=f"onnxruntime {onnxruntime.__version__}",
        sm=gpu.sm if gpu else listed,
        sm_count=gpu.sm_count if gpu else None,
        tensorrt=tensorrt.version,
        jetpack=parse_l4t(_read(root / "etc/nv_tegra_release")),
        power_mode=read_power_mode(run) if jetson else None,
        gpu=gpu.name if gpu else None,
        cuda=tensorrt.cuda,
        tensorrt_rtx=next(filter(None, map(versions, _TENSORRT_RTX)), None),
        dla_cores=count_dla_cores(root) if jetson else 0,
        board=own_name or None,
    )


def idle_gpu(name: str, target: str, better: str) -> str:
    """What is said of a GPU that the installed ONNX Runtime cannot use."""
    return (
        f"{name} is not used: the installed ONNX Runtime has no {CUDA}, so that this machine is {target} and not "
        f'{better}, and models run on the CPU. Install {INSTALL[CUDA]}; or set provider = "cpu" where that is meant.'
    )


def read_board(root: Path) -> str:
    """The machine's own name: of the device tree on ARM boards, of the firmware (DMI) on PCs; "" where none is told."""
    return _read(root / "proc/device-tree/model") or _read(root / "sys/class/dmi/id/product_name")


def read_power_mode(run: Run) -> str | None:
    """The mode that a Jetson is in now; None where it does not say."""
    return parse_power_mode(run(["nvpmodel", "-q"]))


def find_tensorrt(run: Run, versions: Versions) -> TensorRt:
    """The Python package's version; Debian's package knows the build number and the CUDA as well."""
    found = {name: version for name in _TENSORRT if (version := versions(name))}
    if not found:
        return TensorRt()
    version = next(iter(found.values()))
    by_name = next((_TENSORRT[name] for name in found if _TENSORRT[name]), None)
    package = _NVINFER.match(run(["dpkg-query", "-W", "-f=${Version}", f"libnvinfer{version.partition('.')[0]}"]))
    if package is not None and f"{package.group(1)}.".startswith(f"{version}."):
        return TensorRt(package.group(1), package.group(2))
    return TensorRt(version, by_name)


def count_dla_cores(root: Path) -> int:
    """Deep learning accelerators in the device tree that are not switched off. Not measured on a board."""
    cores = [path for pattern in _DLA for path in root.glob(pattern)]
    return sum(_read(core / "status") != "disabled" for core in cores)


def pick_target(arch: str, jetson: str | None, gpus: Sequence[Gpu], providers: Sequence[str]) -> str:
    """The target to serve for. An accelerator counts only where the installed runtime can use it."""
    if "CUDAExecutionProvider" in providers:
        if jetson is not None:
            return jetson
        for gpu in gpus:
            if (known := f"rtx-sm{gpu.sm}") in BOARDS:
                return known
    return "cpu-arm" if arch == "aarch64" else "cpu-x86"


def jetson_target(model: str) -> str | None:
    """The target of a device tree's `model`, such as "NVIDIA Jetson Orin Nano Developer Kit"; None for other boards."""
    lowered = model.lower()
    if "jetson" not in lowered:
        return None
    return next((target for words, target in _JETSONS if words in lowered), None)


def parse_nvidia_smi(text: str) -> list[Gpu]:
    """Lines `name, compute capability, memory in MiB`; lines out of form are passed over."""
    gpus = []
    for line in text.splitlines():
        found = re.fullmatch(r"\s*(.+?),\s*([0-9]+)\.([0-9]),\s*([0-9]+)\s*", line)
        if found:
            name, major, minor, mebibytes = found.groups()
            gpus.append(Gpu(name, int(major) * 10 + int(minor), int(mebibytes) << 20))
    return gpus


def parse_mem_total(meminfo: str) -> int:
    """Bytes of memory from /proc/meminfo; 0 where it does not say."""
    found = _MEM_TOTAL.search(meminfo)
    return int(found.group(1)) << 10 if found else 0


def parse_l4t(release: str) -> str | None:
    """The Jetson Linux release in /etc/nv_tegra_release, such as `L4T 36.4.3`."""
    found = _L4T.search(release)
    return f"L4T {found.group(1)}.{found.group(2)}" if found else None


def parse_power_mode(text: str) -> str | None:
    """The mode that `nvpmodel -q` names, such as `MAXN`."""
    found = _NVPMODEL.search(text)
    return found.group(1) if found else None


def run_command(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
