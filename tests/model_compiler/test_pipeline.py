"""The whole compilation: repeatable in another process, and watched while it runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import pytest

from model_compiler.data.samples import first
from model_compiler.digits import recipe, splits
from model_compiler.digits.recipe import DigitsBundles, Profile
from model_compiler.learning.train import Schedule
from model_compiler.pack import read
from model_compiler.progress import Step

pytestmark = pytest.mark.integration


class Compiled(Protocol):
    """The fixture of conftest.py."""

    bundles: DigitsBundles
    steps: Sequence[Step]


def test_compiling_in_another_process_gives_the_same_bundles(bundles: DigitsBundles, tmp_path: Path) -> None:
    """Training included: fixed seeds and one thread, whatever the number of cores and the hash seed."""
    command = [sys.executable, "-m", "model_compiler", "digits", "--quick", "--json", "--out", str(tmp_path)]
    result = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        env={"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
        timeout=150,
    )
    printed = [each["digest"] for each in msgspec.json.decode(result.stdout)]
    assert printed == [bundles.cloud.digest, bundles.edge.digest, bundles.bad.digest]
    assert read(tmp_path / recipe.EDGE).manifest == bundles.edge.manifest


def test_progress_names_every_stage_in_order_and_finishes_each(compiled: Compiled) -> None:
    stages = list(dict.fromkeys((step.bundle, step.stage) for step in compiled.steps))
    edge = ("import", "teach", "distil", "export", "quantize", "compare", "confidence", "measure")
    assert stages == [
        *(("digits-cloud@1", stage) for stage in ("train", "export", "measure")),
        *(("digits-edge@1", stage) for stage in edge),
        *(("digits-edge@2", stage) for stage in edge),
    ]
    for bundle, stage in stages:
        done = [step.done for step in compiled.steps if (step.bundle, step.stage) == (bundle, stage)]
        assert done == sorted(done)
        assert (done[0], done[-1]) == (0.0, 1.0)


def test_no_part_of_the_digits_serves_two_purposes() -> None:
    """Inputs of train, fit, threshold and test are drawn from disjoint digits: no two samples are equal either."""
    brief = Profile(1, 4, Schedule(1, 1e-2), Schedule(1, 1e-2), Schedule(1, 1e-2), fit_draws=1, test_draws=1)
    parts = splits.split(splits.load())
    for data in (recipe.camera_data(parts, brief), recipe.clean_data(parts)):
        seen = [
            {row.tobytes() for row in first(part, len(part))}
            for part in (data.train, data.fit, data.threshold, data.test)
        ]
        assert sum(map(len, seen)) == len(set().union(*seen)) == 1797
