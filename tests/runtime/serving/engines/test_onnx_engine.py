"""An engine on the CPU takes the threads that it is given, none while it rests, and keeps its memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.serving.engines.onnx_engine import OnnxEngine
from runtime.serving.engines.providers import ON_CPU
from tests.runtime.serving.bundle_factory import MODEL_FILE, make_classifier
from tests.runtime.serving.resting_engines import IDLE_S

ROOT = Path(__file__).parents[4]


def test_a_thread_more_is_one_thread_more_and_none_spins_where_nothing_runs(tmp_path: Path) -> None:
    make_classifier(tmp_path, size=64, max_batch=256)
    command = [sys.executable, "-m", "tests.runtime.serving.resting_engines", str(tmp_path / MODEL_FILE)]
    told = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=120).stdout)
    # The thread that a run is called from is the first.
    assert told["started"] == [0, 1]
    assert max(told["idle_s"]) < 0.01 * IDLE_S
    # ONNX Runtime's default shows that this would have been seen.
    assert told["spinning_s"] > 0.02 * IDLE_S


@pytest.mark.parametrize("threads", [1, 2])
def test_it_keeps_the_arena_and_the_memory_pattern_as_documented(tmp_path: Path, threads: int) -> None:
    make_classifier(tmp_path)
    engine = OnnxEngine(tmp_path / MODEL_FILE, plan=ON_CPU, threads=threads)
    options = engine._session.get_session_options()
    assert (options.enable_cpu_mem_arena, options.enable_mem_pattern) == (True, True)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (threads, 1)
    engine.close()
    said = " ".join((ROOT / "docs" / "engines.md").read_text().split())
    assert "CPU sessions keep ONNX Runtime's arena and memory pattern, with no spinning threads." in said
