"""Who runs what: told by the session, or seen in the profile of a run, and the same by both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from runtime.serving.engines import placements
from runtime.serving.engines.providers import COMPILED, CPU, CUDA, TENSORRT, Placement
from tests.runtime.serving.bundle_factory import MODEL_FILE, make_classifier, make_lookup

TYPES: dict[str, np.dtype[Any]] = {"tensor(float)": np.dtype(np.float32), "tensor(int64)": np.dtype(np.int64)}


def opened(path: Path, prefix: str = "") -> Any:
    options = ort.SessionOptions()
    options.add_session_config_entry(placements.RECORD, "1")
    if prefix:
        options.enable_profiling, options.profile_file_prefix = True, prefix
    return ort.InferenceSession(path, options, providers=[CPU])


def test_a_watched_run_says_what_the_session_tells(tmp_path: Path) -> None:
    make_classifier(tmp_path)
    seen = placements.watched(lambda prefix: opened(tmp_path / MODEL_FILE, prefix), TYPES)
    assert seen.heavy == {CPU: 1}
    assert placements.told(opened(tmp_path / MODEL_FILE)) in (None, seen)


def test_a_model_that_refuses_zeros_tells_nothing(tmp_path: Path) -> None:
    make_lookup(tmp_path)
    wrong = {"tensor(int64)": np.dtype(np.float32)}
    assert placements.watched(lambda prefix: opened(tmp_path / MODEL_FILE, prefix), wrong) == Placement()


def test_nothing_is_left_of_a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_classifier(tmp_path / "bundle")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    placements.watched(lambda prefix: opened(tmp_path / "bundle" / MODEL_FILE, prefix), TYPES)
    assert [*(tmp_path / "tmp").iterdir()] == []


def event(name: str, provider: str, operator: str) -> dict[str, Any]:
    return {"cat": "Node", "name": name, "args": {"provider": provider, "op_name": operator}}


def test_what_a_provider_has_compiled_counts_as_its_work() -> None:
    profile = [
        {"cat": "Session", "name": "session_initialization", "args": {}},
        event("TRTKernel_graph_main_0_kernel_time", TENSORRT, "TRTKernel_graph_main_0"),
        event("Conv_3_kernel_time", CUDA, "Conv"),
        event("Conv_3_fence_before", CUDA, "Conv"),
        *[event(f"Shape_{number}_kernel_time", CPU, "Shape") for number in range(5)],
    ]
    placement = placements.read_profile(json.dumps(profile).encode())
    assert placement == Placement.of([(TENSORRT, COMPILED), (CUDA, "Conv"), *[(CPU, "Shape")] * 5])
    assert (placement.computes, placement.strays_from(TENSORRT)) == (TENSORRT, 1)


def test_one_provider_alone_needs_no_looking() -> None:
    assert placements.known([CPU]) == Placement()
    assert placements.known([CUDA, CPU]) is None
