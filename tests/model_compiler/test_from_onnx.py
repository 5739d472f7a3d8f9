"""From an ONNX file, and perhaps a folder of pictures: what is taken for granted, asked for, refused, and missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import msgspec
import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from contracts.manifest import PostprocessKind, Preprocess
from model_compiler.cli import app
from model_compiler.data.samples import first
from model_compiler.errors import CompileError
from model_compiler.from_onnx import OnnxRequest, Pictures, missing, onnx_plan
from model_compiler.pack import read, read_measurements
from model_compiler.plan import Plan
from tests.model_compiler.quantizing.chains import Array, convolutions, model, node, normal
from tests.model_compiler.small import RIGHT, linear

CLASSES = 5


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """(n, 3, 8, 8) to (n, 5)."""
    path: Path = tmp_path_factory.mktemp("classifier") / "model.onnx"
    return convolutions(path, layers=2, answer_bias=normal(CLASSES, seed=1))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 of them, in folders whose names are no labels here."""
    return draw(tmp_path_factory.mktemp("photographs"), 60)


def draw(folder: Path, count: int) -> Path:
    for number in range(count):
        path = folder / f"day-{number % 2}" / f"{number:03}.png"
        path.parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(path), np.random.default_rng(number).integers(0, 255, (10, 12, 3), np.uint8))
    return folder


def request(path: Path, targets: Sequence[str] = ("cpu-x86",), calibration: Path | None = None) -> OnnxRequest:
    return OnnxRequest(path, "probe", "1.0.0", tuple(targets), calibration=calibration)


def taking(path: Path, shape: Sequence[int | str], dtype: int = onnx.TensorProto.FLOAT) -> Path:
    """A model that takes `shape` and gives it back."""
    ends = [onnx.helper.make_tensor_value_info(name, dtype, list(shape)) for name in ("image", "out")]
    graph = onnx.helper.make_graph([node("Identity", ["image"], "out")], "main", ends[:1], ends[1:])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    path.write_bytes(made.SerializeToString())
    return path


