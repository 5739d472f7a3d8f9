from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import FoothillError
from contracts.manifest import (
    MAX_MANIFEST_BYTES,
    Artifact,
    ConfidenceRule,
    Detector,
    File,
    Golden,
    Isotonic,
    Manifest,
    Postprocess,
    Preprocess,
    TensorSpec,
    check,
    decode,
    digest,
    digest_of,
    encode,
    is_digest,
    parse_reference,
)
from contracts.strata import stratum_of

DIGEST = "sha256:" + "a" * 64
CLOUD = "sha256:" + "c" * 64
RULE = ConfidenceRule(
    temperature=1.5,
    threshold=0.8,
    epsilon=0.02,
    delta=0.05,
    n=1000,
    feasible=True,
    stratum=stratum_of(DIGEST, CLOUD, "classification"),
    cloud_digest=CLOUD,
)
GOOD = Manifest(
    name="digits-edge",
    version="1.2",
    model="digits",
    task="classification",
    tier="edge",
    files={name: File(DIGEST, 3) for name in ("cpu.onnx", "golden/in.npy", "golden/cpu.onnx/out.npy")},
    artifacts=(Artifact("cpu.onnx", "int8", "onnxruntime", ("cpu-x86",), RULE),),
    inputs=(TensorSpec("in", "FP32", (-1, 1, 8, 8)),),
    outputs=(TensorSpec("out", "FP32", (-1, 10)),),
    postprocess=Postprocess("out", "logits"),
    golden=Golden({"in": "golden/in.npy"}, {"cpu.onnx": {"out": "golden/cpu.onnx/out.npy"}}, 1e-4, 1e-4),
    preprocess=Preprocess(8, 8, "grey", 1 / 255, (0.5,), (0.5,)),
    labels=tuple("0123456789"),
)


def with_file(path: str, file: File | None = None) -> dict[str, Any]:
    return {"files": GOOD.files | {path: file or File(DIGEST, 3)}}


def with_rule(**changes: Any) -> dict[str, Any]:
    rule = msgspec.structs.replace(RULE, **changes)
    return {"artifacts": (msgspec.structs.replace(GOOD.artifacts[0], confidence=rule),)}


def with_isotonic(scores: tuple[float, ...], probabilities: tuple[float, ...]) -> dict[str, Any]:
    return with_rule(isotonic=Isotonic(scores, probabilities))


def with_preprocess(**changes: Any) -> dict[str, Any]:
    assert GOOD.preprocess is not None
    return {"preprocess": msgspec.structs.replace(GOOD.preprocess, **changes)}


def test_a_manifest_survives_its_own_bytes() -> None:
    assert decode(encode(GOOD)) == GOOD
    assert digest(GOOD) == digest_of(encode(GOOD))
    assert GOOD.reference == "digits-edge@1.2"


def test_the_digest_does_not_depend_on_the_order_of_names() -> None:
    turned = msgspec.structs.replace(GOOD, files=dict(reversed(GOOD.files.items())))
    assert digest(turned) == digest(GOOD)
    assert digest(msgspec.structs.replace(GOOD, version="1.3")) != digest(GOOD)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a//b",
        "a/",
        ".hidden",
        "a/.hidden",
        "a\\b",
        "a b",
        "a\nb",
        "C:x",
        "a/b/c/d/e",
        "é",
        "x" * 129,
    ],
)
def test_paths_that_could_leave_the_directory_are_refused(path: str) -> None:
    with pytest.raises(FoothillError, match="no plain relative path"):
        check(msgspec.structs.replace(GOOD, **with_file(path)))


