"""Folders of pictures as samples: the numbers a node makes of them, kept decoded, refused with the file's name."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from contracts.manifest import Preprocess
from model_compiler.data.folder import UNLABELLED, read_folder
from model_compiler.data.samples import batches, first
from model_compiler.errors import CompileError
from runtime.serving.preprocess import Preprocessor

RGB = Preprocess(
    width=8, height=6, colour="rgb", scale=1 / 255, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), resize="crop"
)
GREY = Preprocess(width=8, height=8, colour="grey", scale=1.0, mean=(0.0,), std=(1.0,))


def draw(path: Path, seed: int, size: tuple[int, int] = (12, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    assert cv2.imwrite(str(path), picture)


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    folder = tmp_path / "animals"
    for number, name in enumerate(("dog/b.png", "cat/a.jpg", "cat/deep/c.PNG")):
        draw(folder / name, number)
    return folder


@pytest.mark.parametrize("preprocess", [RGB, GREY])
def test_inputs_are_bit_for_bit_what_a_node_makes_of_the_same_file(
    animals: Path, tmp_path: Path, preprocess: Preprocess
) -> None:
    samples, labels = read_folder(animals, preprocess, tmp_path / "cache")
    assert labels == ("cat", "dog")
    assert samples.labels.tolist() == [0, 0, 1]
    node = Preprocessor(preprocess)
    files = ((animals / "cat/a.jpg", "image/jpeg"), (animals / "cat/deep/c.PNG", "image/png"))
    wanted = np.concatenate([node.tensor(file.read_bytes(), media_type) for file, media_type in files])
    assert np.array_equal(first(samples, 2), wanted)
    assert [len(batch) for batch in batches(samples, 2)] == [2, 1]


def test_loose_pictures_have_no_labels(tmp_path: Path) -> None:
    draw(tmp_path / "loose" / "a.png", 1)
    samples, labels = read_folder(tmp_path / "loose", GREY, tmp_path / "cache")
    assert labels == ()
    assert samples.labels.tolist() == [UNLABELLED]


def test_decoded_pictures_are_kept_until_a_file_changes(animals: Path, tmp_path: Path) -> None:
    before = read_folder(animals, GREY, tmp_path / "cache").samples
    (kept,) = (tmp_path / "cache").iterdir()
    written = kept.stat().st_mtime_ns
    assert read_folder(animals, GREY, tmp_path / "cache").samples.digest() == before.digest()
    assert kept.stat().st_mtime_ns == written
    draw(animals / "dog/b.png", 9)
    assert read_folder(animals, GREY, tmp_path / "cache").samples.digest() != before.digest()


def test_what_is_no_folder_of_pictures_is_refused_by_name(animals: Path, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"nowhere.* holds no \.jpg"):
        read_folder(tmp_path / "nowhere", GREY, tmp_path / "cache")
    draw(animals / "stray.png", 3)
    with pytest.raises(CompileError, match=r"stray\.png lies loose"):
        read_folder(animals, GREY, tmp_path / "cache")
    (animals / "stray.png").unlink()
    (animals / "dog" / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(CompileError, match=r"broken\.jpg: .*Mend or remove it"):
        read_folder(animals, GREY, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
