"""What `--head` says is taken as it is, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_compiler.detectors.told import Told, told_of
from model_compiler.errors import CompileError


def written(tmp_path: Path, text: str) -> str:
    (tmp_path / "head.toml").write_text(text)
    return str(tmp_path / "head.toml")


def test_a_kind_alone_leaves_all_else_to_the_file() -> None:
    assert [told_of(kind) for kind in ("yolo", "ssd", "nanodet")] == [Told("yolo"), Told("ssd"), Told("nanodet")]


def test_a_file_says_more(tmp_path: Path) -> None:
    told = told_of(written(tmp_path, 'kind = "yolo"\noutput = "out:0"\nscore_threshold = 0.1\nanchors_last = true\n'))
    assert told == Told("yolo", {"score_threshold": 0.1, "anchors_last": True, "output": "out:0"})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("kind = ", "cannot be read"),
        ("strides = [8]", "kind '' is unknown. Begin with kind = one of yolo, ssd, nanodet"),
        ('kind = "rcnn"', "kind 'rcnn' is unknown"),
        ('kind = "ssd"\noutput = "out"', "output is unknown"),
        ('kind = "ssd"\nboxs = ["a"]', "boxs is unknown. Keys are kind, boxes, scores"),
        ('kind = "ssd"\nboxes = []', "boxes is empty"),
        ('kind = "yolo"\noutput = 3', "output must be the name of an output"),
        ('kind = "yolo"\nscore_threshold = "low"', "Expected `float`, got `str`"),
        ('kind = "yolo"\nbox = "xywh"', "xywh"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(CompileError, match="--head") as refused:
        told_of(written(tmp_path, text))
    assert why in str(refused.value)


def test_a_word_that_is_neither_is_refused() -> None:
    with pytest.raises(CompileError, match="--head 'yolov8' is unknown"):
        told_of("yolov8")
    with pytest.raises(CompileError, match="cannot be read"):
        told_of("gone.toml")