@given(st.text(alphabet="ab./\\ \0-_", max_size=12))
def test_every_accepted_path_stays_inside(path: str) -> None:
    try:
        check(msgspec.structs.replace(GOOD, **with_file(path)))
    except FoothillError:
        return
    parts = path.split("/")
    assert not path.startswith("/")
    assert all(part not in ("", ".", "..") and "\0" not in part and "\\" not in part for part in parts)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"schema": 2}, "schema 2"),
        ({"name": "Digits"}, "name 'Digits'"),
        ({"model": "a/b"}, "model 'a/b'"),
        ({"version": "one"}, "version 'one'"),
        ({"version": "1.2.3.4"}, "version '1.2.3.4'"),
        ({"parents": ("sha256:x",)}, "parents"),
        ({"max_batch": 0}, "max_batch 0"),
        ({"max_batch": 5000}, "max_batch 5000"),
        ({"files": {}}, "0 files"),
        ({"files": {f"f{number}": File(DIGEST, 1) for number in range(257)}}, "257 files"),
        (with_file("x", File("sha256:" + "A" * 64, 3)), "file x"),
        (with_file("x", File(DIGEST, -1)), "file x"),
        (with_file("manifest.json"), "names of the bundle itself"),
        (with_file("measurements.json"), "names of the bundle itself"),
        (with_file("cpu.onnx/weights"), "lies under another file, cpu.onnx"),
        (with_file("golden"), "lies under another file, golden"),
        ({"artifacts": ()}, "at least one artifact"),
        ({"inputs": ()}, "at least one artifact"),
        ({"outputs": ()}, "at least one artifact"),
        ({"artifacts": (Artifact("no.onnx", "fp32", "onnxruntime", ("cpu-x86",)),)}, "not among its files"),
        ({"artifacts": (Artifact("cpu.onnx", "fp32", "onnxruntime", ("vax",)),)}, "board table"),
        ({"artifacts": (Artifact("cpu.onnx", "fp32", "onnxruntime", ()),)}, "board table"),
        ({"postprocess": Postprocess("other", "logits")}, "'other'"),
        (with_rule(temperature=0.0), "temperature"),
        (with_rule(threshold=-0.1), "threshold"),
        (with_rule(threshold=2.1), "threshold"),
        (with_rule(threshold=float("nan")), "threshold"),
        (with_rule(temperature=float("nan")), "temperature"),
        (with_rule(epsilon=1.0), "epsilon"),
        (with_rule(delta=0.0), "delta"),
        (with_rule(n=-1), "n >= 0"),
        (with_rule(cloud_digest="x"), "cloud_digest"),
        (with_rule(stratum="0" * 32), "stratum"),
        (with_isotonic((0.0, 1.0), (0.5,)), "as many probabilities"),
        (with_isotonic((), ()), "2 to 64 scores"),
        (
            with_isotonic(tuple(knot / 64 for knot in range(65)), tuple(knot / 64 for knot in range(65))),
            "2 to 64 scores",
        ),
        (with_isotonic((0.1, 1.0), (0.0, 1.0)), "scores from 0 to 1"),
        (with_isotonic((0.0, 0.9), (0.0, 1.0)), "scores from 0 to 1"),
        (with_isotonic((0.0, 0.5, 0.5, 1.0), (0.1, 0.2, 0.3, 0.4)), "rise strictly"),
        (with_isotonic((0.0, 0.5, 1.0), (0.1, 0.1, 0.4)), "rise strictly"),
        (with_isotonic((0.0, 0.5, 1.0), (0.4, 0.2, 0.1)), "rise strictly"),
        (with_isotonic((0.0, 1.0), (-0.1, 1.0)), "within 0..1"),
        (with_isotonic((0.0, 1.0), (0.0, 1.1)), "within 0..1"),
        (with_isotonic((0.0, float("nan"), 1.0), (0.0, 0.5, 1.0)), "rise strictly"),
        (with_isotonic((0.0, 0.5, 1.0), (0.0, float("nan"), 1.0)), "rise strictly"),
        (with_isotonic((0.0, 1.0), (0.0, float("inf"))), "within 0..1"),
        ({"postprocess": Postprocess("out", "tensors")}, "a detector's head, not tensors"),
        ({"postprocess": Postprocess("out", "vector")}, "a detector's head, not vector"),
        ({"golden": Golden({"in": "gone.npy"}, GOOD.golden.outputs, 0, 0)}, "gone.npy"),
        ({"golden": Golden({}, GOOD.golden.outputs, 0, 0)}, "golden inputs"),
        ({"golden": Golden(GOOD.golden.inputs, {}, 0, 0)}, "no golden outputs"),
        (with_preprocess(colour="rgb"), "3 means"),
        (with_preprocess(std=(0.0,)), "positive standard deviations"),
        (with_preprocess(width=0), "pixels"),
        (with_preprocess(width=-8, height=-8), "pixels"),
        (with_preprocess(width=10_000, height=10_000), "pixels"),
    ],
)
def test_a_broken_rule_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(FoothillError) as refused:
        check(msgspec.structs.replace(GOOD, **changes))
    assert refused.value.code == "bad_bundle"
    assert named in refused.value.message


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1],
        lambda data: data.replace(b'"tier"', b'"teir"'),
        lambda data: data.replace(b'"edge"', b'"fog"'),
        lambda data: data.replace(b'"schema":1', b'"schema":"1"'),
        lambda data: b"[]",
        lambda data: b"",
        lambda data: b"\xff" + data,
        lambda data: b" " * MAX_MANIFEST_BYTES + data,
    ],
)
def test_bytes_that_are_no_manifest_are_refused(spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(FoothillError) as refused:
        decode(spoil(encode(GOOD)))
    assert refused.value.code == "bad_bundle"


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_and_nothing_else(data: bytes) -> None:
    with pytest.raises(FoothillError):
        decode(data)


def test_a_bundle_without_pictures_or_rules_is_fine() -> None:
    artifact = msgspec.structs.replace(GOOD.artifacts[0], confidence=None)
    check(msgspec.structs.replace(GOOD, preprocess=None, labels=(), artifacts=(artifact,)))


def test_a_rule_with_a_map_is_fine_and_one_without_has_the_bytes_of_before_there_were_maps() -> None:
    mapped = msgspec.structs.replace(GOOD, **with_isotonic((0.0, 0.4, 1.0), (0.2, 0.7, 1.0)))
    assert decode(encode(mapped)) == mapped
    assert b'"isotonic":{"probabilities":[0.2,0.7,1.0],"scores":[0.0,0.4,1.0]}' in encode(mapped)
    assert b"isotonic" not in encode(GOOD)


def test_a_detector_without_a_head_gives_its_tensors() -> None:
    artifact = msgspec.structs.replace(GOOD.artifacts[0], confidence=None)
    outputs = (*GOOD.outputs, TensorSpec("boxes", "FP32", (-1, 100, 4)))
    bare = msgspec.structs.replace(
        GOOD, task="detection", artifacts=(artifact,), outputs=outputs, postprocess=Postprocess("boxes", "tensors")
    )
    check(bare)
    assert not bare.postprocess.scores_classes
    assert GOOD.postprocess.scores_classes


def detector_with(temperature: float) -> Manifest:
    rule = msgspec.structs.replace(
        RULE,
        temperature=temperature,
        stratum=stratum_of(DIGEST, CLOUD, "detection"),
        isotonic=Isotonic((0.0, 1.0), (0.1, 0.9)),
    )
    artifact = msgspec.structs.replace(GOOD.artifacts[0], confidence=rule)
    outputs = (TensorSpec("out", "FP32", (-1, 100, 14)),)
    head = Postprocess("out", "yolo", Detector())
    return msgspec.structs.replace(GOOD, task="detection", artifacts=(artifact,), outputs=outputs, postprocess=head)


def test_a_detector_with_a_head_may_have_a_rule_without_a_temperature() -> None:
    assert decode(encode(detector_with(1.0))) == detector_with(1.0)
    with pytest.raises(FoothillError, match="no temperature: it must be 1"):
        check(detector_with(1.5))


def test_what_manifests_say_without_a_detector_has_the_bytes_that_it_had() -> None:
    assert digest(GOOD) == "sha256:c760357e0516d7b72f7e221512f903759ee6e01895d9a34e894c02c8a679bf3c"


@pytest.mark.parametrize("text", ["sha256:" + "0" * 64, digest_of(b"")])
def test_digests_are_known(text: str) -> None:
    assert is_digest(text)


@pytest.mark.parametrize("text", ["", "0" * 64, "sha256:" + "0" * 63, "sha256:" + "G" * 64, "sha512:" + "0" * 64])
def test_other_text_is_no_digest(text: str) -> None:
    assert not is_digest(text)
    assert not is_digest(f"{text}\n")


def test_references_name_a_bundle_and_its_version() -> None:
    assert parse_reference("detector@1.4.0") == ("detector", "1.4.0")


@pytest.mark.parametrize("text", ["detector", "@1", "detector@", "detector@v1", "a@1@2", "Detector@1", "a/b@1"])
def test_other_text_is_no_reference(text: str) -> None:
    with pytest.raises(FoothillError, match="NAME@VERSION"):
        parse_reference(text)
