"""Rules against the cloud bundle: each artifact by its own answers, on samples that are used for nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from contracts.manifest import digest_of
from contracts.strata import stratum_of
from model_compiler.build import Built
from model_compiler.calibration import confidence_of
from model_compiler.certify import certify
from model_compiler.confidence import Certified, Promise
from model_compiler.data.samples import Arrays
from model_compiler.pack import Packed
from model_compiler.pipeline import compile_bundle
from model_compiler.plan import ArtifactPlan, OnnxFile, Plan
from model_compiler.replay import Ends, outputs_of
from tests.model_compiler.quantizing.chains import Array
from tests.model_compiler.small import CLASSES, ENDS, NUMBERS, RIGHT, data, linear, plan, rows, stages_run, work_on

NOISE = np.random.default_rng(0).standard_normal((2, NUMBERS, CLASSES)).astype(np.float32)
GOOD, BAD = (RIGHT + size * noise for size, noise in zip((0.5, 4.0), NOISE, strict=True))
DATA = data(600, train=8)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """Of other names than the plan's, and one row at a time."""
    directory: Path = tmp_path_factory.mktemp("cloud")
    path = linear(directory / "m.onnx", {"scores": RIGHT}, given="x", batch=1)
    whole = plan(name="cloud", tier="cloud", student=OnnxFile(path), ends=Ends("x", ("scores",), 1))
    return compile_bundle(whole, directory / "cloud", report=False)


def built(directory: Path, last: str = "", **weights: Array) -> Built:
    """Artifacts that stand for one model in several precisions."""
    paths = {f"{name}{last}.onnx": weight for name, weight in weights.items()}
    files = {name: linear(directory / name, {"logits": weight}, last=last) for name, weight in paths.items()}
    return Built(files, tuple(ArtifactPlan(file, "fp32", ("cpu-x86",)) for file in files), ())


def told(cloud: Packed, **changes: Any) -> Plan:
    return plan(**{"data": DATA, "cloud": cloud, "promise": Promise(0.1, 0.05), **changes})


def certified(some: Plan, files: Built, directory: Path) -> tuple[dict[str, Certified], list[str], list[str]]:
    work = work_on(some, directory)
    return certify(work, files), stages_run(work), work.warnings


def test_every_artifact_gets_the_rule_of_its_own_answers(cloud: Packed, tmp_path: Path) -> None:
    files = built(tmp_path, good=GOOD, bad=BAD)
    found, _, warnings = certified(told(cloud), files, tmp_path / "stages")
    assert warnings == []
    answers = (DATA.threshold.batch(np.arange(600)) @ RIGHT).argmax(axis=1)
    for name, path in files.files.items():
        rule, kept = found[name].fitted.rule, found[name]
        logits = outputs_of(path, DATA.threshold, ENDS)
        assert kept.confidence == pytest.approx(confidence_of(logits, rule).tolist())
        assert kept.differs == tuple((logits.argmax(axis=1) != answers).tolist())
        assert (rule.n, rule.epsilon, rule.delta, rule.cloud_digest) == (600, 0.1, 0.05, cloud.digest)
        assert rule.stratum == stratum_of(digest_of(path.read_bytes()), cloud.digest, "classification")
        assert ((np.asarray(kept.confidence) >= rule.threshold) & kept.differs).mean() <= 0.1
    good, bad = (found[name].fitted for name in files.files)
    assert good.certification.escalation < bad.certification.escalation
    assert good.rule.stratum != bad.rule.stratum


