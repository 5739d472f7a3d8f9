from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contracts.engines import Kind, Machine, Shapes
from contracts.manifest import Precision, digest_of
from runtime.serving.engines.tensorrt_builder import Built, build
from runtime.serving.engines.tensorrt_errors import BuildFailed, ModelRefused, NotInstalled, OptionRefused
from runtime.serving.engines.tensorrt_module import Installed, load
from runtime.serving.engines.tensorrt_options import BuildOptions
from tests.runtime.serving.fake_tensorrt import RTX, VERSIONS, Fake, ParserError

PROFILE = (Shapes("image", (1, 3, 8, 8), (4, 3, 8, 8), (8, 3, 8, 8)),)
INT8 = BuildOptions("int8", PROFILE)
WEAK = ("10.0.1", "10.3.0", "10.11.0")
STRONG = ("10.12.0", "10.16.1.11")


def kind_of(fake: Fake) -> Kind:
    return "tensorrt-rtx" if fake.rtx else "tensorrt"


def machine(fake: Fake, **more: Any) -> Machine:
    return Machine(kind_of(fake), fake.__version__, "linux", "x86_64", "rtx-sm89", sm=89, sm_count=128, gpu="g", **more)


@pytest.fixture
def onnx(tmp_path: Path) -> Path:
    path = tmp_path / "trt.s8.onnx"
    path.write_bytes(b"a network")
    return path


def made(fake: Fake, onnx: Path, options: BuildOptions = INT8, **more: Any) -> tuple[Built, dict[str, Any]]:
    """What was built, and what the builder wrote down."""
    installed = Installed(kind_of(fake), fake, fake.__version__)
    options = msgspec.structs.replace(options, kind=installed.kind)
    here = more.pop("machine", machine(fake))
    built = build(onnx, options, here, installed=installed, **more)
    return built, json.loads(built.engine)


@pytest.mark.parametrize("version", WEAK)
@pytest.mark.parametrize(
    ("precision", "flags"), [("int8", ["INT8", "FP16"]), ("fp16", ["FP16"]), ("fp32", [])], ids=["int8", "fp16", "fp32"]
)
def test_before_10_12_flags_decide_the_precision(
    version: str, precision: Precision, flags: list[str], onnx: Path
) -> None:
    _, told = made(Fake(version), onnx, BuildOptions(precision, PROFILE))
    assert (told["network"], told["flags"]) == (0, flags)


