"""What a recipe names and does not fit is refused with the line that names it, before anything learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model_compiler.pipeline import compile_recipe
from model_compiler.recipe_file import RecipeError
from model_compiler.stages import Stages

NETS = """
import numpy as np
from torch import nn

def net(classes=3):
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, classes))

def number():
    return 3

def raising():
    raise ValueError("no licence")

class Moody(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)

    def forward(self, inputs):
        return self.inner(inputs) if float(inputs.sum()) > 0 else -self.inner(inputs)

def rows(seed, count=64):
    inputs = np.random.default_rng(seed).standard_normal((count, 6)).astype(np.float32)
    return inputs, inputs[:, :3].argmax(axis=1)

def one(): return rows(1)
def two(): return rows(2)
def three(): return rows(3)
def four(): return rows(4)

def far():
    inputs, labels = rows(5)
    return inputs, labels + 7

def holed():
    inputs, labels = rows(6)
    inputs[3, 2] = np.nan
    return inputs, labels
"""

RECIPE = """
[bundle]
name = "largest"
version = "1"
model = "largest"
targets = ["cpu-x86"]
precisions = ["int8", "fp32"]

[student]
build = "foothill_test_refused:net"

[learn]
schedule = { epochs = 1, peak = 1e-2 }

[data]
train = "foothill_test_refused:one"
calibration = "foothill_test_refused:two"
validation = "foothill_test_refused:three"
test = "foothill_test_refused:four"
"""

MISTAKES = {
    "labels": (
        'precisions = ["int8", "fp32"]',
        'labels = ["a", "b"]',
        "bundle.labels: .*knows 3 classes, and 2 labels",
    ),
    "no network": (":net", ":number", "student.build: .*gave int, not a torch.nn.Module"),
    "raises": (":net", ":raising", "student.build: .*raised ValueError: no licence"),
    "not exported": (":net", ":Moody", "student.build: .*cannot export this network"),
    "no such argument": (
        'build = "foothill_test_refused:net"',
        'build = "foothill_test_refused:net"\narguments = { width = 8 }',
        "student.build: .*unexpected keyword argument 'width'",
    ),
    "other weights": (
        '"foothill_test_refused:net"\n\n[learn]\nschedule = { epochs = 1, peak = 1e-2 }\n',
        '"foothill_test_refused:net"\nweights = "other.safetensors"\n',
        "student.weights: .*other.safetensors does not fit",
    ),
    "label out of range": (":four", ":far", "data.test: The label of row 0 of test is .*knows the classes 0 to 2"),
    "not finite": (":two", ":holed", "data.calibration: .*"),
    "shared": (":four", ":one", "data.test: .*`test` has samples that `train` has too"),
    "nothing to judge by": ('validation = "foothill_test_refused:three"\n', "", "data.validation: .*int8 is chosen by"),
}


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What recipes in it name."""
    directory: Path = tmp_path_factory.mktemp("recipes")
    (directory / "foothill_test_refused.py").write_text(NETS)
    save_file({"weight": torch.zeros(2, 2)}, directory / "other.safetensors")
    return directory


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_line_and_the_key_come_first(beside: Path, tmp_path: Path, mistake: str) -> None:
    before, after, told = MISTAKES[mistake]
    recipe, text = beside / f"{mistake}.toml", RECIPE.replace(before, after)
    assert text != RECIPE
    recipe.write_text(text)
    stages = Stages(tmp_path / "stages")
    with pytest.raises(RecipeError, match=rf"^{recipe}:\d+: {told}") as refused:
        compile_recipe(recipe, tmp_path / "out", stages=stages)
    assert [ran.stage for ran in stages.ran] == []
    line = int(str(refused.value).split(":")[1])
    key = told.split(":")[0].rpartition(".")[2]
    assert text.splitlines()[line - 1].startswith((key, f"[{told.split('.')[0]}]"))
