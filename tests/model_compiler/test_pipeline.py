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
from model_compiler.errors import CompileError
from model_compiler.learning.train import Schedule
from model_compiler.pack import read
from model_compiler.pipeline import compile_recipe
from model_compiler.progress import Step
from model_compiler.stages import Stages

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


NETS = """
import numpy as np
from torch import nn

def big(classes=3):
    return nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, classes))

def drawn(seed):
    inputs = np.random.default_rng(seed).standard_normal((60, 6)).astype(np.float32)
    return inputs, inputs[:, :3].argmax(axis=1)

def train(): return drawn(0)
def fit(): return drawn(1)
def threshold(): return drawn(2)
def test(): return drawn(3)
"""
RECIPE = """
[bundle]
name = "edge"
version = "1"
model = "numbers"
precisions = ["fp32"]
[cloud]
name = "cloud"
[teacher]
build = "foothill_pipeline_nets:big"
schedule = { epochs = 1, peak = 0.1 }
[student]
build = "foothill_pipeline_nets:big"
arguments = { classes = 3 }
[learn]
schedule = { epochs = 1, peak = 0.1 }
[data]
train = "foothill_pipeline_nets:train"
fit = "foothill_pipeline_nets:fit"
threshold = "foothill_pipeline_nets:threshold"
test = "foothill_pipeline_nets:test"
"""


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the module of the recipes lies."""
    directory: Path = tmp_path_factory.mktemp("nets")
    (directory / "foothill_pipeline_nets.py").write_text(NETS)
    return directory


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("classes = 3", "classes = 4", r"teacher foothill_pipeline_nets:big: 3, student foothill_pipeline_nets:big: 4"),
        ('["fp32"]', '["int8"]', "no calibration samples"),
        (":threshold", ":fit", "`threshold` has samples that `fit` has too"),
    ],
)
def test_what_is_wrong_with_the_edge_bundle_is_told_before_the_cloud_bundle_is_trained(
    nets: Path, tmp_path: Path, right: str, wrong: str, told: str
) -> None:
    recipe, stages = nets / "recipe.toml", Stages(tmp_path / "stages")
    recipe.write_text(RECIPE.replace(right, wrong))
    with pytest.raises(CompileError, match=told):
        compile_recipe(recipe, tmp_path / "out", stages=stages)
    assert stages.ran == []
    assert not (tmp_path / "out").exists()