@pytest.mark.parametrize("version", STRONG)
def test_from_10_12_the_network_is_strongly_typed(version: str, onnx: Path) -> None:
    fake = Fake(version)
    _, told = made(fake, onnx)
    assert told["network"] == 1 << int(fake.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert told["flags"] == []


@pytest.mark.parametrize("version", ["11.1.0.23", RTX])
def test_from_11_the_graph_decides_and_no_flag_is_needed(version: str, onnx: Path) -> None:
    _, told = made(Fake(version), onnx)
    assert (told["network"], told["flags"]) == (0, [])


@pytest.mark.parametrize("version", [*VERSIONS, RTX])
def test_an_engine_comes_with_what_it_is_valid_for(version: str, onnx: Path) -> None:
    fake = Fake(version)
    built, told = made(fake, onnx)
    record = built.record
    assert (record.onnx, record.engine) == (digest_of(b"a network"), digest_of(built.engine))
    assert (record.bytes, record.machine, record.profile) == (len(built.engine), machine(fake), PROFILE)
    assert told["profile"] == {"image": [list(PROFILE[0].min), list(PROFILE[0].opt), list(PROFILE[0].max)]}
    assert told["pools"] == {"WORKSPACE": INT8.workspace_bytes}


@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_asked_for_is_told_and_recorded(version: str, onnx: Path) -> None:
    options = BuildOptions("fp16", PROFILE, hardware="ampere_plus", weight_stripped=True, workspace_bytes=1 << 20)
    fake = Fake(version)
    built, told = made(fake, onnx, options)
    assert {"STRIP_PLAN", "REFIT_IDENTICAL"} <= set(told["flags"])
    assert told["hardware_compatibility_level"] == fake.HardwareCompatibilityLevel.AMPERE_PLUS
    assert told["pools"] == {"WORKSPACE": 1 << 20}
    assert (built.record.hardware, built.record.weight_stripped) == ("ampere_plus", True)
    built, told = made(Fake(version), onnx, BuildOptions("int8", PROFILE, version_compatible=True))
    assert "VERSION_COMPATIBLE" in told["flags"]
    assert built.record.version_compatible


@pytest.mark.parametrize("version", VERSIONS)
def test_a_dla_is_used_with_the_gpu_behind_it(version: str, onnx: Path) -> None:
    fake = Fake(version, dla_cores=2)
    built, told = made(fake, onnx, BuildOptions("int8", PROFILE, dla_core=1))
    assert told["default_device_type"] == fake.DeviceType.DLA
    assert (told["DLA_core"], built.record.dla_core) == (1, 1)
    assert "GPU_FALLBACK" in told["flags"]


@pytest.mark.parametrize("version", [*VERSIONS, RTX])
def test_a_dla_core_that_is_not_there_is_refused(version: str, onnx: Path) -> None:
    with pytest.raises(OptionRefused, match=r"DLA core 0 was asked for, and this board has 0|does not follow dla_core"):
        made(Fake(version), onnx, BuildOptions("int8", PROFILE, dla_core=0))


@pytest.mark.parametrize("flag", ["INT8", "FP16"])
def test_a_precision_flag_that_is_not_there_is_refused_and_no_float_engine_built(flag: str, onnx: Path) -> None:
    fake = Fake("10.3.0", lacks=flag)
    with pytest.raises(OptionRefused, match=rf"has no BuilderFlag\.{flag}, and the artifact is int8"):
        made(fake, onnx)
    assert fake.log is None, "nothing was begun"


@pytest.mark.parametrize("flag", ["INT8", "VERSION_COMPATIBLE"])
def test_a_flag_that_the_builder_drops_is_noticed(flag: str, onnx: Path) -> None:
    fake = Fake("10.3.0")
    fake.deaf = {flag}
    with pytest.raises(OptionRefused, match=rf"did not take BuilderFlag\.{flag}"):
        made(fake, onnx, BuildOptions("int8", PROFILE, version_compatible=True))


@pytest.mark.parametrize(
    ("version", "options", "says"),
    [
        (
            "10.3.0",
            BuildOptions("int8", PROFILE, hardware="same_compute_capability"),
            "HardwareCompatibilityLevel.SAME",
        ),
        ("10.3.0", BuildOptions("int4", PROFILE), "fp32, fp16 and int8 artifacts, not int4"),
        (
            "10.16.1.11",
            BuildOptions("int8", PROFILE, compute_capabilities=(89,)),
            "does not follow compute_capabilities",
        ),
        ("10.16.1.11", BuildOptions("int8", PROFILE, version_compatible=True, weight_stripped=True), "lean runtime"),
        ("10.16.1.11", BuildOptions("fp32", PROFILE, dla_core=0), "fp16 and int8"),
        (RTX, BuildOptions("int8", PROFILE, hardware="ampere_plus"), "does not follow hardware"),
        (RTX, BuildOptions("int8", PROFILE, version_compatible=True), "does not follow version_compatible"),
        (RTX, BuildOptions("int8", PROFILE, compute_capabilities=(87,)), "has no ComputeCapability.SM87"),
    ],
)
def test_what_the_installed_version_lacks_or_does_not_follow_is_refused(
    version: str, options: BuildOptions, says: str, onnx: Path
) -> None:
    with pytest.raises(OptionRefused, match=says):
        made(Fake(version, dla_cores=1), onnx, options)


def test_compute_capabilities_are_told_to_tensorrt_rtx(onnx: Path) -> None:
    built, told = made(Fake(RTX), onnx, BuildOptions("int8", PROFILE, compute_capabilities=(86, 120)))
    assert (told["capabilities"], told["num_compute_capabilities"]) == (["SM86", "SM120"], 2)
    assert built.record.compute_capabilities == (86, 120)


@pytest.mark.parametrize(
    ("kind", "version"), [("tensorrt", "8.6.1"), ("tensorrt", "12.0.0"), ("tensorrt-rtx", "2.0.0"), ("tensorrt", "ten")]
)
def test_a_version_that_is_not_known_is_refused(kind: Kind, version: str, onnx: Path) -> None:
    fake = Fake("10.3.0")
    here = msgspec.structs.replace(machine(fake), kind=kind, version=version)
    with pytest.raises(OptionRefused, match=r"Install one of those|Start the program again"):
        build(onnx, BuildOptions("int8", PROFILE, kind), here, installed=Installed(kind, fake, version))


def test_an_engine_is_not_recorded_for_another_machine_than_this(onnx: Path) -> None:
    fake = Fake("10.3.0")
    with pytest.raises(OptionRefused, match=r"taken for one with tensorrt 10\.3\.1"):
        made(fake, onnx, machine=msgspec.structs.replace(machine(fake), version="10.3.1.5"))
    with pytest.raises(OptionRefused, match="on JetPack"):
        made(fake, onnx, BuildOptions("int8", PROFILE, hardware="ampere_plus"), machine=machine(fake, jetpack="L4T 36"))
    built, _ = made(fake, onnx, machine=msgspec.structs.replace(machine(fake), version="10.3.0.30"))
    assert built.record.machine.version == "10.3.0.30"


@pytest.mark.parametrize("version", VERSIONS)
def test_timings_go_in_and_come_out(version: str, onnx: Path) -> None:
    built, told = made(Fake(version), onnx, timings=b"own")
    assert (told["timings"], built.timings, built.notes) == ("own", b"own+measured", ())


@pytest.mark.parametrize("version", VERSIONS)
def test_timings_of_another_device_are_left_out(version: str, onnx: Path) -> None:
    built, told = made(Fake(version), onnx, timings=b"another device's")
    assert (told["timings"], built.timings) == ("", b"+measured")
    assert built.notes == ("the timings at hand are of another device or version",)


def test_tensorrt_rtx_is_told_no_timings(onnx: Path) -> None:
    built, told = made(Fake(RTX), onnx, timings=b"own")
    assert "timings" not in told
    assert (built.timings, built.notes) == (b"", ("TensorRT-RTX keeps no timings",))


def test_the_parsers_errors_name_the_node_the_operator_and_the_reason(onnx: Path) -> None:
    fake = Fake("10.16.1.11")
    fake.refuses = [ParserError(3, "dqb", "DequantizeLinear", "Invalid Node\n  must have type Int8")]
    fake.refuses.append(ParserError(-1, "", "", "Failed to parse"))
    with pytest.raises(ModelRefused) as refused:
        made(fake, onnx)
    assert "node 'dqb' (DequantizeLinear, number 3): INVALID_NODE: Invalid Node must have type Int8" in str(
        refused.value
    )
    assert "the file: INVALID_NODE: Failed to parse" in str(refused.value)
    assert (refused.value.code, refused.value.retryable) == ("bad_bundle", False)


def test_a_build_that_gives_nothing_is_an_error_with_the_builders_words(onnx: Path) -> None:
    fake = Fake("11.1.0.23")
    fake.builds = False
    with pytest.raises(BuildFailed, match=r"Error Code 2: OutOfMemory \(no tactic fits\)"):
        made(fake, onnx)


def test_a_profile_for_other_inputs_is_refused(onnx: Path) -> None:
    fake = Fake("11.1.0.23")
    fake.inputs = {"picture": (-1, 3, 8, 8)}
    with pytest.raises(OptionRefused, match=r"names \['image'\], and the model's inputs are \['picture'\]"):
        made(fake, onnx)


def test_fixed_shapes_need_no_profile(onnx: Path) -> None:
    fake = Fake("11.1.0.23")
    fake.inputs = {"image": (1, 3, 8, 8)}
    _, told = made(fake, onnx, BuildOptions("int8", (Shapes("image", (1, 3, 8, 8), (1, 3, 8, 8), (1, 3, 8, 8)),)))
    assert "profile" not in told


@pytest.mark.parametrize(("kind", "says"), [("tensorrt", "pip install tensorrt"), ("tensorrt-rtx", "bindings==1.7.1")])
def test_a_runtime_that_is_not_there_says_how_to_get_it(kind: Kind, says: str) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    with pytest.raises(NotInstalled, match=says):
        load(kind, import_module=missing)
    assert load(kind, import_module=lambda name: Fake("10.3.0")).version == "10.3.0"


def test_options_have_the_same_digest_in_every_process_and_another_for_another_engine() -> None:
    assert INT8.digest == BuildOptions("int8", PROFILE).digest
    assert INT8.digest != BuildOptions("int8", PROFILE, weight_stripped=True).digest
