"""Folders of pictures as samples: the numbers a node makes of them, kept decoded, refused with the file's name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from contracts.manifest import Preprocess
from model_compiler.data.folder import UNLABELLED, read_folder
from model_compiler.data.samples import batches, first
from model_compiler.errors import CompileError
from runtime.serving.pictures.preprocess import Preprocessor

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
    with pytest.raises(CompileError, match=r"nowhere is no directory"):
        read_folder(tmp_path / "nowhere", GREY, tmp_path / "cache")
    draw(animals / "stray.png", 3)
    with pytest.raises(CompileError, match=r"stray\.png lies loose"):
        read_folder(animals, GREY, tmp_path / "cache")
    (animals / "stray.png").unlink()
    (animals / "dog" / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(CompileError, match=r"broken\.jpg: .*Mend or remove it"):
        read_folder(animals, GREY, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("kind", ["cmyk", "grey", "16-bit", "alpha", "one-bit", "interlaced", "link"])
def test_odd_pictures_are_read_as_a_node_reads_them(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    path = odd(folder, kind)
    samples, _ = read_folder(folder, RGB, tmp_path / "cache")
    node = Preprocessor(RGB)
    media_type = "image/png" if path.suffix == ".png" else "image/jpeg"
    assert np.array_equal(first(samples, 1), node.tensor(path.read_bytes(), media_type))


def odd(folder: Path, kind: str) -> Path:
    rng = np.random.default_rng(0)
    grey, colour = rng.integers(0, 255, (12, 16), np.uint8), rng.integers(0, 255, (12, 16, 3), np.uint8)
    path = folder / f"{kind}.{'jpg' if kind in ('cmyk', 'link') else 'png'}"
    if kind == "16-bit":
        assert cv2.imwrite(str(path), rng.integers(0, 65535, (12, 16, 3), np.uint16))
    elif kind == "link":
        draw(folder.parent / "elsewhere.jpg", 1)
        path.symlink_to(folder.parent / "elsewhere.jpg")
    else:
        pictures = {
            "cmyk": Image.fromarray(colour).convert("CMYK"),
            "grey": Image.fromarray(grey),
            "alpha": Image.fromarray(np.dstack([colour, grey])),
            "one-bit": Image.fromarray(grey > 99),
            "interlaced": Image.fromarray(colour),
        }
        pictures[kind].save(path)
    return path


@pytest.mark.parametrize("flaw", ["cut short", "empty", "huge", "another kind"])
def test_a_picture_that_cannot_be_read_is_refused_by_its_path(tmp_path: Path, flaw: str) -> None:
    draw(tmp_path / "pictures" / "good.png", 1)
    path = tmp_path / "pictures" / "z.png"
    draw(path, 2)
    whole = path.read_bytes()
    flaws = {
        "cut short": whole[: len(whole) // 2],
        "empty": b"",
        "huge": whole[:16] + (60_000).to_bytes(4, "big") * 2 + whole[24:],
        "another kind": b"\xff\xd8\xff" + whole,
    }
    path.write_bytes(flaws[flaw])
    with pytest.raises(CompileError, match=r"pictures/z\.png: .*Mend or remove it\."):
        read_folder(tmp_path / "pictures", RGB, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_link_to_nowhere_is_refused_not_left_out(tmp_path: Path) -> None:
    draw(tmp_path / "pictures" / "good.png", 1)
    (tmp_path / "pictures" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(CompileError, match=r"lost\.png cannot be read \(No such file.*remove it"):
        read_folder(tmp_path / "pictures", RGB, tmp_path / "cache")


def test_decoding_tells_how_far_it_is(animals: Path, tmp_path: Path) -> None:
    for _ in range(2):
        steps: list[float] = []
        read_folder(animals, GREY, tmp_path / "cache", advance=steps.append)
        assert steps == sorted(steps)
        assert steps[-1] == 1.0


def test_a_disk_without_room_is_told_before_anything_is_decoded(animals: Path, tmp_path: Path) -> None:
    """A limit on file sizes stands for the full disk: both fail where room is taken."""
    script = (
        "import resource, sys; from pathlib import Path; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); "
        "sys.path.insert(0, sys.argv[1]); import test_folder as t; from model_compiler.errors import CompileError\n"
        "try: t.read_folder(Path(sys.argv[2]), t.GREY, Path(sys.argv[3]))\n"
        "except CompileError as error: print(error)"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(animals), str(tmp_path / "cache")]
    root = Path(__file__).parents[3]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=60)
    assert "cache does not take the decoded pictures (File too large). Free space there." in result.stdout
    assert list((tmp_path / "cache").iterdir()) == []
