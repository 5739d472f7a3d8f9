from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from contracts.engines import EngineRecord, Machine, Shapes
from contracts.errors import FoothillError
from contracts.manifest import TensorSpec
from runtime.serving.engines.cuda import Cuda, CudaError, CudaGpu, open_library, probe
from runtime.serving.engines.tensorrt_engine import TensorRtEngine
from runtime.serving.engines.tensorrt_errors import EngineRefused
from runtime.serving.engines.tensorrt_module import Installed
from tests.runtime.serving.fake_cuda import OUT_OF_MEMORY, FakeLibcuda, FakeTrtRuntime, plan_file

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(64, 10)).astype(np.float32)
IMAGES = RNG.normal(size=(8, 1, 8, 8)).astype(np.float32)
IMAGE, LOGITS = TensorSpec("image", "FP32", (-1, 1, 8, 8)), TensorSpec("logits", "FP32", (-1, 10))
HERE = Machine("tensorrt", "10.3.0", "linux", "x86_64", "rtx-sm89", gpu="g", sm=89, sm_count=128)
RECORD = EngineRecord(
    *("sha256:o", "sha256:e", 1, "options", "int8"), HERE, (Shapes("image", (1, 1, 8, 8), (4, 1, 8, 8), (8, 1, 8, 8)),)
)


class Rig:
    """One GPU and one TensorRT."""

    def __init__(self, directory: Path) -> None:
        self.gpu = FakeLibcuda()
        self.module = FakeTrtRuntime()
        self.path = directory / "engine"
        self.onnx = directory / "trt.s8.onnx"
        plan_file(self.path, WEIGHTS)

    def open(self, **changes: Any) -> TensorRtEngine:
        record = msgspec.structs.replace(RECORD, **changes)
        installed = Installed("tensorrt", self.module, self.module.__version__)
        return TensorRtEngine(self.path, record, self.onnx, installed=installed, cuda=Cuda(self.gpu))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_an_engine_answers_batches_of_every_size_of_its_profile(rig: Rig, rows: int) -> None:
    engine = rig.open()
    engine.check([IMAGE], [LOGITS])
    for start in range(0, 8 - rows + 1, rows):
        images = IMAGES[start : start + rows]
        outputs = engine.run({"image": images})
        np.testing.assert_allclose(outputs["logits"], images.reshape(rows, 64) @ WEIGHTS, rtol=1e-6)
    assert engine.provider == "tensorrt 10.3.0"


def test_memory_is_taken_once_for_the_largest_shapes_and_given_back(rig: Rig) -> None:
    engine = rig.open()
    sizes = sorted(len(block) for block in rig.gpu.alive.values())
    assert sizes == [8 * 10 * 4, 8 * 64 * 4]
    before = set(rig.gpu.alive)
    engine.run({"image": IMAGES})
    assert set(rig.gpu.alive) == before
    engine.close()
    assert (rig.gpu.alive, rig.gpu.contexts, rig.gpu.streams) == ({}, 0, 0)


def test_an_array_that_is_no_block_of_memory_is_copied_first(rig: Rig) -> None:
    strided = np.ascontiguousarray(IMAGES.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
    assert not strided.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(
        rig.open().run({"image": strided})["logits"], rig.open().run({"image": IMAGES})["logits"]
    )


def test_an_engine_that_the_runtime_does_not_take_is_refused_with_its_words(rig: Rig) -> None:
    plan_file(rig.path, WEIGHTS, version="10.2.0")
    with pytest.raises(
        EngineRefused, match=r"engine is not taken: Error Code 6: the engine plan file is not compatible"
    ):
        rig.open()


def test_a_gpu_without_room_is_refused_and_nothing_is_left_on_it(rig: Rig) -> None:
    rig.gpu.fails["cuMemAlloc_v2"] = OUT_OF_MEMORY
    with pytest.raises(CudaError, match="cuMemAlloc_v2 failed with error 2"):
        rig.open()
    assert rig.gpu.alive == {}


def test_stripped_weights_are_put_back_from_the_onnx_file(rig: Rig) -> None:
    rig.open(weight_stripped=True)
    assert rig.module.refitted == [str(rig.onnx)]
    rig.module.refits = False
    with pytest.raises(EngineRefused, match=r"weights of trt\.s8\.onnx cannot be put back"):
        rig.open(weight_stripped=True)


def test_only_a_version_compatible_engine_may_bring_code_of_its_own(rig: Rig) -> None:
    rig.open()
    rig.open(version_compatible=True)
    assert rig.module.host_code == [False, True]


def test_shapes_outside_the_profile_are_the_callers_fault(rig: Rig) -> None:
    engine = rig.open()
    with pytest.raises(FoothillError) as refused:
        engine.run({"image": np.zeros((1, 1, 9, 9), np.float32)})
    assert refused.value.code == "bad_tensor"


def test_a_run_that_fails_is_an_error_and_never_an_empty_answer(rig: Rig) -> None:
    engine = rig.open()
    rig.module.runs_fail = True
    with pytest.raises(FoothillError, match="did not run the model") as failed:
        engine.run({"image": IMAGES})
    assert failed.value.code == "internal"
    rig.gpu.fails["cuStreamSynchronize"] = 700
    rig.module.runs_fail = False
    with pytest.raises(CudaError, match="error 700"):
        engine.run({"image": IMAGES})


def test_tensors_that_are_not_the_manifests_are_refused(rig: Rig) -> None:
    with pytest.raises(EngineRefused, match="image float32, logits float32, in the manifest image float16"):
        rig.open().check([TensorSpec("image", "FP16", (-1, 1, 8, 8))], [LOGITS])


def test_a_type_that_numpy_does_not_have_is_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def nptype(_: object) -> type:
        raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")

    monkeypatch.setattr(rig.module, "nptype", nptype, raising=False)
    with pytest.raises(EngineRefused, match="image is of a type that numpy does not have"):
        rig.open()
    assert rig.gpu.alive == {}


def test_a_record_of_other_inputs_is_refused(rig: Rig) -> None:
    with pytest.raises(EngineRefused, match=r"has inputs \['image'\], its record \['x'\]"):
        rig.open(profile=(Shapes("x", (1,), (1,), (1,)),))


def test_the_gpu_says_what_it_is() -> None:
    assert probe(FakeLibcuda(sm=(8, 7), sm_count=8)) == CudaGpu("NVIDIA Test GPU", 87, 8, 24 << 30, "12.6")


def test_no_gpu_is_made_out_of_a_driver_without_one() -> None:
    assert probe(FakeLibcuda(gpus=0)) is None
    broken = FakeLibcuda()
    broken.fails["cuInit"] = 100
    assert probe(broken) is None


@pytest.mark.skipif(open_library() is not None, reason="a driver is installed here")
def test_without_a_driver_there_is_no_gpu_and_cuda_says_what_to_install() -> None:
    assert probe() is None
    with pytest.raises(FoothillError, match="Install NVIDIA's driver"):
        Cuda()
