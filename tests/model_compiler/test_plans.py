"""From a recipe to what is compiled: what it names is there and fits, or is refused with the line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest

from contracts.boards import BOARDS
from contracts.manifest import Preprocess
from model_compiler.data.samples import Floats, first
from model_compiler.errors import CompileError
from model_compiler.learning.augment import Augment
from model_compiler.learning.train import Schedule
from model_compiler.pack import Packed
from model_compiler.pipeline import compile_bundle
from model_compiler.plan import Budget, Net, OnnxFile, Plan, Training, artifacts_for
from model_compiler.plans import cloud_plan, edge_plan, given_cloud
from model_compiler.recipe_file import RecipeError, RecipeFile
from model_compiler.replay import Ends
from tests.model_compiler.small import ENDS, NUMBERS, RIGHT, linear, plan

NETS = """
import numpy as np
from torch import nn

def small(width=4):
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))

def some():
    inputs = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    return inputs, inputs[:, :3].argmax(axis=1)

def half(outputs, labels):
    return np.float32(0.5)

def none(outputs, labels):
    return None

def nan(outputs, labels):
    return float("nan")

def fails(outputs, labels):
    return outputs["nothing"]
"""
BUNDLE = '[bundle]\nname = "edge"\nversion = "2"\nmodel = "numbers"\n'
DATA = '[data]\nvalidation = "foothill_plans_nets:some"\ntest = "foothill_plans_nets:some"\n'
TEACHER = (
    '[teacher]\nbuild = "foothill_plans_nets:small"\narguments = { width = 9 }\nschedule = { epochs = 2, peak = 0.1 }\n'
)
STUDENT = '[student]\nbuild = "foothill_plans_nets:small"\n[learn]\nschedule = { epochs = 3, peak = 0.1 }\n'
FILES = '[teacher]\nonnx = "two.onnx"\n[student]\nonnx = "one.onnx"\n'
SWAPPED = '[teacher]\nonnx = "one.onnx"\n[student]\nonnx = "two.onnx"\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module, and two ONNX files: of one output in batches of 1, of two in any."""
    folder: Path = tmp_path_factory.mktemp("recipe")
    (folder / "foothill_plans_nets.py").write_text(NETS)
    linear(folder / "one.onnx", {"scores": RIGHT}, given="rows", batch=1)
    linear(folder / "two.onnx", {"logits": RIGHT, "features": RIGHT[:, :2]})
    (folder / "weights.safetensors").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def cloud(folder: Path) -> Packed:
    """The bundle that recipes name by its directory."""
    whole = plan(name="cloud", model="numbers", tier="cloud", student=OnnxFile(folder / "two.onnx"))
    return compile_bundle(whole, folder / "cloud@1", report=False)


def recipe(folder: Path, *tables: str) -> RecipeFile:
    return RecipeFile(folder / "recipe.toml", BUNDLE + DATA + "".join(tables))


def edge(folder: Path, *tables: str) -> Plan:
    return edge_plan(recipe(folder, *tables), folder / "cache", None)


def refused(folder: Path, *tables: str) -> str:
    file = recipe(folder, *tables)
    with pytest.raises(RecipeError) as error:
        edge_plan(file, folder / "cache", given_cloud(file))
    return str(error.value).removeprefix(f"{folder / 'recipe.toml'}:")


def test_what_the_recipe_says_is_what_is_compiled(folder: Path) -> None:
    table = STUDENT.replace("[learn]\n", "[learn]\naugment = { flip = true }\n")
    made = edge(folder, TEACHER, table, "[postprocess]\ninput = 'rows'\n", "[budget]\nmax_bytes = 7\n")
    teacher, student = made.teacher, made.student
    assert isinstance(teacher, Net)
    assert isinstance(student, Net)
    assert teacher.build().state_dict()["0.weight"].shape == (9, NUMBERS)
    assert student.build().state_dict()["0.weight"].shape == (4, NUMBERS)
    assert (teacher.name, teacher.training) == ("foothill_plans_nets:small", Training(Schedule(2, 0.1)))
    assert student.training is None
    assert made.learning is not None
    assert (made.learning.schedule.epochs, made.learning.augment) == (3, Augment(flip=True))
    assert (made.tier, made.task, made.kind, made.ends) == (
        "edge",
        "classification",
        "logits",
        Ends("rows", ("logits",)),
    )
    assert made.artifacts == artifacts_for(("cpu-x86", "cpu-arm"), ("int8", "fp32"))
    assert (len(made.data.test), len(made.data.train), first(made.data.some, 1).shape) == (40, 0, (1, NUMBERS))
    assert made.how == "40 samples of foothill_plans_nets:some"
    assert made.budget == Budget(max_bytes=7)


