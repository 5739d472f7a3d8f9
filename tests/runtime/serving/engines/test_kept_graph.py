"""The optimized graph of an artifact: opened instead of it, bit for bit alike, and never in the way of it."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from contracts.errors import FoothillError
from runtime.serving.engines import kept_graph
from runtime.serving.engines.kept_graph import GRAPH, RECORD, WEIGHTS
from runtime.serving.engines.onnx_engine import write_optimized
from runtime.serving.engines.providers import Wish
from runtime.serving.engines.tensors import Array
from runtime.serving.models.golden import open_tested
from runtime.serving.models.loaded import LoadedModel
from tests.runtime.serving.bundle_factory import MODEL_FILE, TARGET, make_classifier, make_convolutions

KEPT_FILES = {GRAPH, WEIGHTS, RECORD}
SIZE = 192


class Machine:
    """One bundle and one cache; each `open` is as a start of the process would do it."""

    def __init__(self, directory: Path, reserve_bytes: int = 0) -> None:
        self.bundle = directory / "bundle"
        self.cache = directory / "cache"
        self.wish = Wish(cache=self.cache, reserve_bytes=reserve_bytes)
        self.digest = make_classifier(self.bundle, size=SIZE)

    def open(self, wish: Wish | None = None) -> LoadedModel:
        return open_tested(self.bundle, self.digest, target=TARGET, threads=1, wish=wish or self.wish)

    @property
    def place(self) -> Path:
        """The directory for this processor."""
        (place,) = self.cache.glob("*/graph-*")
        return place

    def kept(self) -> set[str]:
        return {entry.name for entry in self.place.iterdir()}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def images(rows: int = 2) -> dict[str, Array]:
    return {"image": np.random.default_rng(5).normal(size=(rows, 1, SIZE, SIZE)).astype(np.float32)}


def mapped(directory: Path) -> bool:
    """Whether weights in it are in this process's memory."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return any(str(directory) in line and line.endswith(WEIGHTS) for line in lines)


def answers_of_itself(machine: Machine) -> Array:
    loaded = machine.open(Wish())
    answers = loaded.run(images())["logits"]
    loaded.close()
    return answers


def check_answers(machine: Machine, *, from_kept: bool) -> None:
    wanted = answers_of_itself(machine)
    loaded = machine.open()
    assert (loaded.kept is not None) == from_kept
    assert np.array_equal(loaded.run(images())["logits"], wanted)
    loaded.close()


def test_the_first_start_keeps_a_graph_for_all_that_follow(machine: Machine) -> None:
    machine.open().close()
    assert machine.kept() == KEPT_FILES
    made = (machine.place / GRAPH).stat()
    second = machine.open()
    assert second.kept is not None
    assert (machine.place / GRAPH).stat().st_mtime_ns == made.st_mtime_ns
    second.close()
    check_answers(machine, from_kept=True)


def test_weights_that_would_take_twice_the_disk_are_kept_as_they_are(machine: Machine) -> None:
    """ONNX Runtime keeps both forms of a matrix: the packed one, and its own."""
    machine.open().close()
    weights = (machine.place / WEIGHTS).stat().st_size
    assert 0.9 < weights / (machine.bundle / MODEL_FILE).stat().st_size < 1.1


def test_a_network_of_convolutions_answers_the_same_to_the_last_bit_from_mapped_weights(tmp_path: Path) -> None:
    digest = make_convolutions(tmp_path / "bundle")
    pictures = {"image": np.random.default_rng(7).normal(size=(3, 3, 32, 32)).astype(np.float32)}
    answers = []
    for wish in (Wish(), Wish(cache=tmp_path / "cache"), Wish(cache=tmp_path / "cache")):
        loaded = open_tested(tmp_path / "bundle", digest, target=TARGET, threads=1, wish=wish)
        assert (loaded.kept is not None) == (wish.cache is not None)
        assert mapped(tmp_path / "cache") == (wish.cache is not None)
        answers.append(loaded.run(pictures)["vector"])
        loaded.close()
    assert np.array_equal(answers[0], answers[1])
    assert np.array_equal(answers[0], answers[2])


