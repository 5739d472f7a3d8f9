"""The doctor: made-up machines, and this one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from foothill.doctor import DEMO_ROLES, ROLES, Facts, Finding, describe, diagnose, examine, missing_packages
from runtime.links.process.settings import load

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
EVERYTHING = {package: "1.0" for role in ROLES for package in role.packages}
FULL = Facts((3, 11, 2), "Linux", "x86_64", 2, 8 << 30, EVERYTHING, mosquitto="/usr/sbin/mosquitto", geo_database="/g")
BARE = msgspec.structs.replace(
    FULL, packages={"httpx": "0.28", "msgspec": "0.20", "sniffio": "1.3"}, mosquitto="", geo_database=""
)


def finding(facts: Facts, name: str) -> Finding:
    diagnosis = diagnose(facts)
    return next(one for one in (*diagnosis.machine, *diagnosis.roles, *diagnosis.around) if one.name == name)


def test_a_full_machine_can_be_everything() -> None:
    assert diagnose(FULL).healthy
    assert {one.state for one in diagnose(FULL).roles} == {"ok"}


def test_a_bare_machine_is_a_client_and_is_told_what_to_type() -> None:
    diagnosis = diagnose(BARE)
    assert diagnosis.healthy
    assert finding(BARE, "client").state == "ok"
    assert finding(BARE, "router").remedy == "pip install '.[router]'"
    assert "aiohttp" in finding(BARE, "router").found
    assert finding(BARE, "demo, up").remedy == "pip install '.[all,geo]'"
    assert "apt-get install mosquitto" in finding(BARE, "mosquitto").remedy
    assert "'.[geo]'" in finding(BARE, "geo database").remedy
    assert "make wheel" in finding(BARE, "compiled").remedy
    assert finding(msgspec.structs.replace(BARE, compiled="/wires.so"), "compiled").found == "/wires.so"


def test_the_client_s_own_packages_are_required() -> None:
    broken = msgspec.structs.replace(BARE, packages={"msgspec": "0.20"})
    assert not diagnose(broken).healthy
    assert finding(broken, "client").state == "missing"


def test_an_old_python_and_another_system_are_said() -> None:
    old = msgspec.structs.replace(FULL, python=(3, 9, 1), system="Darwin")
    assert not diagnose(old).healthy
    assert "3.10" in finding(old, "python").remedy
    assert "Linux" in finding(old, "system").remedy


def test_the_gpu_build_of_onnx_runtime_serves_as_well() -> None:
    packages = {name: version for name, version in EVERYTHING.items() if name != "onnxruntime"}
    edge = next(role for role in ROLES if role.name == "edge")
    assert missing_packages(edge, msgspec.structs.replace(FULL, packages=packages)) == ("onnxruntime",)
    packages["onnxruntime-gpu"] = "1.23.2"
    assert missing_packages(edge, msgspec.structs.replace(FULL, packages=packages)) == ()


@pytest.mark.parametrize(
    ("facts", "state", "part"),
    [
        (FULL, "optional", "CPU"),
        (msgspec.structs.replace(FULL, gpu="RTX 4090"), "optional", "'.[gpu]'"),
        (msgspec.structs.replace(FULL, gpu="Orin", jetson="# R36"), "optional", "JetPack"),
        (msgspec.structs.replace(FULL, gpu="RTX 4090", providers=("CUDAExecutionProvider",)), "ok", ""),
    ],
)
def test_a_gpu_counts_when_onnx_runtime_can_use_it(facts: Facts, state: str, part: str) -> None:
    found = finding(facts, "gpu")
    assert found.state == state
    assert part in found.remedy


def test_what_is_missing_shows_in_the_text_with_its_remedy() -> None:
    text = describe(diagnose(BARE))
    assert re.search(r"^  -\s+router .*needs .*aiohttp", text, re.MULTILINE)
    assert "pip install '.[compiler]'" in text
    assert all(line == line.rstrip() for line in text.splitlines())


class _Project(msgspec.Struct):
    dependencies: list[str]
    optional_dependencies: dict[str, list[str]] = msgspec.field(name="optional-dependencies")


class _Pyproject(msgspec.Struct):
    project: _Project


def test_the_roles_name_the_packages_of_their_extras() -> None:
    project = load(PYPROJECT, _Pyproject).project

    def names(requirements: list[str]) -> set[str]:
        found: set[str] = set()
        for requirement in requirements:
            extras = re.match(r"foothill\[([\w,]+)\]", requirement)
            if extras:
                for extra in extras.group(1).split(","):
                    found |= names(project.optional_dependencies[extra])
            elif "python_version" not in requirement:
                found.add(re.split(r"[<>=\[; ]", requirement)[0])
        return found

    for role in ROLES:
        wanted = project.optional_dependencies[role.extra] if role.extra else project.dependencies
        assert set(role.packages) == names(wanted), role.name
    assert set(DEMO_ROLES) == {role.name for role in ROLES if role.extra}


def test_this_machine_is_examined() -> None:
    facts = examine()
    assert facts.python == sys.version_info[:3]
    assert facts.packages["msgspec"]
    assert facts.memory_bytes > 1 << 27
    assert diagnose(facts).healthy


def test_the_command_prints_text_or_json() -> None:
    command = [sys.executable, "-m", "foothill", "doctor"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "What it can be" in text
    told = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)
    assert told["roles"][0]["name"] == "client"
    assert told["facts"]["cores"] >= 1
