"""Values that no type refuses: out of bounds, in contradiction with each other, or of no use."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_compiler.recipe_file import RecipeError, RecipeFile
from model_compiler.recipe_rules import Bound

BUNDLE = """
[bundle]
name = "a"
version = "1"
model = "a"
"""
STUDENT = """
[student]
build = "nets:student"
weights = "student.safetensors"
"""
TEACHER = """
[teacher]
build = "nets:teacher"
weights = "teacher.safetensors"
"""
PUPIL = """
[student]
build = "nets:student"
"""
LEARN = """
[learn]
schedule = { epochs = 1, peak = 0.1 }
"""
PICTURES = """
[preprocess]
width = 8
height = 8
colour = "rgb"
scale = 1
mean = [0, 0, 0]
std = [1, 1, 1]
"""
GOOD = BUNDLE + STUDENT


def test_recipes_that_keep_the_rules_are_taken() -> None:
    for text in (GOOD, BUNDLE + TEACHER + PUPIL + LEARN, BUNDLE + TEACHER, BUNDLE + PUPIL + LEARN, GOOD + PICTURES):
        RecipeFile(Path("recipe.toml"), text)


def bundle(more: str) -> str:
    return BUNDLE + more + "\n" + STUDENT


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOOD.replace('name = "a"', 'name = "ä"'), "bundle.name: write lower-case letters"),
        (GOOD.replace('version = "1"', 'version = "1.2.3.4"'), "bundle.version: write one to three numbers"),
        (GOOD.replace('model = "a"', 'model = "A!"'), "bundle.model: write lower-case letters"),
        (bundle('targets = ["cpu-x87"]'), "bundle.targets: 'cpu-x87' is unknown. Known are: cpu-x86"),
        (bundle('targets = ["cpu-x86", "cpu-x86"]'), "bundle.targets: 'cpu-x86' is named twice"),
        (bundle("targets = []"), "bundle.precisions: no file comes of these"),
        (bundle('targets = ["rtx-sm89"]\nprecisions = ["int4"]'), "bundle.precisions: no file comes of these"),
        (bundle('precisions = ["int8", "int8"]'), "bundle.precisions: 'int8' is named twice"),
        (bundle("max_batch = 0"), "bundle.max_batch: it must be at least 1 and at most 4,096"),
        (bundle("seed = -1"), "bundle.seed: it must be at least 0"),
        (bundle('labels = ["' + "x" * 600_000 + '"]'), "bundle.labels: they have more than"),
        (bundle('task = "embedding"') + '[postprocess]\nkind = "logits"\n', "postprocess.kind: the answers of embed"),
        (GOOD + '[postprocess]\noutputs = ["a", "a"]\n', "postprocess.outputs: 'a' is named twice"),
        (GOOD + '[postprocess]\noutputs = ["../a"]\n', "postprocess.outputs: write names of letters"),
        (GOOD + '[postprocess]\ninput = "logits"\n', "postprocess.input: an output has this name"),
        (GOOD + "[quantize]\nint4_block = 7\n", "quantize.int4_block: it must be 32, 64 or 128"),
        (GOOD + "[quantize]\nmethods = []\n", "quantize.methods: name at least one"),
        (GOOD + "[promise]\nmax_escalation = 0.0\n", "promise.max_escalation: it must be above 0"),
        (GOOD + "[budget]\nmax_drop_points = -1\n", "budget.max_drop_points: it must be at least 0"),
        (GOOD + "[budget]\nmax_latency_ms = inf\n", "budget.max_latency_ms: it must be above 0"),
        (GOOD + "[budget]\nmax_bytes = 0\n", "budget.max_bytes: it must be at least 1"),
        (GOOD + "[data]\nseed = -1\n", "data.seed: it must be at least 0"),
        (GOOD + "[data.split]\ntest = nan\n", "data.split.test: it must be at least 0"),
        (GOOD + "[data.split]\ntest = 1.5\n", "data.split.test: write a share below 1, or a whole number"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_its_key(text: str, told: str) -> None:
    assert refused(text).startswith(told)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (PICTURES.replace("width = 8", "width = 0"), "preprocess.width: it must be at least 1"),
        (PICTURES.replace("= 8", "= 60_000"), "preprocess.width: 60000x60000 are more than"),
        (PICTURES.replace("scale = 1", "scale = nan"), "preprocess.scale: it must be above 0"),
        (PICTURES.replace("std = [1,", "std = [0,"), "preprocess.std: it must be above 0"),
        (PICTURES.replace("mean = [0, 0, 0]", "mean = [0]"), "preprocess.mean: rgb has 3 channels: write 3 values"),
    ],
)
def test_a_preprocess_table_that_no_picture_survives_is_refused(changed: str, told: str) -> None:
    assert refused(GOOD + changed).startswith(told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BUNDLE, "bundle: there is no model. Add a [student] or a [teacher]"),
        (GOOD + 'onnx = "a.onnx"\n', "student: give either `build`"),
        (BUNDLE + "[student]\n", "student: give either `build`"),
        (BUNDLE + '[student]\nonnx = "a"\nweights = "b"\n', "student.weights: an ONNX file has its weights inside"),
        (BUNDLE + '[student]\nonnx = "a"\narguments = { a = 1 }\n', "student.arguments: an ONNX file takes none"),
        (BUNDLE + PUPIL, "student: it needs `weights`, or a [learn] table"),
        (BUNDLE + TEACHER.replace("weights", "#"), "teacher: it needs `weights`, or a `schedule`"),
        (GOOD + "schedule = { epochs = 1, peak = 0.1 }\n", "student.schedule: a network with weights is not trained"),
        (BUNDLE + PUPIL + "schedule = { epochs = 1, peak = 0.1 }\n" + LEARN, "student.schedule: a student learns by"),
        (BUNDLE + TEACHER + LEARN, "learn: nothing learns here"),
        (GOOD + LEARN, "learn: the student comes with weights"),
        (BUNDLE + PUPIL + LEARN + "ways = []\n", "learn.ways: name at least one"),
        (BUNDLE + PUPIL + LEARN + 'ways = ["kd", "kd"]\n', "learn.ways: 'kd' is named twice"),
        (BUNDLE + TEACHER + PUPIL + LEARN + 'ways = ["kd", "dkd"]\n', "learn.ways: several ways need a `trial`"),
        (BUNDLE + PUPIL + LEARN + "trial = { epochs = 1, peak = 0.1 }\n", "learn.trial: without a [teacher]"),
        (BUNDLE + PUPIL + LEARN.replace("0.1", "nan"), "learn.schedule.peak: it must be above 0"),
        (BUNDLE + PUPIL + LEARN + "augment = { views = -1 }\n", "learn.augment.views: it must be at least 0"),
        (GOOD + '[prune]\nmethod = "magnitude"\nshare = 0.5\n', "prune: it needs a [teacher]"),
        (BUNDLE + TEACHER + '[prune]\nmethod = "magnitude"\nshare = 0.5\n', "prune: a pruned teacher must learn"),
        (BUNDLE + TEACHER + '[prune]\nmethod = "magnitude"\nshare = 1.0\n' + LEARN, "prune.share: it must be above 0"),
        (BUNDLE + TEACHER + STUDENT + '[prune]\nmethod = "magnitude"\nshare = 0.5\n' + LEARN, "prune: the student is"),
        (GOOD + '[cloud]\nname = "x"\n', "cloud.name: it needs a [teacher] to pack"),
        (BUNDLE + TEACHER + STUDENT + "[cloud]\n", "cloud: give either `name`"),
        (BUNDLE + TEACHER + STUDENT + '[cloud]\nname = "a"\n', "cloud.name: the edge bundle has this name"),
        (BUNDLE + TEACHER + STUDENT + '[cloud]\nname = "X"\n', "cloud.name: write lower-case letters"),
        (BUNDLE + TEACHER + STUDENT + '[cloud]\nname = "x"\nversion = "v1"\n', "cloud.version: write one to three"),
    ],
)
def test_tables_that_contradict_each_other_are_refused(text: str, told: str) -> None:
    assert refused(text).startswith(told)


@given(st.floats(), st.booleans())
def test_only_numbers_within_the_bound_hold(value: float, beyond: bool) -> None:
    holds = Bound(0, 10, beyond=beyond).holds(value)
    assert holds == (0 <= value <= 10 and not (beyond and value == 0))


def refused(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        RecipeFile(Path("recipe.toml"), text)
    place, _, told = str(caught.value).partition(" ")
    assert place.startswith("recipe.toml:")
    return told