@pytest.mark.parametrize("file", sorted(KEPT_FILES))
@pytest.mark.parametrize("harm", ["torn", "flipped", "gone"])
def test_a_graph_that_changed_on_the_disk_is_made_anew(machine: Machine, file: str, harm: str) -> None:
    machine.open().close()
    path = machine.place / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(data if harm == "flipped" else data[: len(data) // 2])
    check_answers(machine, from_kept=True)
    assert machine.kept() == KEPT_FILES


def test_another_processor_or_runtime_has_its_own_and_the_old_one_goes(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.open().close()
    before = machine.place
    monkeypatch.setattr(kept_graph, "_processor", lambda: ["model name: another"])
    check_answers(machine, from_kept=True)
    assert machine.place != before
    monkeypatch.setattr("onnxruntime.__version__", "9.9.9")
    newer = kept_graph._made_for()
    assert newer != machine.place.name


def test_a_processor_is_told_by_what_it_can_do_and_not_by_its_clock(tmp_path: Path) -> None:
    def told(flags: str, mhz: int, cores: int) -> list[str]:
        core = f"processor\t: 0\nvendor_id\t: X\nmodel name\t: Y\ncpu MHz\t\t: {mhz}\nflags\t\t: {flags}\n\n"
        (tmp_path / "cpuinfo").write_text(core * cores)
        return kept_graph._processor(tmp_path / "cpuinfo")

    assert told("avx2", 2000, 1) == told("avx2", 3100, 4)
    assert told("avx2", 2000, 1) != told("avx2 avx512f", 2000, 1)


def test_after_a_process_that_died_on_it_the_artifact_is_opened_and_after_two_for_good(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.open().close()
    (machine.place / "trial").symlink_to("an-earlier-life")
    check_answers(machine, from_kept=False)
    assert "the process ended while it opened the optimized graph" in caplog.text
    assert machine.kept() == {"strikes"}
    check_answers(machine, from_kept=True)
    assert machine.kept() == KEPT_FILES
    for _ in range(2):
        (machine.place / "trial").symlink_to("an-earlier-life")
        check_answers(machine, from_kept=False)
    check_answers(machine, from_kept=False)
    assert machine.kept() == {"strikes"}


def test_a_disk_that_fails_once_as_it_is_written_is_tried_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, threads: int, directory: Path) -> None:
        (directory / WEIGHTS).symlink_to("/dev/full")
        write_optimized(path, threads, directory)

    monkeypatch.setattr("runtime.serving.models.loaded.write_optimized", full)
    check_answers(machine, from_kept=False)
    assert "it cannot be made" in caplog.text
    monkeypatch.undo()
    check_answers(machine, from_kept=True)


def test_a_graph_that_answers_wrong_gives_way_to_the_artifact_and_is_made_anew(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.open().close()
    other = Machine(machine.bundle.parent / "other")
    other.digest = make_classifier(other.bundle, size=SIZE, seed=9)
    other.open().close()
    for name in KEPT_FILES:
        (other.place / name).replace(machine.place / name)
    check_answers(machine, from_kept=False)
    assert "fails its golden test here" in caplog.text
    assert machine.kept() == {"strikes"}
    check_answers(machine, from_kept=True)


def test_a_bundle_that_is_wrong_itself_is_refused_as_ever(tmp_path: Path) -> None:
    digest = make_classifier(tmp_path / "bundle", size=SIZE, golden_error=1.0)
    with pytest.raises(FoothillError, match="fails its golden test here"):
        open_tested(tmp_path / "bundle", digest, target=TARGET, threads=1, wish=Wish(cache=tmp_path / "cache"))


def test_an_artifact_is_checked_when_it_is_read_and_not_when_its_graph_is(machine: Machine) -> None:
    artifact = machine.bundle / MODEL_FILE
    data = artifact.read_bytes()
    artifact.write_bytes(data[:-1] + b"x")
    with pytest.raises(FoothillError, match=r"fp32\.onnx changed on disk. Remove the bundle and fetch it again"):
        machine.open()
    artifact.write_bytes(data)
    machine.open().close()
    artifact.write_bytes(b"no network")
    assert machine.open().kept is not None


def test_what_the_disk_must_keep_free_is_not_taken(tmp_path: Path) -> None:
    machine = Machine(tmp_path, reserve_bytes=1 << 60)
    check_answers(machine, from_kept=False)
    assert machine.kept() == set()


def test_where_nothing_can_be_written_the_artifact_is_opened(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.open().close()
    place = machine.place
    for entry in place.iterdir():
        entry.unlink()
    place.rmdir()
    place.write_text("a file in its place")
    check_answers(machine, from_kept=False)
    assert "it cannot be made" in caplog.text


def test_of_two_that_open_at_once_one_makes_the_graph(machine: Machine) -> None:
    wanted = answers_of_itself(machine)
    answers: list[Array] = []
    start = threading.Barrier(4)

    def opened() -> None:
        start.wait()
        loaded = machine.open()
        answers.append(loaded.run(images())["logits"])
        loaded.close()

    threads = [threading.Thread(target=opened) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert all(np.array_equal(one, wanted) for one in answers)
    check_answers(machine, from_kept=True)
    assert machine.kept() == KEPT_FILES


def test_small_artifacts_are_opened_themselves(tmp_path: Path) -> None:
    digest = make_classifier(tmp_path / "bundle")
    loaded = open_tested(tmp_path / "bundle", digest, target=TARGET, threads=1, wish=Wish(cache=tmp_path / "cache"))
    assert loaded.kept is None
    assert not (tmp_path / "cache").exists()
    loaded.close()
