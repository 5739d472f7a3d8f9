"""Providers: what is asked for runs the model, or the bundle is refused, or it is allowed and told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import onnxruntime as ort
import pytest

from contracts.boards import BOARDS
from contracts.errors import FoothillError
from contracts.manifest import FILE, Artifact, Manifest
from runtime.serving.engines import providers
from runtime.serving.engines.providers import CPU, CUDA, OPENVINO, TENSORRT, Choice, Placement, Plan, Wish
from runtime.serving.models.golden import open_tested
from runtime.serving.models.hosting import ModelHost
from runtime.serving.models.loaded import LoadedModel, pick_artifact
from tests.runtime.serving.bundle_factory import MODEL_FILE, TARGET, change_manifest, make_classifier, make_echo
from tests.runtime.serving.conftest import Serve

INSTALLED = ort.get_available_providers()


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    digest = make_classifier(tmp_path)
    loaded = LoadedModel.open(tmp_path, digest, target=TARGET, threads=1)
    loaded.close()
    return loaded.manifest


def options_of(manifest: Manifest, choice: Choice, target: str = "cpu-x86", **more: Any) -> dict[str, Any]:
    precision = more.pop("precision", "fp32")
    artifact = msgspec.structs.replace(manifest.artifacts[0], precision=precision)
    return dict(providers.plan(Wish(choice), target, manifest, artifact, threads=2, **more).chain)


@pytest.mark.parametrize(
    ("choice", "target", "asked"),
    [
        ("auto", "cpu-x86", CPU),
        ("auto", "cpu-arm", CPU),
        ("auto", "jetson-orin-nano", CUDA),
        ("auto", "rtx-sm89", CUDA),
        ("cpu", "rtx-sm89", CPU),
        ("cuda", "cpu-x86", CUDA),
        ("tensorrt", "jetson-thor", TENSORRT),
        ("openvino", "cpu-x86", OPENVINO),
    ],
)
def test_the_provider_is_that_of_the_choice_and_else_of_the_target(choice: Choice, target: str, asked: str) -> None:
    assert providers.provider_for(target, choice) == asked


def test_every_target_has_a_provider_and_unknown_ones_are_refused() -> None:
    assert {providers.provider_for(target) for target in BOARDS} == {CPU, CUDA}
    with pytest.raises(FoothillError, match="Target 'toaster' is unknown"):
        providers.provider_for("toaster")


def test_the_cpu_stands_behind_every_provider(manifest: Manifest) -> None:
    assert [*options_of(manifest, "cpu")] == [CPU]
    assert [*options_of(manifest, "cuda")] == [CUDA, CPU]
    assert [*options_of(manifest, "tensorrt")] == [TENSORRT, CUDA, CPU]
    assert [*options_of(manifest, "openvino")] == [OPENVINO, CPU]


def test_tensorrt_is_told_the_shapes_of_the_bundle_the_precision_of_the_artifact_and_its_cache(
    manifest: Manifest,
) -> None:
    told = options_of(manifest, "tensorrt", precision="int8", cache=Path("/cache/of-it"))[TENSORRT]
    assert told["trt_profile_min_shapes"] == "image:1x1x8x8"
    assert told["trt_profile_opt_shapes"] == told["trt_profile_max_shapes"] == "image:8x1x8x8"
    assert (told["trt_fp16_enable"], told["trt_int8_enable"]) == ("True", "True")
    assert told["trt_engine_cache_path"] == told["trt_timing_cache_path"] == "/cache/of-it"
    plain = options_of(manifest, "tensorrt")[TENSORRT]
    assert (plain["trt_fp16_enable"], plain["trt_int8_enable"]) == ("False", "False")
    assert not any("cache" in option for option in plain)


def test_tensorrt_profiles_name_every_input(tmp_path: Path) -> None:
    loaded = LoadedModel.open(tmp_path, make_echo(tmp_path, ("FP32", "INT8")), target=TARGET, threads=1)
    loaded.close()
    told = options_of(loaded.manifest, "tensorrt")[TENSORRT]
    assert (
        told["trt_profile_max_shapes"] == f"x_FP32:{loaded.manifest.max_batch}x2,x_INT8:{loaded.manifest.max_batch}x2"
    )


def test_the_tensorrt_provider_gets_the_artifact_that_engines_are_built_from(manifest: Manifest) -> None:
    fp32 = msgspec.structs.replace(manifest.artifacts[0], targets=("rtx-sm89",))
    int8 = Artifact("trt.s8.onnx", "int8", "tensorrt", ("rtx-sm89",))
    both = msgspec.structs.replace(manifest, artifacts=(fp32, int8))
    assert pick_artifact(both, "rtx-sm89", Wish("tensorrt")) == int8
    assert pick_artifact(both, "rtx-sm89", Wish("cuda")) == pick_artifact(both, "rtx-sm89") == fp32
    assert pick_artifact(manifest, "cpu-x86", Wish("tensorrt")) == manifest.artifacts[0]


STRICT, LENIENT = (Plan(((CUDA, {}), (CPU, {})), fallback) for fallback in (False, True))


def test_a_provider_that_is_not_installed_is_an_error_that_says_what_to_install() -> None:
    with pytest.raises(FoothillError, match=r"m\.onnx was to run on CUDA.*offers CPU.*Install onnxruntime-gpu"):
        providers.offered(STRICT, [CPU], "m.onnx")
    assert providers.offered(LENIENT, [CPU], "m.onnx") == ((CPU, {}),)


def test_a_provider_that_does_not_start_is_an_error() -> None:
    with pytest.raises(FoothillError, match=r"could not start here: CPUExecutionProvider would run it"):
        providers.check_started(STRICT, [CPU], "m.onnx")
    providers.check_started(STRICT, [CUDA, CPU], "m.onnx")
    providers.check_started(LENIENT, [CPU], "m.onnx")


def placed(*nodes: tuple[str, str, int]) -> Placement:
    return Placement.of([(provider, operator) for provider, operator, count in nodes for _ in range(count)])


@pytest.mark.parametrize(
    ("placement", "computes", "strays"),
    [
        (placed((CUDA, "Conv", 50), (CPU, "Shape", 4)), CUDA, 0),
        (placed((CUDA, "Conv", 5), (CUDA, "Relu", 50), (CPU, "Conv", 45)), CPU, 45),
        (placed((CUDA, "Conv", 49), (CPU, "Conv", 1)), CUDA, 1),
        (placed((CPU, "Conv", 3)), CPU, 3),
        (placed((CUDA, "Gather", 1), (CUDA, "Add", 1), (CPU, "Shape", 1)), CUDA, 0),
        (placed((CUDA, "Add", 1), (CPU, "Gather", 5)), CPU, 5),
        (Placement(), None, 0),
    ],
)
def test_what_multiplies_matrices_must_run_where_it_was_to_run(
    placement: Placement, computes: str | None, strays: int
) -> None:
    assert (placement.computes, placement.strays_from(CUDA)) == (computes, strays)
    providers.check_placement(LENIENT, placement, "m.onnx")
    if strays:
        with pytest.raises(FoothillError, match=f"leaves {strays} of its operators to others: .*Execution"):
            providers.check_placement(STRICT, placement, "m.onnx")
    else:
        providers.check_placement(STRICT, placement, "m.onnx")


def test_a_placement_is_told_with_the_largest_part_first() -> None:
    assert placed((CPU, "Shape", 1), (CUDA, "Conv", 2)).told == f"{CUDA} 2, {CPU} 1"
    assert Placement().told == "unknown"


def test_a_real_session_tells_who_runs_what(tmp_path: Path) -> None:
    loaded = LoadedModel.open(tmp_path, make_classifier(tmp_path), target=TARGET, threads=1)
    assert (loaded.asked, loaded.engine.provider, loaded.fell_back) == (CPU, CPU, False)
    if hasattr(ort.InferenceSession, "get_provider_graph_assignment_info"):
        assert loaded.placement.heavy == {CPU: 1}
    loaded.close()


@pytest.mark.skipif(CUDA in INSTALLED, reason="this ONNX Runtime has CUDA")
@pytest.mark.parametrize("choice", ["cuda", "tensorrt"])
def test_another_provider_takes_over_only_where_that_is_allowed_and_is_told(tmp_path: Path, choice: Choice) -> None:
    digest = make_classifier(tmp_path)
    with pytest.raises(FoothillError, match="provider_fallback") as refused:
        open_tested(tmp_path, digest, target=TARGET, threads=1, wish=Wish(choice))
    assert refused.value.code == "bad_bundle"
    loaded = open_tested(tmp_path, digest, target=TARGET, threads=1, wish=Wish(choice, fallback=True))
    assert (loaded.engine.provider, loaded.fell_back) == (CPU, True)
    loaded.close()


@pytest.mark.skipif(TENSORRT in INSTALLED, reason="this ONNX Runtime has TensorRT")
def test_where_tensorrt_is_replaced_its_artifact_is_too(tmp_path: Path) -> None:
    make_classifier(tmp_path)
    manifest = msgspec.json.decode((tmp_path / FILE).read_bytes(), type=Manifest)
    (tmp_path / "trt.s8.onnx").write_bytes((tmp_path / MODEL_FILE).read_bytes())
    golden = msgspec.structs.replace(
        manifest.golden, outputs={**manifest.golden.outputs, "trt.s8.onnx": manifest.golden.outputs[MODEL_FILE]}
    )
    digest = change_manifest(
        tmp_path,
        files={**manifest.files, "trt.s8.onnx": manifest.files[MODEL_FILE]},
        artifacts=(Artifact("trt.s8.onnx", "int8", "tensorrt", (TARGET,)), *manifest.artifacts),
        golden=golden,
    )
    loaded = open_tested(tmp_path, digest, target=TARGET, threads=1, wish=Wish("tensorrt", fallback=True))
    assert (loaded.artifact.file, loaded.asked, loaded.engine.provider) == (MODEL_FILE, TENSORRT, CPU)
    loaded.close()


@pytest.mark.openvino
def test_openvino_answers_the_golden_inputs_and_keeps_what_it_compiles(tmp_path: Path) -> None:
    digest = make_classifier(tmp_path / "bundle")
    cache = tmp_path / "cache"
    for _ in range(2):
        loaded = open_tested(tmp_path / "bundle", digest, target=TARGET, threads=1, wish=Wish("openvino", cache=cache))
        assert (loaded.engine.provider, loaded.fell_back) == (OPENVINO, False)
        loaded.close()
    model = loaded.manifest.files[MODEL_FILE].sha256.replace(":", "-")
    assert [*(cache / model).iterdir()]
    loaded = open_tested(tmp_path / "bundle", digest, target=TARGET, threads=1, wish=Wish("openvino"))
    outputs = loaded.run({"image": np.zeros((3, 1, 8, 8), np.float32)})
    assert outputs["logits"].shape == (3, 10)
    loaded.close()


@pytest.mark.skipif(CUDA in INSTALLED, reason="this ONNX Runtime has CUDA")
async def test_what_runs_a_model_is_told_wherever_the_model_is(host: ModelHost, serve: Serve, tmp_path: Path) -> None:
    digest = make_classifier(tmp_path)
    wish = Wish("cuda", fallback=True)
    await host.activate("digits", LoadedModel.open(tmp_path, digest, target=TARGET, threads=1, wish=wish))
    url = await serve()
    async with aiohttp.ClientSession(url) as session:
        async with session.get("/v2/models/digits/config") as answer:
            parameters = (await answer.json())["parameters"]
        async with session.get("/healthz") as answer:
            health = await answer.json()
        async with session.get("/metrics") as answer:
            metrics = await answer.text()
        async with session.post("/v2/repository/index") as answer:
            (line,) = await answer.json()
    assert parameters["provider"] == {"string_value": CPU}
    assert CPU in parameters["placement"]["string_value"] or parameters["placement"]["string_value"] == "unknown"
    assert health["models"]["digits"]["provider"] == CPU
    assert f'foothill_model_provider{{model="digits",provider="{CPU}"}} 1.0' in metrics
    assert (line["state"], line["reason"]) == ("READY", f"run by {CPU}, not by {CUDA} as asked")