def test_a_network_is_told_apart_by_the_text_that_defines_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "foothill_plans_others.py").write_text(NETS + "# something else\n")
    mine, same = (edge(folder, STUDENT).student for _ in range(2))
    others = RecipeFile(tmp_path / "recipe.toml", BUNDLE + (DATA + STUDENT).replace("plans_nets", "plans_others"))
    other = edge_plan(others, tmp_path, None).student
    assert isinstance(mine, Net)
    assert isinstance(same, Net)
    assert isinstance(other, Net)
    assert mine.code == same.code != other.code


def test_an_onnx_file_has_names_and_a_batch_of_its_own(folder: Path) -> None:
    made = edge(folder, FILES)
    assert made.student == OnnxFile(folder / "one.onnx")
    assert made.ends == Ends("rows", ("scores",), 1)


def test_the_recipe_says_which_of_a_files_outputs_answers(folder: Path) -> None:
    student = '[student]\nonnx = "two.onnx"\n'
    assert edge(folder, student).ends.outputs == ("logits", "features")
    assert edge(folder, student, "[postprocess]\noutputs = ['features', 'logits']\n").ends.output == "features"
    told = refused(folder, student, "[postprocess]\noutputs = ['logits', 'boxes']\n")
    assert told == "11: postprocess.outputs: the file has the outputs logits, features. Name just these."


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ('[student]\nonnx = "lost.onnx"\n', "9: student.onnx: there is no file"),
        ('[student]\nonnx = "."\n', "9: student.onnx: there is no file"),
        (f'[student]\nonnx = "{"x" * 300}"\n', "9: student.onnx: there is no file"),
        (STUDENT.replace("[learn]", "weights = 'lost'\n[learn]\nqat = { epochs = 1, peak = 0.1 }"), "10: student.w"),
        (STUDENT.replace(":small", ":large"), "9: student.build: 'foothill_plans_nets:large': foothill_plans_nets has"),
        (TEACHER.replace("foothill", "lost_foothill"), "9: teacher.build: "),
        (STUDENT + '[cloud]\nbundle = "nowhere"\n', "13: cloud.bundle: "),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused_with_its_line(folder: Path, tables: str, told: str) -> None:
    assert refused(folder, tables).startswith(told)


def judged(folder: Path, metric: str) -> Plan:
    text = BUNDLE.replace('model = "numbers"', f'model = "numbers"\nmetric = "foothill_plans_nets:{metric}"')
    return edge_plan(RecipeFile(folder / "recipe.toml", text + DATA + STUDENT), folder / "cache", None)


OUTPUTS: Mapping[str, Floats] = {"logits": np.zeros((2, 3), np.float32)}


def test_a_metric_of_ones_own_judges_under_its_name(folder: Path) -> None:
    made = judged(folder, "half")
    assert made.metric is not None
    assert made.metric(OUTPUTS, np.zeros(2)) == 0.5
    assert made.judged_by["metric"] == "foothill_plans_nets:half"
    assert made.judged_by["metric code"]
    assert edge(folder, STUDENT).judged_by == {"metric": ""}


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("none", r"foothill_plans_nets:none gave None\. Return a share of 1"),
        ("nan", r"foothill_plans_nets:nan gave nan\. Return a share of 1"),
        ("fails", r"foothill_plans_nets:fails raised KeyError: 'nothing' \(.*nets\.py:22\)"),
    ],
)
def test_a_metric_that_gives_no_number_is_told_by_its_name(folder: Path, metric: str, told: str) -> None:
    made = judged(folder, metric)
    assert made.metric is not None
    with pytest.raises(CompileError, match=told):
        made.metric(OUTPUTS, np.zeros(2))


