"""The packed directory: canonical, content-addressed, checked when read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from contracts import manifest as manifests
from contracts.errors import FoothillError
from contracts.manifest import Artifact, Golden, Manifest, Measured, Measurements, Postprocess, TensorSpec
from model_compiler.errors import CompileError
from model_compiler.pack import Packed, attach, files_of, npy, pack, read, read_measurements


def contents() -> dict[str, bytes]:
    values = np.arange(8, dtype=np.float32).reshape(2, 4)
    return {"golden/a.onnx/out.npy": npy(values + 1), "a.onnx": b"weights", "golden/inputs/in.npy": npy(values)}


def manifest_of(files: dict[str, bytes], version: str = "1") -> Manifest:
    return Manifest(
        name="probe",
        version=version,
        model="probe",
        task="classification",
        tier="edge",
        files=files_of(files),
        artifacts=(Artifact("a.onnx", "fp32", "onnxruntime", ("cpu-x86",)),),
        inputs=(TensorSpec("in", "FP32", (-1, 4)),),
        outputs=(TensorSpec("out", "FP32", (-1, 4)),),
        postprocess=Postprocess("out", "logits"),
        golden=Golden({"in": "golden/inputs/in.npy"}, {"a.onnx": {"out": "golden/a.onnx/out.npy"}}, 1e-3, 1e-3),
    )


def packed_at(directory: Path) -> Packed:
    return pack(directory, manifest_of(contents()), contents())


def tree(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_packed_directory_holds_what_its_manifest_names_and_no_more(tmp_path: Path) -> None:
    packed = packed_at(tmp_path / "probe@1")
    assert tree(packed.directory).keys() == {*contents(), "manifest.json"}
    assert packed.digest == manifests.digest_of((packed.directory / "manifest.json").read_bytes())
    assert [path.name for path in tmp_path.iterdir()] == ["probe@1"]


def test_packing_in_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    """Another hash seed, another order of files, another directory."""
    packed = packed_at(tmp_path / "here")
    script = (
        "import sys; from pathlib import Path; sys.path[:0] = sys.argv[2:]; import test_pack as t; "
        "files = dict(reversed(t.contents().items())); "
        "print(t.pack(Path(sys.argv[1]), t.manifest_of(files), files).digest)"
    )
    there = tmp_path / "elsewhere" / "there"
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    result = subprocess.run(
        [sys.executable, "-c", script, str(there), *paths],
        env={"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stdout.strip() == packed.digest
    assert tree(there) == tree(packed.directory)


def test_measurements_do_not_change_the_address(tmp_path: Path) -> None:
    packed = packed_at(tmp_path / "probe@1")
    measurements = Measurements("probe@1", {"a.onnx": Measured(0.9, 10, 1.5, 7)}, "how", "machine")
    attach(packed, measurements)
    assert read(packed.directory).digest == packed.digest
    assert read_measurements(packed) == measurements


def test_missing_measurements_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    packed = packed_at(tmp_path / "probe@1")
    with pytest.raises(CompileError, match="Compile the bundle again"):
        read_measurements(packed)
    packed.file(manifests.MEASUREMENTS_FILE).write_bytes(b'{"bundle":"\xff"}')
    with pytest.raises(CompileError, match="Compile the bundle again"):
        read_measurements(packed)


def test_packing_again_replaces_what_was_there(tmp_path: Path) -> None:
    packed_at(tmp_path / "probe")
    (tmp_path / "probe" / "stale").write_bytes(b"old")
    assert "stale" not in tree(packed_at(tmp_path / "probe").directory)


def test_a_manifest_that_names_other_files_is_refused(tmp_path: Path) -> None:
    changed = {**contents(), "a.onnx": b"other weights"}
    with pytest.raises(CompileError, match="does not name the files"):
        pack(tmp_path / "probe", manifest_of(contents()), changed)
    assert not list(tmp_path.iterdir())


def test_a_manifest_that_breaks_its_rules_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FoothillError, match="version"):
        pack(tmp_path / "probe", manifest_of(contents(), version="one"), contents())


@pytest.mark.parametrize("name", ["a.onnx", "golden/inputs/in.npy", "manifest.json"])
def test_a_changed_byte_is_found(tmp_path: Path, name: str) -> None:
    packed = packed_at(tmp_path / "probe")
    path = packed.directory / name
    data = path.read_bytes()
    path.write_bytes(data.replace(b"{", b"{ ", 1) if name == "manifest.json" else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CompileError, match="was changed after it was packed"):
        read(packed.directory)


def test_what_is_no_bundle_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="is no packed bundle"):
        read(tmp_path)
    packed = packed_at(tmp_path / "probe")
    packed.file("a.onnx").unlink()
    with pytest.raises(CompileError, match="is no packed bundle"):
        read(packed.directory)


def test_npy_reads_back_and_does_not_depend_on_memory_order() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert npy(np.asfortranarray(array)) == npy(array)
    assert msgspec.json.encode(npy(array)) == msgspec.json.encode(npy(array.copy()))


def test_what_is_no_bundle_is_not_replaced_by_one(tmp_path: Path) -> None:
    (tmp_path / "probe").mkdir()
    packed_at(tmp_path / "probe")
    assert packed_at(tmp_path / "probe").manifest.name == "probe"
    (tmp_path / "mine" / "sub").mkdir(parents=True)
    for own, told in ((tmp_path / "mine", "holds sub, and no bundle"), (tmp_path / "probe" / "a.onnx", "no directory")):
        with pytest.raises(CompileError, match=told):
            packed_at(own)
    assert (tmp_path / "mine" / "sub").is_dir()
