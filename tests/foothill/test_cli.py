"""The command line as a process: quick, lazy, and plain about what is not installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from foothill import __version__
from foothill.cli import explain_missing
from foothill.rooms import ROOMS

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SITE = Path(sysconfig.get_paths()["purelib"])
# httpx and msgspec with what they need, and nothing else.
BASE = (
    "httpx",
    "httpcore",
    "anyio",
    "certifi",
    "idna",
    "h11",
    "msgspec",
    "sniffio",
    "typing_extensions.py",
    "exceptiongroup",
)
HEAVY = {"httpx", "aiohttp", "numpy", "onnxruntime", "torch"}


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "foothill", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=120, check=False)


@pytest.fixture
def base_install(tmp_path: Path) -> dict[str, str]:
    """An environment with the packages of the base install only; use it with `python -S`."""
    for name in BASE:
        if (SITE / name).exists():
            (tmp_path / name).symlink_to(SITE / name)
    return {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}


def bare(program: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-S", "-W", "error", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=60, check=False)


def test_help_lists_its_own_commands_and_the_rooms() -> None:
    told = run("--help")
    assert told.returncode == 0
    for name in ("up", "demo", "doctor", *ROOMS):
        if name not in ROOMS or importlib.util.find_spec(ROOMS[name].module) is not None:
            assert name in told.stdout


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['foothill', '--help']\n"
        "from foothill.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    print('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    loaded = set(told.rpartition("LOADED")[2].split())
    assert not loaded & HEAVY
    assert "typer" in loaded


def test_the_version_is_told() -> None:
    assert run("--version").stdout.strip() == f"foothill {__version__}"


@pytest.mark.parametrize("name", [name for name in ROOMS if importlib.util.find_spec(ROOMS[name].module) is not None])
def test_each_room_s_commands_are_mounted(name: str) -> None:
    told = run(name, "--help")
    assert told.returncode == 0, told.stderr
    assert f"foothill {name}" in told.stdout


def test_an_unknown_command_is_a_wrong_use() -> None:
    told = run("push")
    assert told.returncode == 2
    assert "push" in told.stderr


def test_too_few_requests_are_refused() -> None:
    told = run("demo", "--requests", "10")
    assert told.returncode == 2
    assert "2000" in told.stderr


def test_the_base_install_has_a_client_and_no_command_line(base_install: dict[str, str]) -> None:
    client = bare("from foothill import Client; Client('http://127.0.0.1:1').close(); print('made')", base_install)
    assert client.stdout.strip() == "made", client.stderr
    command = bare("from foothill.cli import main; main()", base_install)
    assert command.returncode == 2
    assert "pip install '.[router]'" in command.stderr
    assert "Traceback" not in command.stderr


def test_a_role_that_is_not_installed_says_what_to_type(base_install: dict[str, str], tmp_path: Path) -> None:
    for name in ("typer", "rich", "markdown_it", "mdurl", "pygments", "shellingham", "annotated_doc", "click"):
        if (SITE / name).exists():
            (tmp_path / name).symlink_to(SITE / name)
    for command, extra in (("up", "all,geo"), ("demo", "all,geo"), ("compile digits --out x", "compiler")):
        program = f"import sys; sys.argv = ['foothill', *{command.split()!r}]; from foothill.cli import main; main()"
        told = bare(program, base_install)
        assert told.returncode == 2, told.stderr
        assert f"pip install '.[{extra}]'" in told.stderr
        assert "Traceback" not in told.stderr


def test_the_explanation_names_package_and_extra() -> None:
    said = explain_missing("edge", "onnxruntime")
    assert said == (
        "foothill edge: needs onnxruntime, which is not installed. In Foothill's folder type: pip install '.[edge]'"
    )
    assert "'.[all]'" in explain_missing("doctor", "rich")


@pytest.mark.parametrize("command", [("up", "--ready-file"), ("demo", "--report")])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(command: tuple[str, str], tmp_path: Path) -> None:
    for file in (tmp_path / "absent" / "file.json", tmp_path):
        told = run(*command, str(file), "--state", str(tmp_path / "state"))
        assert (told.returncode, "folder" in told.stderr) == (2, True)
    assert not (tmp_path / "state").exists()
