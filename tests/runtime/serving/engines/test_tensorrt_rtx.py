"""The builder against NVIDIA's own library: TensorRT for RTX builds engines without a GPU. `make test-trt`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from contracts.engines import Machine, Shapes
from contracts.errors import FoothillError
from contracts.manifest import digest_of
from runtime.serving.engines.cuda import Cuda
from runtime.serving.engines.store import digest_of_file
from runtime.serving.engines.tensorrt_build import build_apart
from runtime.serving.engines.tensorrt_builder import Built, Listener, build
from runtime.serving.engines.tensorrt_errors import ModelRefused, OptionRefused
from runtime.serving.engines.tensorrt_module import Installed, load
from runtime.serving.engines.tensorrt_options import BuildOptions
from tests.runtime.serving.fake_tensorrt import RTX, Fake

pytestmark = [pytest.mark.trt, pytest.mark.filterwarnings("ignore:.*TensorRT-RTX.*:DeprecationWarning")]

PROFILE = (Shapes("x", (1, 3, 8, 8), (4, 3, 8, 8), (8, 3, 8, 8)),)
INT8 = BuildOptions("int8", PROFILE, "tensorrt-rtx")


@pytest.fixture(scope="module")
def installed() -> Installed:
    return load("tensorrt-rtx")


@pytest.fixture(scope="module")
def machine(installed: Installed) -> Machine:
    return Machine("tensorrt-rtx", installed.version, "linux", "x86_64", "rtx-sm89", gpu="none", sm=89)


@pytest.fixture
def onnx(tmp_path: Path) -> Path:
    path = tmp_path / "trt.s8.onnx"
    path.write_bytes(network())
    return path


def network(*, operator: str = "Relu", zero: int = 0) -> bytes:
    """A convolution in symmetric int8 with a float bias, and one operator after it."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    constants: dict[str, Any] = {
        "xs": np.float32(0.02),
        "xz": np.int8(zero),
        "wq": rng.integers(-127, 128, (8, 3, 3, 3)).astype(np.int8),
        "ws": np.full(8, 0.01, np.float32),
        "wz": np.zeros(8, np.int8),
        "bias": np.ones(8, np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"], name="quantize"),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"], name="dequantize"),
        helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["w"], name="weights", axis=0),
        helper.make_node("Conv", ["xd", "w", "bias"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node(operator, ["c"], ["y"], name="last"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", c, 8, 8]) for n, c in (("x", 3), ("y", 8))]
    graph = helper.make_graph(
        nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(v, k) for k, v in constants.items()]
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(made.SerializeToString())


def built(onnx: Path, installed: Installed, machine: Machine, **changes: Any) -> Built:
    return build(onnx, msgspec.structs.replace(INT8, **changes), machine, installed=installed)


def test_an_int8_network_becomes_an_engine(onnx: Path, installed: Installed, machine: Machine) -> None:
    made = built(onnx, installed, machine)
    assert len(made.engine) > 1000
    assert made.record.engine == digest_of(made.engine)
    assert made.record.machine.version == installed.version
    assert made.timings == b""


async def test_the_engine_is_built_in_a_child_too(onnx: Path, tmp_path: Path, machine: Machine) -> None:
    made = await build_apart(onnx, INT8, machine, tmp_path)
    assert digest_of_file(made.engine) == made.record.engine
    assert made.timings is None


def test_compute_capabilities_are_taken(onnx: Path, installed: Installed, machine: Machine) -> None:
    made = built(onnx, installed, machine, compute_capabilities=(86, 120))
    assert made.record.compute_capabilities == (86, 120)
    with pytest.raises(OptionRefused, match=r"no ComputeCapability\.SM87"):
        built(onnx, installed, machine, compute_capabilities=(87,))


def test_an_unknown_operator_is_named_with_its_node(onnx: Path, installed: Installed, machine: Machine) -> None:
    onnx.write_bytes(network(operator="NoSuchOperator"))
    with pytest.raises(
        ModelRefused, match=r"node 'last' \(NoSuchOperator, number 4\): INVALID_NODE: .*Plugin not found"
    ):
        built(onnx, installed, machine)


def test_a_zero_point_is_refused_with_its_node(onnx: Path, installed: Installed, machine: Machine) -> None:
    onnx.write_bytes(network(zero=3))
    with pytest.raises(ModelRefused, match=r"node 'quantize' \(QuantizeLinear, number 0\).*Non-zero zero point"):
        built(onnx, installed, machine)


def test_a_file_that_is_no_network_is_refused(onnx: Path, installed: Installed, machine: Machine) -> None:
    onnx.write_bytes(b"no network")
    with pytest.raises(ModelRefused, match="the file: MODEL_DESERIALIZE_FAILED"):
        built(onnx, installed, machine)


@pytest.mark.parametrize(
    "changes",
    [
        {"hardware": "ampere_plus"},
        {"hardware": "same_compute_capability"},
        {"dla_core": 0},
        {"version_compatible": True},
    ],
    ids=str,
)
def test_what_this_library_takes_without_following_is_refused(
    onnx: Path, installed: Installed, machine: Machine, changes: dict[str, Any]
) -> None:
    with pytest.raises(OptionRefused, match="does not follow"):
        built(onnx, installed, machine, **changes)


def test_it_really_follows_neither_hardware_compatibility_nor_a_dla(onnx: Path, installed: Installed) -> None:
    """Should a later release follow them, the refusals above have had their day."""
    trt, engines = installed.module, []
    for level in ("NONE", "AMPERE_PLUS"):
        told = Listener.of(trt)
        builder = trt.Builder(told)
        network = builder.create_network(0)
        assert trt.OnnxParser(network, told).parse_from_file(str(onnx))
        config = builder.create_builder_config()
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
        config.default_device_type = trt.DeviceType.GPU if level == "NONE" else trt.DeviceType.DLA
        profile = builder.create_optimization_profile()
        profile.set_shape("x", PROFILE[0].min, PROFILE[0].opt, PROFILE[0].max)
        config.add_optimization_profile(profile)
        engines.append(builder.build_serialized_network(network, config))
        assert builder.num_DLA_cores == 0
        assert any("unsupported in TensorRT-RTX" in warning for warning in told.warnings)
    assert all(engine is not None for engine in engines)


def test_the_stand_in_has_the_same_names(installed: Installed) -> None:
    fake = Fake(RTX)
    for holder in ("BuilderFlag", "MemoryPoolType", "DeviceType", "HardwareCompatibilityLevel", "ComputeCapability"):
        real, played = getattr(installed.module, holder), getattr(fake, holder)
        assert {member.name for member in played} <= set(real.__members__), holder
    lost = {"FP16", "BF16", "INT8", "FP8", "INT4"}
    assert not lost & set(installed.module.BuilderFlag.__members__)
    assert not lost & {member.name for member in fake.BuilderFlag}


def test_without_a_gpu_an_engine_is_not_loaded_and_that_is_said(
    onnx: Path, tmp_path: Path, installed: Installed, machine: Machine
) -> None:
    """The runtime gives None; nothing here may take that for an engine."""
    told = Listener.of(installed.module)
    runtime = installed.module.Runtime(told)
    if runtime.deserialize_cuda_engine(built(onnx, installed, machine).engine) is not None:
        pytest.skip("there is a GPU here")
    assert "CUDA driver version is insufficient" in told.words()
    with pytest.raises(FoothillError):
        Cuda()