def test_a_metric_that_is_not_there_is_refused_with_its_line(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.toml:5: bundle\.metric: .* has no callable 'lost'"):
        judged(folder, "lost")


def test_the_teacher_alone_becomes_the_cloud_bundle(folder: Path) -> None:
    tables = TEACHER, STUDENT, '[cloud]\nname = "big"\nversion = "7"\n', "[budget]\nmax_bytes = 7\n"
    file, made = recipe(folder, *tables), edge(folder, *tables)
    big = cloud_plan(file, made)
    assert big is not None
    assert (big.reference, big.tier, big.model, big.student) == ("big@7", "cloud", "numbers", made.teacher)
    assert (big.teacher, big.learning, big.prune, big.cloud, big.budget) == (None, None, None, None, Budget())
    assert [(each.precision, each.targets) for each in big.artifacts] == [("fp32", tuple(BOARDS))]
    assert (big.data, big.ends, big.kind) == (made.data, made.ends, made.kind)
    assert cloud_plan(recipe(folder, TEACHER, STUDENT), made) is None


def test_a_cloud_bundle_keeps_the_batch_of_its_own_file(folder: Path) -> None:
    """The student runs one row at a time, the teacher any number; the other way round; and a network as the teacher."""
    for tables, batch in ((FILES, None), (SWAPPED, 1), (TEACHER + '[student]\nonnx = "one.onnx"\n', None)):
        both = tables, '[cloud]\nname = "big"\n'
        big = cloud_plan(recipe(folder, *both), edge(folder, *both))
        assert big is not None
        assert big.ends.batch == batch


def test_a_packed_cloud_bundle_is_named_by_its_directory(folder: Path, cloud: Packed) -> None:
    file = recipe(folder, STUDENT, '[cloud]\nbundle = "cloud@1"\n')
    assert given_cloud(file) == msgspec.structs.replace(cloud, directory=folder / "cloud@1")
    assert given_cloud(recipe(folder, STUDENT)) is None
    made = edge_plan(file, folder / "cache", given_cloud(file))
    assert made.cloud is not None
    assert made.cloud.digest == cloud.digest
    assert cloud_plan(file, made) is None


PICTURES = Preprocess(2, 3, "grey", 1.0, (0.0,), (1.0,))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BUNDLE.replace("numbers", "letters"), "the logical model numbers, the recipe letters"),
        (BUNDLE + 'task = "detection"\n', "the task classification, the recipe detection"),
    ],
)
def test_a_cloud_bundle_of_another_kind_is_refused(folder: Path, cloud: Packed, text: str, told: str) -> None:
    text += f'[cloud]\nbundle = "{cloud.directory.name}"\n{DATA}{STUDENT}'
    with pytest.raises(RecipeError, match=rf":\d+: cloud\.bundle: cloud@1 has {told}\. The two must see the same"):
        given_cloud(RecipeFile(folder / "recipe.toml", text))


def test_a_cloud_bundle_must_see_pictures_as_the_edge_does(folder: Path, tmp_path: Path) -> None:
    whole = plan(name="cloud", model="numbers", tier="cloud", student=OnnxFile(folder / "two.onnx"), ends=ENDS)
    packed = compile_bundle(msgspec.structs.replace(whole, preprocess=PICTURES), tmp_path / "cloud", report=False)
    table = '[preprocess]\nwidth = 2\nheight = 3\ncolour = "grey"\nscale = 1.0\nmean = [0.0]\nstd = [1.0]\n'
    tables = STUDENT, f'[cloud]\nbundle = "{packed.directory}"\n'
    for same in (table, ""):
        assert given_cloud(recipe(folder, *tables, same)) is not None
    with pytest.raises(RecipeError, match=r"cloud\.bundle: cloud@1 has the preprocess table .* the recipe "):
        given_cloud(recipe(folder, *tables, table.replace("height = 3", "height = 4")))
