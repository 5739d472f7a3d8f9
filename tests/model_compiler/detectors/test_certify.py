"""A detector's rule, from real runs of two detectors that differ on what is neither bright nor dark."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from contracts.manifest import ConfidenceRule, Preprocess
from contracts.predictions import Box
from model_compiler.cli import app
from model_compiler.detectors.cloud import strangers
from model_compiler.detectors.finder import Finder, of_bundle, opened, shown
from model_compiler.errors import CompileError
from model_compiler.pack import Packed, read, read_measurements
from model_compiler.reporting import findings as told
from model_compiler.reporting.report import read_report
from runtime.serving.engines.tensors import Array
from runtime.serving.models.confidence import sure_of
from runtime.serving.models.golden import open_tested
from tests.model_compiler.detectors.graphs import constant_detector
from tests.runtime.serving.bundle_factory import MODEL_FILE, make_classifier, make_detector
from tests.runtime.serving.models.detectors import SIDE, manifest_of, outputs_for

pytestmark = pytest.mark.integration

EDGE_LEVEL, CLOUD_LEVEL = 0.55, 0.62
PICTURES = 300


def scene(number: int) -> tuple[Array, int]:
    """A block somewhere in a dark picture, and how bright it is."""
    rng = np.random.default_rng(number)
    picture = np.full((240, 320, 3), 60, np.uint8)
    left, top, bright = rng.integers(0, 36) * 8, rng.integers(0, 25) * 8, int(rng.integers(120, 250))
    picture[top : top + 40, left : left + 24] = bright
    return picture, bright


def draw(folder: Path, numbers: Sequence[int]) -> Path:
    folder.mkdir()
    for number in numbers:
        assert cv2.imwrite(str(folder / f"{number:04}.png"), scene(number)[0])
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("seen") / "pictures", range(PICTURES))


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("cloud")
    make_detector(directory, name="things-cloud", tier="cloud", level=CLOUD_LEVEL)
    return directory


def compiled(
    out: Path, cloud: Path, pictures: Path, *options: str, model: str = "things", label: str = "block"
) -> Result:
    if not (out / "edge").exists():
        make_detector(out / "edge", level=EDGE_LEVEL)
    (out / "labels.txt").write_text(label)
    onnx, labels = out / "edge" / MODEL_FILE, out / "labels.txt"
    named = ["--onnx", onnx, "--name", "seen", "--version", "1", "--model", model, "--target", "cpu-x86"]
    seen = ["--head", "yolo", "--labels", labels, "--cloud", cloud, "--calibration", pictures, "--out", out]
    return CliRunner().invoke(app, [str(each) for each in (*named, *seen, *options)])


def rule_of(packed: Packed) -> ConfidenceRule:
    (artifact,) = packed.manifest.artifacts
    assert artifact.confidence is not None
    return artifact.confidence


def certified(pictures: Path) -> dict[Path, int]:
    """How bright is what the edge finds in the pictures that certify."""
    found = {}
    for path in sorted(pictures.iterdir()):
        part = int(hashlib.sha256(path.read_bytes()).hexdigest()[:16], 16) / 2**64
        bright = scene(int(path.stem[:4]))[1]
        if part >= 0.4 and bright / 255 > EDGE_LEVEL - 0.0275:  # a score of a quarter
            found[path] = bright
    return found


def test_the_rule_holds_the_promise_on_pictures_that_fitted_nothing(
    tmp_path: Path, cloud: Path, pictures: Path
) -> None:
    result = compiled(tmp_path, cloud, pictures, "--epsilon", "0.05", "--delta", "0.1")
    assert result.exit_code == 0, result.output
    packed = read(tmp_path / "seen@1")
    rule, whole = rule_of(packed), read(cloud)
    assert (rule.epsilon, rule.delta, rule.feasible, rule.temperature) == (0.05, 0.1, True, 1.0)
    assert (rule.cloud_digest, packed.manifest.parents) == (whole.digest, (whole.digest,))
    shows = certified(pictures)
    assert rule.n == len(shows)
    # The cloud's detector answers where its own score is at least a half.
    differs = np.array([bright / 255 < CLOUD_LEVEL for bright in shows.values()])
    assert 0.1 < differs.mean() < 0.5
    loaded = open_tested(packed.directory, packed.digest, target="cpu-x86", threads=1)
    assert loaded.preprocessor is not None
    sure = []
    for path in shows:
        reading = loaded.read(loaded.run({"image": loaded.preprocessor.tensor(path.read_bytes(), "image/png")}))
        assert reading.found is not None
        assert reading.confidence == sure_of(float(reading.found[0].scores[0]), rule)
        sure.append(reading.confidence or 0.0)
    loaded.close()
    kept = np.array(sure) >= rule.threshold
    assert (kept & differs).mean() <= 0.05
    assert not kept.all()
    assert kept[~differs].mean() > 0.8
    measured = read_measurements(packed).artifacts["fp32.onnx"]
    assert measured.agreement == pytest.approx(1 - differs.mean())
    assert measured.escalation == pytest.approx(1 - kept.mean())
    assert f"{1 - differs.mean():.1%}" in result.output


def test_the_report_has_the_rule_and_says_what_a_sample_is(tmp_path: Path, cloud: Path, pictures: Path) -> None:
    assert compiled(tmp_path, cloud, pictures, "--epsilon", "0.05").exit_code == 0
    place = tmp_path / "seen@1.report"
    found = read_report(place / "report.json").findings.confidence
    assert isinstance(found, told.Confidence)
    (rule,) = found.rules
    assert (found.cloud, found.things, rule.artifact, rule.feasible) == ("things-cloud@1", True, "fp32.onnx", True)
    assert [each.way for each in rule.maps] == ["score", "isotonic"]
    assert [each.chosen for each in rule.maps] == [False, True]
    page = (place / "report.html").read_text()
    assert "A sample is a thing that the detector finds in a picture" in page
    assert "none: scores are shares" in page


def test_copies_of_pictures_change_nothing(tmp_path: Path, cloud: Path, pictures: Path) -> None:
    more = tmp_path / "more"
    shutil.copytree(pictures, more)
    for path in sorted(pictures.iterdir())[::3]:
        shutil.copy(path, more / f"{path.stem}-again.png")
    digests = []
    for name, folder in (("one", pictures), ("other", more)):
        (tmp_path / name).mkdir()
        assert compiled(tmp_path / name, cloud, folder, "--epsilon", "0.05").exit_code == 0
        digests.append(read(tmp_path / name / "seen@1").digest)
    assert digests[0] == digests[1]


def test_another_promise_asks_no_detector_again(tmp_path: Path, cloud: Path, pictures: Path) -> None:
    escalated = []
    for epsilon in ("0.05", "0.1"):
        assert compiled(tmp_path, cloud, pictures, "--epsilon", epsilon).exit_code == 0
        escalated.append(read_measurements(read(tmp_path / "seen@1")).artifacts["fp32.onnx"].escalation or 0.0)
    head = read_report(tmp_path / "seen@1.report" / "report.json").findings.head
    reused = {each.stage: each.reused for each in head.stages}
    assert (reused["pairs"], reused["confidence"]) == (True, False)
    assert escalated[1] < escalated[0]


@pytest.mark.parametrize(
    ("options", "within"),
    [(("--epsilon", "0.001"), ""), (("--max-escalation", "0.01"), "with at most 1.0% escalating")],
)
def test_a_promise_that_the_pictures_cannot_keep_is_told_with_the_least_that_they_can(
    tmp_path: Path, cloud: Path, pictures: Path, options: tuple[str, ...], within: str
) -> None:
    result = compiled(tmp_path, cloud, pictures, *options)
    assert result.exit_code == 1
    assert "INFEASIBLE: " in result.output
    assert "The smallest they certify is 0." in result.output
    assert within in result.output
    assert "the promise is not certified, so that every request escalates" in result.output
    rule = rule_of(read(tmp_path / "seen@1"))
    assert (rule.feasible, rule.threshold > 1) == (False, True)


def refused(result: Result) -> str:
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    return str(result.output)


def test_what_is_no_cloud_for_this_detector_is_refused(tmp_path: Path, cloud: Path, pictures: Path) -> None:
    make_classifier(tmp_path / "names", model="things", tier="cloud")
    make_detector(tmp_path / "cats", model="things", labels=("cat",))
    assert "digits-edge@1 is no detector: its outputs are logits" in refused(
        compiled(tmp_path, tmp_path / "names", pictures)
    )
    assert (
        "serves 'things', and this bundle 'cars'. The two answer for one logical model: give --model things"
        in refused(compiled(tmp_path, cloud, pictures, model="cars"))
    )
    assert "no label of things-edge@1 (cat) is one of this detector's (block): they could never agree" in refused(
        compiled(tmp_path, tmp_path / "cats", pictures)
    )
    assert "--cloud" in refused(compiled(tmp_path, tmp_path / "nowhere", pictures))


def test_pictures_that_are_too_few_or_unreadable_or_empty_are_refused(tmp_path: Path, cloud: Path) -> None:
    few = draw(tmp_path / "few", range(39))
    shutil.copy(few / "0000.png", few / "again.png")
    assert "few holds 39 different pictures; 40 are the least" in refused(compiled(tmp_path, cloud, few))
    broken = draw(tmp_path / "broken", range(40))
    whole = (broken / "0007.png").read_bytes()
    (broken / "0007.png").write_bytes(b"no picture")
    assert "0007.png: The picture is refused: " in refused(compiled(tmp_path, cloud, broken))
    (broken / "0007.png").write_bytes(whole[: len(whole) // 2])
    assert "Mend or remove it." in refused(compiled(tmp_path, cloud, broken))
    dark = tmp_path / "dark"
    dark.mkdir()
    for number in range(40):
        assert cv2.imwrite(str(dark / f"{number}.png"), np.full((240, 320, 3), number, np.uint8))
    assert "seen@1 finds nothing in the 40% of 40 pictures" in refused(compiled(tmp_path, cloud, dark))


def test_labels_that_the_cloud_does_not_know_are_told(cloud: Path) -> None:
    assert strangers(("block",), read(cloud)) == ""
    assert strangers(("ghost", "block"), read(cloud)).startswith("things-cloud@1 has no label ghost: what the edge")


def test_what_is_found_is_told_in_pixels_of_the_picture_that_was_sent(tmp_path: Path, cloud: Path) -> None:
    picture = np.full((480, 640, 3), 60, np.uint8)
    picture[80:160, 96:144] = 250
    assert cv2.imwrite(str(tmp_path / "large.png"), picture)
    with opened(of_bundle(read(cloud))) as find:
        (thing,) = find(shown(tmp_path / "large.png"))
    assert isinstance(thing, Box)
    assert thing.label == "block"
    assert thing.score == pytest.approx(1.0, abs=1e-3)
    assert thing.box == pytest.approx((96, 80, 144, 160), abs=2)


def test_an_answer_that_is_no_number_is_refused(tmp_path: Path) -> None:
    outputs = {name: array * np.nan for name, array in outputs_for("yolov8").items()}
    pre = Preprocess(SIDE, SIDE, "rgb", 1 / 255, (0.0,) * 3, (1.0,) * 3)
    path = constant_detector(tmp_path / "model.onnx", outputs)
    finder = Finder("seen@1", path, manifest_of("yolov8").postprocess, pre, ())
    assert cv2.imwrite(str(tmp_path / "some.png"), scene(0)[0])
    with opened(finder) as find, pytest.raises(CompileError, match="NaN or infinity in out"):
        find(shown(tmp_path / "some.png"))
