"""The same inputs give the same bytes in another process, whatever its hash seed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from model_compiler.quantizing.half import to_fp16
from model_compiler.quantizing.int4 import quantize_int4
from model_compiler.quantizing.int8 import Keep, quantize_cpu, quantize_tensorrt
from model_compiler.quantizing.prepare import prepare
from tests.model_compiler.quantizing.chains import model, node, normal
from tests.model_compiler.quantizing.nets import residual, swish, table_for

KEEP: dict[str, Keep] = {"c2": "fp16", "c3": "fp32"}


def digests(work: Path) -> str:
    """Of every kind of file, made in `work`."""
    for name, build in (("residual", residual), ("swish", swish)):
        fp32 = build(work / f"{name}.onnx")
        table = table_for(fp32, "entropy")
        prepare(fp32, work / f"{name}.prepared")
        quantize_cpu(fp32, work / f"{name}.cpu", table)
        quantize_cpu(fp32, work / f"{name}.cpu.kept", table, keep=KEEP)
        quantize_tensorrt(fp32, work / f"{name}.trt", table)
        quantize_tensorrt(fp32, work / f"{name}.trt.kept", table, keep=KEEP)
        to_fp16(fp32, work / f"{name}.fp16")
    nodes = [node("Gemm", ["image", "w", "b"], "h", transB=1), node("Gemm", ["h", "v"], "logits")]
    constants = {"w": normal(64, 96, seed=1), "b": normal(64, seed=2), "v": normal(64, 8, seed=3)}
    quantize_int4(model(work / "dense.onnx", nodes, constants, ["n", 96]), work / "dense.int4")
    return "\n".join(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in sorted(work.iterdir()))


@pytest.mark.integration
def test_files_made_in_another_process_are_equal(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    wanted = digests(tmp_path / "here")
    assert wanted.count("\n") == 15
    for seed in ("1", "77"):
        made = subprocess.run(
            [sys.executable, "-m", "tests.model_compiler.quantizing.test_repeatable"],
            cwd=Path(__file__).parents[3],
            env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            check=True,
            timeout=120,
            text=True,
        )
        assert made.stdout.strip() == wanted


if __name__ == "__main__":
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as directory:
        print(digests(Path(directory)))
