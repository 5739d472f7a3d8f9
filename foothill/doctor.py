"""`foothill doctor`: what is installed, what is missing for which role, and what to type."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from foothill.demo.places import GeoDatabaseError, database_path
from foothill.rooms import install

OLDEST_PYTHON = (3, 10)

_LINKS = (
    *("aiohappyeyeballs", "aiohttp", "cryptography", "httptools", "paho-mqtt", "prometheus-client"),
    *("rich", "tuf", "typer", "urllib3", "uvloop"),
)
_SERVING = (*_LINKS, "numpy", "onnxruntime", "opencv-python-headless", "simplejpeg")
_ONNX, _TORCH = ("onnx", "onnxscript", "onnxslim"), ("torch", "torch-pruning", "torchao", "safetensors")
_COMPILING = (*_SERVING, *_ONNX, *_TORCH, "matplotlib", "scikit-learn")


class Role(msgspec.Struct, frozen=True):
    """One thing a machine can be: the extra that brings its packages (empty: the base install)."""

    name: str
    extra: str
    packages: tuple[str, ...]
    does: str


ROLES: tuple[Role, ...] = (
    Role("client", "", ("httpx", "msgspec", "sniffio"), "ask for answers from Python"),
    Role("router", "router", (*_LINKS, "maxminddb", "numpy"), "route requests"),
    Role("fleet", "fleet", (*_LINKS, "iotcore"), "roll out models"),
    Role("edge", "edge", _SERVING, "serve models near the users"),
    Role("cloud", "cloud", _SERVING, "answer what the edge is not sure of"),
    Role("compiler", "compiler", _COMPILING, "compile models"),
)
DEMO_ROLES = ("router", "fleet", "edge", "cloud", "compiler")
# Distributions that bring the same modules as the one asked for.
_STAND_INS = {"onnxruntime": ("onnxruntime-gpu", "onnxruntime-openvino"), "opencv-python-headless": ("opencv-python",)}

State = Literal["ok", "missing", "optional"]
_MARKS: dict[State, str] = {"ok": "ok", "missing": "MISSING", "optional": "-"}


class Facts(msgspec.Struct, frozen=True):
    """What was found. Versions and paths are empty where there is nothing; `packages` holds what is installed."""

    python: tuple[int, int, int]
    system: str
    arch: str
    cores: int
    memory_bytes: int
    packages: dict[str, str]
    mosquitto: str = ""
    chromium: str = ""
    postgres: str = ""
    geo_database: str = ""
    gpu: str = ""
    jetson: str = ""
    tensorrt: str = ""
    providers: tuple[str, ...] = ()
    compiled: str = ""


class Finding(msgspec.Struct, frozen=True):
    """One line of the report. `remedy` says what to type, or what is done without it."""

    name: str
    state: State
    found: str
    remedy: str = ""


class Diagnosis(msgspec.Struct, frozen=True):
    """`roles` say what this machine can be; `machine` and `around` what it is and has."""

    machine: tuple[Finding, ...]
    roles: tuple[Finding, ...]
    around: tuple[Finding, ...]
    facts: Facts

    @property
    def healthy(self) -> bool:
        """Whether the least, the client, works."""
        return all(finding.state == "ok" for finding in (*self.machine, self.roles[0]))


def diagnose(facts: Facts) -> Diagnosis:
    """Pure: what the facts mean."""
    roles = tuple(_role(role, facts) for role in ROLES)
    return Diagnosis(tuple(_machine(facts)), (*roles, _demo(facts)), tuple(_around(facts)), facts)


def examine() -> Facts:
    """Looks around on this machine; nothing is changed and no port is opened."""
    return Facts(
        python=(sys.version_info.major, sys.version_info.minor, sys.version_info.micro),
        system=platform.system(),
        arch=platform.machine(),
        cores=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        packages=_installed(),
        mosquitto=_program("mosquitto", "/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"),
        chromium=_program("chromium", "chromium-browser", "google-chrome"),
        postgres=_program("postgres", *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres")))),
        geo_database=_geo_database(),
        gpu=_gpu(),
        jetson=_first_line(Path("/etc/nv_tegra_release")),
        tensorrt=_version("tensorrt"),
        providers=_providers(),
        compiled=_compiled(),
    )


def describe(diagnosis: Diagnosis) -> str:
    """The diagnosis for a person, as plain text."""
    lines: list[str] = []
    for title, findings in (
        ("This machine", diagnosis.machine),
        ("What it can be", diagnosis.roles),
        ("What else is here", diagnosis.around),
    ):
        lines += ["", title] if lines else [title]
        for finding in findings:
            lines.append(f"  {_MARKS[finding.state]:<8}{finding.name:<16}{finding.found}".rstrip())
            if finding.remedy:
                lines.append(f"{'':<26}{finding.remedy}")
    return "\n".join(lines)


def missing_packages(role: Role, facts: Facts) -> tuple[str, ...]:
    return tuple(
        package
        for package in role.packages
        if not any(name in facts.packages for name in (package, *_STAND_INS.get(package, ())))
    )


def _machine(facts: Facts) -> Iterator[Finding]:
    version = ".".join(map(str, facts.python))
    old = facts.python < OLDEST_PYTHON
    wanted = "Install Python 3.10 or newer." if old else ""
    yield Finding("python", "missing" if old else "ok", version, wanted)
    linux = facts.system == "Linux"
    yield Finding(
        "system",
        "ok" if linux else "missing",
        f"{facts.system} {facts.arch}, {facts.cores} cores, {facts.memory_bytes / 2**30:.1f} GiB",
        "" if linux else "Foothill's processes run on Linux; the client runs anywhere.",
    )


def _role(role: Role, facts: Facts) -> Finding:
    missing = missing_packages(role, facts)
    if not missing:
        return Finding(role.name, "ok", role.does)
    state: State = "optional" if role.extra else "missing"
    return Finding(role.name, state, f"{role.does}: needs {', '.join(missing)}", install(role.extra))


def _demo(facts: Facts) -> Finding:
    needs = [role.extra for role in ROLES if role.name in DEMO_ROLES and missing_packages(role, facts)]
    if not needs and facts.geo_database:
        return Finding("demo, up", "ok", "everything on this machine: foothill up, foothill demo")
    what = ", ".join([*needs, *([] if facts.geo_database else ["a city database"])])
    return Finding("demo, up", "optional", f"everything on this machine: needs {what}", install("all,geo"))


def _around(facts: Facts) -> Iterator[Finding]:
    without = "Without it the fleet manager runs the broker that comes with it, on 127.0.0.1 only: "
    yield _found("mosquitto", facts.mosquitto, f"{without}apt-get install mosquitto")
    yield _found("compiled", facts.compiled, "Requests cost less CPU where the hot path is compiled: make wheel")
    yield _found("geo database", facts.geo_database, f"For clients' places: {install('geo')}")
    if facts.jetson:
        yield _found("jetson", facts.jetson, "")
    yield _gpu_finding(facts)
    yield _found("tensorrt", facts.tensorrt, "Only for NVIDIA GPUs; models run on ONNX Runtime without it.")
    yield _found("onnx runtime", ", ".join(facts.providers), f"For serving: {install('edge')}")
    yield _found("postgres", facts.postgres, "Not needed: state is kept in SQLite.")
    yield _found("chromium", facts.chromium, "Only for tests in a browser: apt-get install chromium")


def _gpu_finding(facts: Facts) -> Finding:
    """A GPU alone serves nothing: ONNX Runtime must have its provider."""
    if not facts.gpu:
        return Finding("gpu", "optional", "not found", "nvidia-smi names no GPU; models run on the CPU.")
    if "CUDAExecutionProvider" in facts.providers:
        return Finding("gpu", "ok", facts.gpu)
    if facts.jetson:
        return Finding("gpu", "optional", facts.gpu, "JetPack's own onnxruntime-gpu wheel brings its provider.")
    return Finding("gpu", "optional", facts.gpu, f"ONNX Runtime cannot use it yet: {install('gpu')}")


def _found(name: str, found: str, remedy: str) -> Finding:
    return Finding(name, "ok", found) if found else Finding(name, "optional", "not found", remedy)


def _installed() -> dict[str, str]:
    return {found.name.lower().replace("_", "-"): found.version for found in importlib.metadata.distributions()}


def _geo_database() -> str:
    try:
        return str(database_path())
    except GeoDatabaseError:
        return ""


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _program(*names: str) -> str:
    return next((path for name in names if (path := shutil.which(name))), "")


def _providers() -> tuple[str, ...]:
    if importlib.util.find_spec("onnxruntime") is None:
        return ()
    import onnxruntime

    return tuple(onnxruntime.get_available_providers())


def _compiled() -> str:
    """The file of one of the modules that `make wheel` compiles, where it is compiled."""
    found = importlib.util.find_spec("runtime.links.http.wires")
    origin = (found and found.origin) or ""
    return "" if origin.endswith(".py") else origin


def _gpu() -> str:
    """The name of the first GPU, as nvidia-smi gives it."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return ""
    query = [command, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.splitlines()[0].strip() if answer.returncode == 0 and answer.stdout.strip() else ""


def _first_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return lines[0].strip() if lines else ""
