"""What a board would install: pip's own resolver, for a Python and a C library that this machine does not have.

`python -m tests.board_packages` asks the package index, and fails when a role of a node has a package without a wheel.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
EXTRA = "edge"
_OLDEST_GLIBC = 17
_MOST_ROUNDS = 5


class Board(NamedTuple):
    """`glibc` is the minor version of the C library 2.x, `tops` what must not be newer: the last with wheels there."""

    name: str
    python: str
    machine: str
    glibc: int
    tops: Mapping[str, str] = {}

    @property
    def platforms(self) -> list[str]:
        """Best first."""
        versions = [f"manylinux_2_{minor}_{self.machine}" for minor in range(self.glibc, _OLDEST_GLIBC - 1, -1)]
        return [*versions, f"manylinux2014_{self.machine}"]

    @property
    def markers(self) -> dict[str, str]:
        """The environment of PEP 508, as Python would say it there."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }


BOARDS = (
    Board("JetPack 6 (Ubuntu 22.04)", "3.10", "aarch64", 35, {"onnxruntime": "1.23.2"}),
    Board("JetPack 7 (Ubuntu 24.04)", "3.12", "aarch64", 39),
    Board("a PC with Ubuntu 22.04", "3.10", "x86_64", 35, {"onnxruntime": "1.23.2"}),
)


class Project(msgspec.Struct, rename="kebab"):
    dependencies: list[str]
    optional_dependencies: dict[str, list[str]]


class PyProject(msgspec.Struct):
    project: Project


def asked(extra: str) -> list[Requirement]:
    """What `foothill[extra]` asks for, with the extras of its own that it names."""
    project = msgspec.toml.decode((ROOT / "pyproject.toml").read_bytes(), type=PyProject).project
    found = [Requirement(line) for line in (*project.dependencies, *project.optional_dependencies[extra])]
    own = [each for each in found if each.name == "foothill"]
    return [
        *(each for each in found if each.name != "foothill"),
        *(under for each in own for inner in each.extras for under in asked(inner)),
    ]


def applicable(
    requirements: Iterable[Requirement], markers: Mapping[str, str], extras: Iterable[str] = ()
) -> list[str]:
    """Those that hold on the board, without their markers: pip would evaluate these for this machine's Python."""
    told = []
    for requirement in requirements:
        environments = [{**markers, "extra": extra} for extra in ("", *extras)]
        if requirement.marker is None or any(map(requirement.marker.evaluate, environments)):
            named = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
            told.append(f"{requirement.name}{named}{requirement.specifier}")
    return told


def missing(installs: Sequence[Mapping[str, Any]], markers: Mapping[str, str]) -> list[str]:
    """What the board's Python needs of these and this machine's does not, so that pip has left it out."""
    there = {canonicalize_name(each["metadata"]["name"]) for each in installs}
    needed = [
        line
        for each in installs
        for line in applicable(
            map(Requirement, each["metadata"].get("requires_dist", [])), markers, each.get("requested_extras", ())
        )
    ]
    return sorted({line for line in needed if canonicalize_name(Requirement(line).name) not in there})


def resolved(board: Board, requirements: Sequence[str]) -> list[dict[str, Any]]:
    """Raises CalledProcessError where some package has no wheel for the board."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report.json")
        command = [
            os.environ.get("PYTHON", "python3"),
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--quiet",
        ]
        command += ["--dry-run", "--ignore-installed", "--only-binary=:all:", "--target", directory]
        command += ["--report", str(report), "--python-version", board.python, "--implementation", "cp"]
        command += [part for platform in board.platforms for part in ("--platform", platform)]
        subprocess.run([*command, *requirements], check=True)
        installs: list[dict[str, Any]] = json.loads(report.read_bytes())["install"]
        return installs


def packages(board: Board) -> dict[str, str]:
    """Every package of the role with its wheel. Raises CalledProcessError, RuntimeError where it comes to no end."""
    requirements = applicable(asked(EXTRA), board.markers)
    for _ in range(_MOST_ROUNDS):
        installs = resolved(board, requirements)
        more = missing(installs, board.markers)
        if not more:
            return {
                canonicalize_name(each["metadata"]["name"]): each["download_info"]["url"].rpartition("/")[2]
                for each in installs
            }
        requirements = [*requirements, *more]
    raise RuntimeError(f"{board.name}: still missing after {_MOST_ROUNDS} rounds: {more}")


def main() -> None:
    """Prints each board's wheels; fails where one has none, or a newer one than runs there."""
    for board in BOARDS:
        wheels = packages(board)
        print(f"{board.name}, Python {board.python}, {board.machine}: {len(wheels)} wheels", flush=True)
        for name, top in board.tops.items():
            if wheels[name].split("-")[1] != top:
                sys.exit(f"{wheels[name]}: {board.name} is documented with {name} {top}. Correct docs/edge-node.md.")
        for wheel in sorted(wheels.values()):
            print(f"  {wheel}")


if __name__ == "__main__":
    main()