@pytest.mark.integration
def test_a_file_and_a_folder_of_pictures_become_an_int8_bundle(
    classifier: Path, photographs: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("ant\nbee\ncow\ndog\nelk\n")
    options = {
        "--onnx": classifier, "--calibration": photographs, "--name": "probe", "--version": "1.0.0", "--target":
        "cpu-x86", "--mean": "0.4,0.5,0.6", "--std": "0.2", "--max-drop": "50", "--labels": labels, "--out": tmp_path,
    }  # fmt: skip
    result = CliRunner().invoke(app, [str(each) for pair in options.items() for each in pair])
    assert result.exit_code == 0, result.output
    packed = read(tmp_path / "probe@1.0.0")
    manifest = packed.manifest
    assert [each.file for each in manifest.artifacts] == ["cpu.u8s8.onnx", "fp32.onnx"]
    assert manifest.preprocess == Preprocess(8, 8, "rgb", 1 / 255, (0.4, 0.5, 0.6), (0.2, 0.2, 0.2))
    assert (manifest.model, manifest.task, manifest.labels) == (
        "probe",
        "classification",
        tuple(labels.read_text().split()),
    )
    measured = read_measurements(packed).artifacts
    assert measured["fp32.onnx"].accuracy == 1.0
    assert {each.samples for each in measured.values()} == {12}
    assert (packed.directory.with_name("probe@1.0.0.report") / "report.html").is_file()


def test_without_pictures_there_is_no_int8_and_it_is_said_what_would_bring_it(classifier: Path, tmp_path: Path) -> None:
    plan = onnx_plan(request(classifier), tmp_path)
    assert {each.precision for each in plan.artifacts} == {"fp32", "fp16"}
    assert first(plan.data.fit, 99).shape == (16, 3, 8, 8)
    assert not any(len(part) for part in (plan.data.train, plan.data.ranges, plan.data.threshold, plan.data.test))
    assert plan.how == "not measured: there are no pictures"
    told = missing(request(classifier), plan)
    assert [next(word for word in ("--calibration", "--mean", "--labels") if word in each) for each in told] == [
        "--calibration", "--mean", "--labels",
    ]  # fmt: skip


def test_nothing_is_missing_where_all_was_told(classifier: Path, photographs: Path, tmp_path: Path) -> None:
    whole = msgspec.structs.replace(
        request(classifier, calibration=photographs), pictures=Pictures(mean=(0.5,)), labels=("a", "b", "c", "d", "e")
    )
    assert missing(whole, onnx_plan(whole, tmp_path)) == ()


def test_every_picture_has_one_use_and_what_is_left_measures(
    classifier: Path, photographs: Path, tmp_path: Path
) -> None:
    data = onnx_plan(request(classifier, calibration=photographs), tmp_path).data
    parts = (data.ranges, data.validation, data.fit, data.test)
    assert [len(part) for part in parts] == [21, 21, 6, 12]
    assert len({row.tobytes() for part in parts for row in first(part, 99)}) == 60
    assert len(data.train) == len(data.threshold) == 0
    assert all((part.labels == -1).all() for part in parts)


def test_of_large_pictures_fewer_calibrate(photographs: Path, tmp_path: Path) -> None:
    large = taking(tmp_path / "large.onnx", ["n", 3, 600, 600])
    data = onnx_plan(request(large, calibration=photographs), tmp_path).data
    assert [len(part) for part in (data.ranges, data.validation, data.fit, data.test)] == [16, 21, 6, 17]


def test_fewer_pictures_than_check_anything_are_refused(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"holds 39 pictures; 40 are the least"):
        onnx_plan(request(classifier, calibration=draw(tmp_path, 39)), tmp_path / "cache")


def ending(path: Path, *kinds: str, shape: Sequence[int | str] = ("n", 4)) -> Path:
    """A model whose output is that of the last of `kinds` behind a MatMul."""
    nodes = [node("MatMul", ["image", "w"], "m")]
    for kind in kinds:
        nodes.append(node(kind, [nodes[-1].output[0]], kind.lower()))
    constants: dict[str, Array] = {"w": normal(4, CLASSES, seed=0)}
    return model(path, nodes, constants, shape)


@pytest.mark.parametrize(
    ("kinds", "shape", "kind", "task"),
    [
        ((), ("n", 4), "logits", "classification"),
        (("Softmax",), ("n", 4), "probabilities", "classification"),
        (("Softmax", "LogSoftmax"), ("n", 4), "logits", "classification"),
        ((), ("n", 7, 4), "tensors", "detection"),
        (("Softmax",), ("n", 7, 4), "tensors", "detection"),
    ],
)
def test_the_answers_are_taken_for_what_they_look_like(
    kinds: tuple[str, ...], shape: Sequence[int | str], kind: str, task: str, tmp_path: Path
) -> None:
    asked = request(ending(tmp_path / "m.onnx", *kinds, shape=shape))
    plan = onnx_plan(asked, tmp_path)
    assert (plan.kind, plan.task, plan.preprocess) == (kind, task, None)
    assert any("--labels" in each for each in missing(asked, plan)) == (task == "classification")


def test_a_single_number_a_row_is_no_class(tmp_path: Path) -> None:
    assert onnx_plan(request(linear(tmp_path / "m.onnx", {"age": RIGHT[:, :1]})), tmp_path).kind == "tensors"


@pytest.mark.parametrize(("kind", "task"), [("vector", "embedding"), ("tensors", "detection")])
def test_who_knows_better_says_what_the_answers_are(
    classifier: Path, kind: PostprocessKind, task: str, tmp_path: Path
) -> None:
    plan = onnx_plan(msgspec.structs.replace(request(classifier), kind=kind), tmp_path)
    assert (plan.kind, plan.task) == (kind, task)


def points(classifier: Path, calibration: Path | None, cache: Path, asked: float | None) -> float:
    told = msgspec.structs.replace(request(classifier, calibration=calibration), max_drop_points=asked)
    return onnx_plan(told, cache).budget.max_drop_points


def test_what_may_be_lost_is_never_less_than_two_pictures_weigh(
    classifier: Path, photographs: Path, tmp_path: Path
) -> None:
    assert points(classifier, photographs, tmp_path, None) == pytest.approx(200 / 21)
    assert points(classifier, photographs, tmp_path, 0.0) == 0.0
    assert points(classifier, draw(tmp_path, 600), tmp_path / "cache", None) == 1.0


@pytest.mark.parametrize(
    ("targets", "pictured", "precisions"),
    [
        (("cpu-x86", "cpu-arm"), True, ["int8", "fp32"]),
        (("cpu-x86",), False, ["fp32", "fp16"]),
        (("cpu-x86", "jetson-orin-nano"), False, ["fp16", "fp32"]),
        (("jetson-orin-nano",), True, ["int8", "fp16", "fp32"]),
    ],
)
def test_nodes_prefer_what_is_fastest_for_them(
    classifier: Path, photographs: Path, tmp_path: Path, targets: tuple[str, ...], pictured: bool, precisions: list[str]
) -> None:
    plan = onnx_plan(request(classifier, targets, photographs if pictured else None), tmp_path)
    assert [each.precision for each in plan.artifacts] == precisions


def planned(path: Path, cache: Path, pictures: Pictures, calibration: Path | None = None) -> Plan:
    return onnx_plan(msgspec.structs.replace(request(path, calibration=calibration), pictures=pictures), cache)


def test_an_open_size_is_what_was_asked_for(tmp_path: Path) -> None:
    opened = taking(tmp_path / "open.onnx", ["n", 1, "h", "w"])
    plan = planned(opened, tmp_path, Pictures(colour="grey", size=(12, 10), mean=(0.5,)))
    assert plan.preprocess == Preprocess(12, 10, "grey", 1 / 255, (0.5,), (1.0,))
    assert first(plan.data.some, 1).shape == (1, 1, 10, 12)


@pytest.mark.parametrize("shape", [("n", 3, "h", 8), ("n", 3, 10, "w")])
def test_one_open_side_is_enough_to_be_asked_for(tmp_path: Path, shape: Sequence[int | str]) -> None:
    found = planned(taking(tmp_path / "m.onnx", shape), tmp_path, Pictures(size=(8, 10))).preprocess
    assert found is not None
    assert (found.width, found.height) == (8, 10)


@pytest.mark.parametrize(
    ("shape", "pictures", "told"),
    [
        (("n", 3, 8, 8), Pictures(colour="grey"), r"takes 3 channels\. Give --colour rgb or bgr\."),
        (("n", 1, 8, 8), Pictures(), r"takes 1 channels\. Give --colour grey\."),
        (("n", 3, "h", "w"), Pictures(), r"takes -1x-1 pixels \(-1: any\)\. Give --size"),
        (("n", 3, 8, 6), Pictures(size=(8, 6)), r"takes 6x8 pixels \(-1: any\)\. Give --size"),
        (("n", 3, "h", "w"), Pictures(size=(0, 8)), r"Give --size"),
        (("n", 3, 8, 8), Pictures(mean=(0.1, 0.2)), r"--mean has 2 values for 3 channels\. Give one, or 3\."),
        (("n", 3, 8, 8), Pictures(std=(0.1, 0.0, 0.1)), r"--std 0\.1, 0\.0, 0\.1: .* scale and std above 0"),
        (("n", 3, 8, 8), Pictures(mean=(float("nan"),)), r"--mean nan, nan, nan: write finite numbers"),
        (("n", 3, 8, 8), Pictures(scale=float("inf")), r"--scale inf: write finite numbers"),
    ],
)
def test_pictures_that_cannot_become_the_input_are_refused_by_the_option(
    tmp_path: Path, shape: Sequence[int | str], pictures: Pictures, told: str
) -> None:
    with pytest.raises(CompileError, match=told):
        planned(taking(tmp_path / "m.onnx", shape), tmp_path, pictures)


@pytest.mark.parametrize("shape", [("n", 16), ("n", "t", 8), ("n", 8, 8, 3), ("n", 4, 8, 8)])
def test_a_model_of_anything_but_pictures_is_compiled_without_them(
    shape: Sequence[int | str], photographs: Path, tmp_path: Path
) -> None:
    path = taking(tmp_path / "m.onnx", shape)
    plan = onnx_plan(request(path), tmp_path)
    assert plan.preprocess is None
    sizes = tuple(1 if isinstance(size, str) else size for size in shape[1:])
    assert first(plan.data.some, 99).shape == (16, *sizes)
    with pytest.raises(CompileError, match=r"and pictures become FP32 \[rows, 3, height, width\]\. Compile it without"):
        onnx_plan(request(path, calibration=photographs), tmp_path)