def test_the_maps_and_the_threshold_are_fitted_on_samples_of_their_own(cloud: Packed, tmp_path: Path) -> None:
    """And by the cloud's answers: the labels of those samples say nothing."""
    files = built(tmp_path, good=GOOD)
    usual = certified(told(cloud), files, tmp_path / "stages")[0]["good.onnx"].fitted
    fewer = msgspec.structs.replace(DATA, threshold=rows(300, 4))
    other = certified(told(cloud, data=fewer), files, tmp_path / "stages")[0]["good.onnx"].fitted
    assert (other.chosen.ways, other.rule.n) == (usual.chosen.ways, 300)
    refitted = msgspec.structs.replace(DATA, fit=rows(300, 50))
    other = certified(told(cloud, data=refitted), files, tmp_path / "stages")[0]["good.onnx"].fitted
    assert other.chosen.ways != usual.chosen.ways
    assert other.rule.n == 600
    wrong = {
        part: Arrays(rows(600, seed).inputs, np.zeros(600, np.int64)) for part, seed in (("fit", 3), ("threshold", 4))
    }
    relabelled = told(cloud, data=msgspec.structs.replace(DATA, **wrong))
    assert certified(relabelled, files, tmp_path / "stages")[0]["good.onnx"].fitted == usual


def test_probabilities_are_certified_as_the_logits_that_they_came_from(cloud: Packed, tmp_path: Path) -> None:
    logits, chances = built(tmp_path, good=GOOD / 4), built(tmp_path, "Softmax", good=GOOD / 4)
    one = certified(told(cloud), logits, tmp_path / "stages")[0]["good.onnx"]
    other = certified(told(cloud, kind="probabilities"), chances, tmp_path / "stages")[0]["goodSoftmax.onnx"]
    assert other.fitted.rule.temperature == pytest.approx(one.fitted.rule.temperature, rel=0.01)
    assert other.confidence == pytest.approx(one.confidence, abs=0.01)


def test_a_promise_that_cannot_be_kept_is_a_warning_by_file(cloud: Packed, tmp_path: Path) -> None:
    strict = told(cloud, promise=Promise(0.0005, 0.01))
    found, _, warnings = certified(strict, built(tmp_path, bad=BAD), tmp_path / "stages")
    assert not found["bad.onnx"].fitted.rule.feasible
    (warning,) = warnings
    assert warning.startswith("bad.onnx: INFEASIBLE: 600 samples do not certify a joint risk of 0.0005")


NOTHING = Arrays(rows(0, 0).inputs, rows(0, 0).labels)


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"kind": "vector", "task": "embedding"}, "answers of the kind vector have no class"),
        ({"data": msgspec.structs.replace(DATA, fit=NOTHING)}, "it needs the parts `fit` and `threshold`"),
        ({"data": msgspec.structs.replace(DATA, threshold=NOTHING)}, "it needs the parts `fit` and `threshold`"),
    ],
)
def test_where_nothing_can_be_certified_there_is_no_rule_and_it_is_said(
    cloud: Packed, tmp_path: Path, changes: dict[str, Any], warning: str
) -> None:
    found, stages, warnings = certified(told(cloud, **changes), built(tmp_path, good=GOOD), tmp_path / "stages")
    assert (found, stages) == ({}, [])
    assert [warning in each for each in warnings] == [True]


def test_without_a_cloud_bundle_nothing_is_to_be_certified(tmp_path: Path) -> None:
    assert certified(plan(data=DATA), built(tmp_path, good=GOOD), tmp_path / "stages") == ({}, [], [])


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({}, False),
        ({"how": "otherwise", "data": msgspec.structs.replace(DATA, test=rows(9, 9), validation=rows(9, 9))}, False),
        ({"promise": Promise(0.2, 0.05)}, True),
        ({"data": msgspec.structs.replace(DATA, fit=rows(599, 3))}, True),
        ({"data": msgspec.structs.replace(DATA, threshold=rows(599, 4))}, True),
    ],
)
def test_rules_are_fitted_again_where_something_they_depend_on_changed(
    cloud: Packed, tmp_path: Path, changes: dict[str, Any], again: bool
) -> None:
    files = built(tmp_path, good=GOOD)
    certified(told(cloud), files, tmp_path / "stages")
    assert ("confidence" in certified(told(cloud, **changes), files, tmp_path / "stages")[1]) == again
