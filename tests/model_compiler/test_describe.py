"""The manifest and the bytes of every file: what nodes check an artifact by, under names that are files everywhere."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contracts import manifest as manifests
from contracts.manifest import Artifact, ConfidenceRule, Manifest, Postprocess
from contracts.strata import stratum_of
from model_compiler.data.samples import Arrays, Data, Floats
from model_compiler.describe import describe
from model_compiler.errors import CompileError
from model_compiler.pack import pack
from model_compiler.plan import ArtifactPlan, Plan
from model_compiler.replay import Ends, all_outputs_of
from tests.model_compiler.quantizing.chains import Array
from tests.model_compiler.small import NUMBERS, RIGHT, data, linear, plan, rows, unlabelled

EXACT = ArtifactPlan("fp32.onnx", "fp32", ("cpu-x86", "jetson-orin-nano"))
ROUNDED = ArtifactPlan("cpu.u8s8.onnx", "int8", ("cpu-x86",))
CLOUD = "sha256:" + "0" * 64


class Described(msgspec.Struct):
    manifest: Manifest
    contents: dict[str, bytes]
    files: dict[str, Path]

    def array(self, name: str) -> Floats:
        return np.asarray(np.load(io.BytesIO(self.contents[name])))


def rule_of(path: Path) -> ConfidenceRule:
    stratum = stratum_of(manifests.digest_of(path.read_bytes()), CLOUD, "classification")
    return ConfidenceRule(1.5, 0.4, 0.03, 0.05, 99, True, stratum, CLOUD)


def described(
    told: Plan, directory: Path, *artifacts: ArtifactPlan, weights: Mapping[str, Array] | None = None
) -> Described:
    """Of artifacts that are the same model, the int8 one a little off."""
    files = {}
    for each in artifacts or (EXACT,):
        off = 0.0 if each.precision == "fp32" else 0.01
        chosen = {name: weight + off for name, weight in (weights or {"logits": RIGHT}).items()}
        batch = told.ends.batch or "n"
        files[each.file] = linear(directory / each.file, chosen, given=told.ends.input, batch=batch)
    rules = {each.file: rule_of(files[each.file]) for each in artifacts if each.precision == "int8"}
    manifest, contents = describe(told, artifacts or (EXACT,), files, rules)
    return Described(manifest, contents, files)


def test_the_manifest_says_what_the_plan_says_in_the_order_of_preference(tmp_path: Path) -> None:
    told = plan(labels=("a", "b", "c"), max_batch=7, model="numbers")
    found = described(told, tmp_path, ROUNDED, EXACT)
    manifest = found.manifest
    manifests.check(manifest)
    assert (manifest.name, manifest.version, manifest.model, manifest.task) == (
        "largest",
        "1",
        "numbers",
        "classification",
    )
    assert (manifest.labels, manifest.max_batch, manifest.parents) == (("a", "b", "c"), 7, ())
    assert manifest.artifacts == (
        Artifact("cpu.u8s8.onnx", "int8", "onnxruntime", ("cpu-x86",), rule_of(found.files["cpu.u8s8.onnx"])),
        Artifact("fp32.onnx", "fp32", "onnxruntime", ("cpu-x86", "jetson-orin-nano"), None),
    )
    assert manifest.postprocess == Postprocess("logits", "logits")
    assert [(each.name, each.shape) for each in (*manifest.inputs, *manifest.outputs)] == [
        ("numbers", (-1, NUMBERS)), ("logits", (-1, 3)),
    ]  # fmt: skip
    assert all(found.contents[name] == path.read_bytes() for name, path in found.files.items())
    assert found.manifest.files.keys() == found.contents.keys()
    pack(tmp_path / "packed", manifest, found.contents)


def test_nodes_find_the_artifacts_in_the_order_that_was_settled(tmp_path: Path) -> None:
    """Which need not be the plan's: one that breaks its budget comes last."""
    for order in ((EXACT, ROUNDED), (ROUNDED, EXACT)):
        found = described(plan(), tmp_path, *order).manifest.artifacts
        assert [each.file for each in found] == [each.file for each in order]


def test_golden_rows_are_real_inputs_with_each_artifacts_own_answers(tmp_path: Path) -> None:
    found = described(plan(), tmp_path, ROUNDED, EXACT)
    golden = found.manifest.golden
    inputs = found.array(golden.inputs["numbers"])
    fit = {row.tobytes() for row in plan().data.fit.batch(np.arange(64))}
    assert len(inputs) == 16
    assert all(row.tobytes() in fit for row in inputs)
    for name, path in found.files.items():
        answers = all_outputs_of(path, inputs, plan().ends)["logits"]
        assert found.array(golden.outputs[name]["logits"]) == pytest.approx(answers, abs=1e-5)
    assert golden.min_agreement == 1.0


