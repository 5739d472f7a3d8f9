from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from contracts.engines import Machine, Shapes
from contracts.errors import FoothillError
from model_compiler.cli import app
from model_compiler.engines import RECORD_FILE, EngineTarget, artifact_for, build_for, read_record
from model_compiler.errors import CompileError
from model_compiler.pack import read
from tests.edge_node.bundle_factory import pack
from tests.edge_node.engine_rig import with_tensorrt
from tests.runtime.serving.engines.test_tensorrt_build import Stage

HERE = Machine("tensorrt", "10.3.0.30", "linux", "x86_64", "cpu-x86", gpu="g", sm=89, sm_count=128, dla_cores=0)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    directory = tmp_path / "bundle"
    pack(directory)
    with_tensorrt(directory)
    return directory


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A module `tensorrt` that children of this process import."""
    stage = Stage(tmp_path)
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (stage.modules, root))))
    return stage


def test_an_engine_is_built_from_the_bundles_tensorrt_artifact(bundle: Path, tmp_path: Path, installed: Stage) -> None:
    target = EngineTarget(hardware="ampere_plus", workspace_bytes=1 << 20)
    built = build_for(bundle, target, tmp_path / "out", machine=HERE)
    packed = read(bundle)
    assert built.record.onnx == packed.manifest.files["trt.s8.onnx"].sha256
    assert built.record.profile == (Shapes("image", (1, 1, 8, 8), (8, 1, 8, 8), (32, 1, 8, 8)),)
    assert (built.record.hardware, built.record.machine) == ("ampere_plus", HERE)
    told = msgspec.json.decode(built.engine.read_bytes())
    assert told["pools"] == {"WORKSPACE": 1 << 20}
    assert read_record(tmp_path / "out") == built.record


def test_a_record_of_another_engine_is_noticed(bundle: Path, tmp_path: Path, installed: Stage) -> None:
    build_for(bundle, EngineTarget(), tmp_path / "out", machine=HERE)
    (tmp_path / "out" / "engine").write_bytes(b"another")
    with pytest.raises(CompileError, match=f"is not the engine of {RECORD_FILE}"):
        read_record(tmp_path / "out")


def test_what_the_installed_version_lacks_is_refused(bundle: Path, tmp_path: Path, installed: Stage) -> None:
    with pytest.raises(FoothillError, match="DLA core 0 was asked for, and this board has 0"):
        build_for(bundle, EngineTarget(dla_core=0), tmp_path / "out", machine=HERE)


def test_a_target_without_a_tensorrt_artifact_is_refused_with_those_there_are(bundle: Path) -> None:
    with pytest.raises(CompileError, match=r"no artifact for .* jetson-thor; it has some for cpu-x86"):
        artifact_for(read(bundle), "jetson-thor")
    with pytest.raises(CompileError, match="is not in the board table"):
        artifact_for(read(bundle), "toaster")


def test_without_int8_for_tensorrt_an_engine_is_built_from_fp16_on_gpus_alone(bundle: Path) -> None:
    packed = read(bundle)
    targets = ("cpu-x86", "rtx-sm89")
    half = msgspec.structs.replace(packed.manifest.artifacts[0], precision="fp16", targets=targets)
    other = msgspec.structs.replace(packed, manifest=msgspec.structs.replace(packed.manifest, artifacts=(half,)))
    assert artifact_for(other, "rtx-sm89") == half
    with pytest.raises(CompileError, match=r"it has some for rtx-sm89\."):
        artifact_for(other, "cpu-x86")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "pip install tensorrt"),
        (["--kind", "onnx"], "Use a value that --help names"),
        (["--hardware", "all"], "Use a value that --help names"),
        (["--target", "toaster"], "is not in the board table"),
        (["--target", "jetson-thor"], "has no artifact for TensorRT or in fp16 for jetson-thor"),
    ],
)
def test_the_command_says_why_there_is_no_engine(bundle: Path, tmp_path: Path, options: list[str], told: str) -> None:
    command = ["engine", str(bundle), "--out", str(tmp_path / "out"), "--target", "cpu-x86", *options]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert result.stderr.startswith("foothill compile: ")
    assert told in result.stderr
