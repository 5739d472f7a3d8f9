"""The digits bundles, compiled with little training: what must hold of them whatever their accuracy."""

from __future__ import annotations

import numpy as np
import pytest

from contracts import manifest as manifests
from contracts.boards import BOARDS
from contracts.manifest import Measurements
from contracts.strata import stratum_of
from model_compiler.calibration import confidence_of
from model_compiler.data.samples import to_samples
from model_compiler.digits import camera, recipe, splits
from model_compiler.digits.recipe import DigitsBundles
from model_compiler.pack import Packed, read, read_measurements
from model_compiler.replay import Ends, outputs_of
from runtime.serving.models.golden import check_golden
from runtime.serving.models.loaded import LoadedModel

pytestmark = pytest.mark.integration

ENDS = Ends("image", ("logits",))


def each(bundles: DigitsBundles) -> tuple[Packed, ...]:
    return bundles.cloud, bundles.edge, bundles.bad


def accuracy(packed: Packed) -> float:
    found = first_measured(packed)[0].accuracy
    assert found is not None
    return found


def first_measured(packed: Packed) -> tuple[manifests.Measured, Measurements]:
    measurements = read_measurements(packed)
    return measurements.artifacts[packed.manifest.artifacts[0].file], measurements


def test_bundles_are_named_and_placed_as_the_recipe_says(bundles: DigitsBundles) -> None:
    references = [recipe.CLOUD, recipe.EDGE, recipe.BAD]
    assert [packed.manifest.reference for packed in each(bundles)] == references
    assert [packed.directory.name for packed in each(bundles)] == references
    assert {packed.manifest.model for packed in each(bundles)} == {"digits"}
    assert [packed.manifest.tier for packed in each(bundles)] == ["cloud", "edge", "edge"]
    assert len({packed.digest for packed in each(bundles)}) == 3


def test_packed_bundles_read_back_whole(bundles: DigitsBundles) -> None:
    for packed in each(bundles):
        assert read(packed.directory) == packed
        assert manifests.decode((packed.directory / manifests.FILE).read_bytes()) == packed.manifest


def test_every_artifact_passes_its_golden_test_where_it_is_served(bundles: DigitsBundles) -> None:
    for packed in each(bundles):
        loaded = LoadedModel.open(packed.directory, packed.digest, target="cpu-x86", threads=1)
        assert loaded.artifact == packed.manifest.artifacts[0]
        check_golden(loaded)
        loaded.close()


def test_edge_nodes_on_cpus_take_the_int8_artifact_and_others_fp32(bundles: DigitsBundles) -> None:
    int8, fp32 = bundles.edge.manifest.artifacts
    assert (int8.file, int8.targets) == ("cpu.u8s8.onnx", ("cpu-x86", "cpu-arm"))
    assert (fp32.file, fp32.targets) == ("fp32.onnx", tuple(BOARDS))


def test_rules_are_fitted_on_each_artifact_against_the_cloud_bundle(bundles: DigitsBundles) -> None:
    threshold = splits.split(splits.load())["threshold"]
    assert all(artifact.confidence is None for artifact in bundles.cloud.manifest.artifacts)
    strata = set()
    for packed in (bundles.edge, bundles.bad):
        assert packed.manifest.parents == (bundles.cloud.digest,)
        for artifact in packed.manifest.artifacts:
            rule = artifact.confidence
            assert rule is not None
            assert rule.feasible
            assert rule.n == len(threshold)
            assert rule.cloud_digest == bundles.cloud.digest
            digest = packed.manifest.files[artifact.file].sha256
            assert rule.stratum == stratum_of(digest, bundles.cloud.digest, "classification")
            strata.add(rule.stratum)
    assert len(strata) == 4


def test_measurements_say_what_was_measured(bundles: DigitsBundles) -> None:
    test = len(splits.split(splits.load())["test"])
    for packed, samples in ((bundles.cloud, 3 * test), (bundles.edge, 3 * test), (bundles.bad, test)):
        for name, measured in read_measurements(packed).artifacts.items():
            assert measured.samples == samples
            assert measured.bytes == packed.manifest.files[name].bytes
            assert measured.latency_ms is not None
            assert measured.latency_ms > 0
    edge, beside = first_measured(bundles.edge)
    assert beside.teacher is not None
    assert beside.teacher.accuracy == first_measured(bundles.cloud)[0].accuracy
    assert beside.teacher.bytes >= 5 * edge.bytes


def test_the_student_is_weaker_than_the_teacher_so_that_escalation_matters(bundles: DigitsBundles) -> None:
    edge = first_measured(bundles.edge)[0]
    assert accuracy(bundles.cloud) >= 0.85
    assert accuracy(bundles.edge) < accuracy(bundles.cloud)
    assert edge.escalation is not None
    assert 0.05 < edge.escalation < 0.6


def field(packed: Packed, cloud: Packed, seed: int) -> tuple[float, float]:
    """Agreement with the cloud on camera frames, and the share kept that differs."""
    frames = camera.test_frames(1000, seed)
    inputs = to_samples(frames.images, frames.labels, recipe.PREPROCESS).inputs
    logits = outputs_of(packed.first_artifact, inputs, ENDS)
    same = logits.argmax(axis=1) == outputs_of(cloud.first_artifact, inputs, ENDS).argmax(axis=1)
    rule = packed.manifest.artifacts[0].confidence
    assert rule is not None
    kept = confidence_of(logits, rule) >= rule.threshold
    return float(same.mean()), float((kept & ~same).mean())


def test_the_first_version_keeps_its_promise_in_the_field(bundles: DigitsBundles) -> None:
    _, disagreement = field(bundles.edge, bundles.cloud, seed=21)
    assert disagreement <= 0.03


def test_the_bad_version_passes_at_home_and_fails_in_the_field(bundles: DigitsBundles) -> None:
    assert accuracy(bundles.bad) >= 0.95
    good, _ = field(bundles.edge, bundles.cloud, seed=22)
    bad, disagreement = field(bundles.bad, bundles.cloud, seed=22)
    assert good - bad >= 0.15
    assert disagreement > 0.1


def test_a_served_picture_becomes_the_very_input_that_was_compiled_for(bundles: DigitsBundles) -> None:
    frames = camera.test_frames(20, seed=2)
    inputs = to_samples(frames.images, frames.labels, recipe.PREPROCESS).inputs
    loaded = LoadedModel.open(bundles.edge.directory, bundles.edge.digest, target="cpu-x86", threads=1)
    assert loaded.preprocessor is not None
    for row, jpeg, png in zip(inputs, frames.jpeg, frames.png, strict=True):
        assert np.array_equal(loaded.preprocessor.tensor(jpeg, "image/jpeg")[0], row)
        assert np.array_equal(loaded.preprocessor.tensor(png, "image/png")[0], row)
    loaded.close()


def test_a_served_confidence_is_the_one_the_threshold_was_fitted_on(bundles: DigitsBundles) -> None:
    frames = camera.test_frames(20, seed=2)
    inputs = to_samples(frames.images, frames.labels, recipe.PREPROCESS).inputs
    loaded = LoadedModel.open(bundles.edge.directory, bundles.edge.digest, target="cpu-x86", threads=1)
    rule = loaded.artifact.confidence
    assert rule is not None
    fitted_on = confidence_of(outputs_of(bundles.edge.first_artifact, inputs, ENDS), rule)
    served = [loaded.read(loaded.run({"image": row[None]})).confidence for row in inputs]
    assert served == pytest.approx(fitted_on.tolist(), rel=1e-9)
    loaded.close()