def test_every_artifact_is_sure_of_the_golden_rows_beyond_the_tolerance(tmp_path: Path) -> None:
    found = described(plan(), tmp_path, ROUNDED, EXACT)
    golden = found.manifest.golden
    outputs = [found.array(golden.outputs[name]["logits"]) for name in found.files]
    assert np.array_equal(outputs[0].argmax(axis=1), outputs[1].argmax(axis=1))
    assert len(set(outputs[0].argmax(axis=1).tolist())) == 3
    for values in outputs:
        margin = np.diff(np.sort(values, axis=1)[:, -2:], axis=1)[:, 0]
        assert (margin > 2 * (golden.atol + golden.rtol * values.max(axis=1))).all()


def test_rounding_is_allowed_more_than_float(tmp_path: Path) -> None:
    exact, rounded = described(plan(), tmp_path), described(plan(), tmp_path, ROUNDED, EXACT)
    assert exact.manifest.golden.rtol < rounded.manifest.golden.rtol


def test_a_model_that_runs_a_row_at_a_time_has_one_golden_row(tmp_path: Path) -> None:
    found = described(plan(ends=Ends("numbers", ("logits",), 1)), tmp_path)
    assert found.manifest.max_batch == 1
    assert found.array(found.manifest.golden.inputs["numbers"]).shape == (1, NUMBERS)


def test_where_no_label_is_judged_the_rows_are_spread_and_no_label_must_agree(tmp_path: Path) -> None:
    """Noise, to which a model may well give all labels alike."""
    nothing = rows(0, 0)
    noise = Data(nothing, nothing, nothing, unlabelled(rows(40, 0)), nothing, nothing)
    found = described(plan(data=noise), tmp_path, weights={"logits": 0 * RIGHT + 1})
    golden = found.manifest.golden
    inputs = found.array(golden.inputs["numbers"])
    assert np.array_equal(inputs, rows(40, 0).inputs[np.linspace(0, 39, 16).astype(int)])
    assert golden.min_agreement == 0.0
    with pytest.raises(CompileError, match=r"golden rows are needed"):
        described(plan(), tmp_path, weights={"logits": 0 * RIGHT + 1})


def test_a_bundle_with_a_cloud_names_it_its_parent(tmp_path: Path) -> None:
    cloud = described(plan(tier="cloud", name="cloud"), tmp_path)
    packed = pack(tmp_path / "cloud", cloud.manifest, cloud.contents)
    assert described(plan(cloud=packed), tmp_path).manifest.parents == (packed.digest,)


def test_large_rows_are_few(tmp_path: Path) -> None:
    """A megabyte each."""
    wide = np.zeros((20, 1 << 18), np.float32)
    wide[:, :NUMBERS] = rows(20, 0).inputs
    large = Arrays(wide, rows(20, 0).labels)
    told = plan(data=Data(*[large] * 6), kind="tensors", task="detection")
    weight = np.zeros((1 << 18, 3), np.float32)
    path = linear(tmp_path / "fp32.onnx", {"logits": weight})
    manifest, contents = describe(told, (EXACT,), {"fp32.onnx": path}, {})
    assert np.load(io.BytesIO(contents[manifest.golden.inputs["numbers"]])).shape == (4, 1 << 18)


NAMES: Any = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1, max_size=90)


@settings(max_examples=40)
@given(st.lists(NAMES, min_size=2, max_size=4, unique=True))
@example(["numbers", "1-_b", "/b"])
def test_tensors_of_any_name_get_files_of_their_own(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    given, *outputs = names
    directory = tmp_path_factory.getbasetemp()
    told = plan(ends=Ends(given, tuple(outputs)), kind="tensors", task="detection", data=data(16, 0))
    found = described(told, directory, weights={name: RIGHT * (number + 1) for number, name in enumerate(outputs)})
    manifests.check(found.manifest)
    answers = all_outputs_of(found.files["fp32.onnx"], found.array(found.manifest.golden.inputs[given]), told.ends)
    for name, path in found.manifest.golden.outputs["fp32.onnx"].items():
        assert found.array(path) == pytest.approx(answers[name], abs=1e-4)
