"""A recipe: the TOML file that says what to compile, read whole or refused with the line and the fix."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

import msgspec

from contracts import manifest as manifests
from contracts.boards import BOARDS
from contracts.decoding import UNREADABLE
from contracts.manifest import PostprocessKind, Precision, Preprocess, Task
from model_compiler.confidence import Promise
from model_compiler.errors import CompileError
from model_compiler.learning.augment import PLAIN, Augment
from model_compiler.learning.train import Schedule
from model_compiler.plan import Budget, Learning, Prune, Quantizing

MAX_RECIPE_BYTES = 1 << 20
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>[^`]*)`(?: - at `(?P<where>[^`]*)`)?")
_NAME = "write lower-case letters, digits and '-', at most 63."
_VERSION = "write one to three numbers with dots, such as 1.4.0."
_AT = re.compile(r"(?P<what>.*?)(?: - at `(?P<where>[^`]*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]*)`(?: - at `(?P<where>[^`]*)`)?")


class BundleTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[bundle]`: what comes out. `metric` is an import path; the task's own metric otherwise."""

    name: str
    version: str
    model: str
    task: Task = "classification"
    targets: tuple[str, ...] = ("cpu-x86", "cpu-arm")
    precisions: tuple[Precision, ...] = ("int8", "fp32")
    labels: tuple[str, ...] = ()
    metric: str = ""
    max_batch: int = 32
    seed: int = 0


class SourceTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[teacher]` or `[student]`: `build` (an import path, called with `arguments`) with optional safetensors
    `weights`, or an `onnx` file. `schedule` and `augment` train a teacher that comes without weights."""

    build: str = ""
    arguments: dict[str, Any] = {}
    weights: str = ""
    onnx: str = ""
    schedule: Schedule | None = None
    augment: Augment = PLAIN


class CloudTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[cloud]`: what the edge bundle is certified against: the teacher packed as `name`@`version`, or the packed
    bundle in the directory `bundle`."""

    name: str = ""
    version: str = "1"
    bundle: str = ""


class SplitTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many samples of `[data] folder` each part gets: counts from 1 up, or shares below 1. The rest trains."""

    calibration: float = 512
    validation: float = 0.05
    fit: float = 0.05
    threshold: float = 0.10
    test: float = 0.10


class DataTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[data]`: a `folder` that is split, and parts that come from elsewhere: a directory, or an import path."""

    folder: str = ""
    split: SplitTable = SplitTable()
    train: str = ""
    calibration: str = ""
    validation: str = ""
    fit: str = ""
    threshold: str = ""
    test: str = ""
    seed: int = 0


class PostprocessTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[postprocess]`: the name of the tensors of a torch network, and what the first output holds."""

    kind: PostprocessKind = "logits"
    input: str = "image"
    outputs: tuple[str, ...] = ("logits",)


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file; docs/compile.md explains every key."""

    bundle: BundleTable
    data: DataTable = DataTable()
    teacher: SourceTable | None = None
    student: SourceTable | None = None
    cloud: CloudTable | None = None
    prune: Prune | None = None
    learn: Learning | None = None
    quantize: Quantizing = Quantizing()
    budget: Budget = Budget()
    promise: Promise = Promise()
    preprocess: Preprocess | None = None
    postprocess: PostprocessTable | None = None


class RecipeError(CompileError):
    """A recipe is refused. The message starts with file:line."""


class RecipeFile:
    """A recipe with the text it was read from, so that what is found wrong later is still told with its line."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.text = text
        self.recipe = self._read()

    @classmethod
    def open(cls, path: Path) -> RecipeFile:
        """Raises RecipeError for what is not a recipe, CompileError where there is no such file."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CompileError(f"{path} cannot be read ({error.strerror}). Give the path of a recipe.") from error
        if len(data) > MAX_RECIPE_BYTES:
            raise CompileError(f"{path} has {len(data)} bytes; a recipe has at most {MAX_RECIPE_BYTES}.")
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise CompileError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}.") from error
        return cls(path, text)

    @property
    def directory(self) -> Path:
        """What the recipe's relative paths and modules are looked up in."""
        return self.path.resolve().parent

    def refuse(self, key: str, what: str) -> RecipeError:
        """The error for `key`, such as `data.test`, with its line."""
        return RecipeError(f"{self.path}:{line_of(self.text, key)}: {key}: {what}")

    def _read(self) -> Recipe:
        try:
            recipe = msgspec.toml.decode(self.text, type=Recipe)
        except msgspec.ValidationError as error:
            raise self._explain(str(error)) from error
        except UNREADABLE as error:
            raise RecipeError(f"{self.path}: this is not TOML: {error}. Correct the file at that place.") from error
        self._check(recipe)
        return recipe

    def _explain(self, message: str) -> RecipeError:
        if unknown := _UNKNOWN.fullmatch(message):
            table, name = _dotted(unknown["where"]), unknown["name"]
            return self.refuse(_join(table, name), f"unknown key. {_hint(name, _fields_of(table))}")
        if missing := _MISSING.fullmatch(message):
            return self.refuse(_dotted(missing["where"]) or missing["name"], f"`{missing['name']}` is missing. Add it.")
        found = _AT.fullmatch(message)
        assert found is not None  # The pattern takes every text.
        return self.refuse(_dotted(found["where"]), f"{found['what']}. Correct that value; see docs/compile.md.")

    def _check(self, recipe: Recipe) -> None:
        """What a type cannot say. Raises RecipeError."""
        for key, broken, fix in _rules(recipe):
            if broken:
                raise self.refuse(key, fix)
        for target in recipe.bundle.targets:
            if target not in BOARDS:
                raise self.refuse("bundle.targets", f"{target!r} is unknown. {_hint(target, list(BOARDS))}")


def line_of(text: str, key: str) -> int:
    """The line, from 1, of a dotted `key` in TOML `text`: its own, that of the nearest table around it, or 1."""
    lines = text.splitlines()
    parts = key.split(".") if key else []
    for depth in range(len(parts), 0, -1):
        header = re.compile(r"\s*\[\[?\s*" + r"\s*\.\s*".join(map(re.escape, parts[:depth])) + r"\s*\]\]?\s*(#.*)?")
        starts = [number for number, line in enumerate(lines, 1) if header.fullmatch(line)]
        if starts and depth == len(parts):
            return starts[0]
        within = _line_within(lines, starts[0] if starts else 0, parts[depth:]) if starts else None
        if within is not None or starts:
            return within or starts[0]
    return _line_within(lines, 0, parts) or 1


def _line_within(lines: list[str], start: int, parts: list[str]) -> int | None:
    """The line of key `parts` after line `start`, before the next table."""
    if not parts:
        return start or None
    assignment = re.compile(r"\s*\"?" + re.escape(parts[0]) + r"\"?\s*[.=]")
    for number, line in enumerate(lines[start:], start + 1):
        if line.lstrip().startswith("["):
            return None
        if assignment.match(line):
            return number
    return None


def _rules(recipe: Recipe) -> list[tuple[str, bool, str]]:
    """(key, whether it is broken, what to do), in the order in which they are told."""
    bundle, teacher, student, cloud = recipe.bundle, recipe.teacher, recipe.student, recipe.cloud
    budget, promise, prune = recipe.budget, recipe.promise, recipe.prune
    return [
        ("bundle.name", not manifests.is_name(bundle.name), _NAME),
        ("bundle.version", not manifests.is_version(bundle.version), _VERSION),
        ("bundle.model", not manifests.is_name(bundle.model), _NAME),
        ("cloud.name", cloud is not None and bool(cloud.name) and not manifests.is_name(cloud.name), _NAME),
        ("cloud.version", cloud is not None and not manifests.is_version(cloud.version), _VERSION),
        ("bundle.targets", not bundle.targets, f"name at least one of {', '.join(BOARDS)}."),
        ("bundle.precisions", not bundle.precisions, "name at least one of int8, int4, fp16, fp32."),
        ("bundle.max_batch", not 1 <= bundle.max_batch <= 4096, "it must be 1 to 4096."),
        ("bundle", teacher is None and student is None, "there is no model. Add a [student] or a [teacher] table."),
        *(_source_rules("teacher", teacher) if teacher else []),
        *(_source_rules("student", student) if student else []),
        ("prune", prune is not None and (teacher is None or not teacher.build), "it needs a [teacher] with `build`."),
        ("prune", prune is not None and student is not None, "the student is the pruned teacher: remove [student]."),
        ("prune.share", prune is not None and not 0 < prune.share < 1, "it must be above 0 and below 1."),
        ("learn", recipe.learn is not None and not (student and student.build) and prune is None,
         "nothing learns here. Add a [student] with `build`, or [prune]."),
        ("prune", prune is not None and recipe.learn is None, "a pruned teacher must learn again: add [learn]."),
        ("cloud", cloud is not None and bool(cloud.name) == bool(cloud.bundle),
         "give either `name` (the teacher is packed under it) or `bundle` (the directory of a packed one)."),
        ("cloud.name", cloud is not None and bool(cloud.name) and teacher is None, "it needs a [teacher] to pack."),
        ("budget.max_drop_points", not 0 <= budget.max_drop_points <= 100, "it must be 0 to 100 points."),
        *((f"budget.{name}", value is not None and value <= 0, "it must be above 0.")
          for name, value in (("min_speed_up", budget.min_speed_up), ("max_latency_ms", budget.max_latency_ms),
                              ("max_bytes", budget.max_bytes))),
        ("promise.epsilon", not 0 < promise.epsilon < 1, "it must be above 0 and below 1, such as 0.03."),
        ("promise.delta", not 0 < promise.delta < 1, "it must be above 0 and below 1, such as 0.05."),
        ("promise.max_escalation", not 0 < promise.max_escalation <= 1, "it must be above 0 and at most 1."),
        ("quantize.int4_block", recipe.quantize.int4_block not in (32, 64, 128), "it must be 32, 64 or 128."),
        *_schedule_rules("learn.schedule", recipe.learn.schedule if recipe.learn else None),
        *_schedule_rules("learn.trial", recipe.learn.trial if recipe.learn else None),
        *_schedule_rules("learn.qat", recipe.learn.qat if recipe.learn else None),
        *_schedule_rules("teacher.schedule", teacher.schedule if teacher else None),
    ]  # fmt: skip


def _source_rules(table: str, source: SourceTable) -> list[tuple[str, bool, str]]:
    return [
        (table, bool(source.build) == bool(source.onnx), "give either `build` (an import path) or `onnx` (a file)."),
        (f"{table}.weights", bool(source.weights and source.onnx), "an ONNX file has its weights inside: remove this."),
        (f"{table}.build", bool(source.build) and ":" not in source.build, "write package.module:callable."),
        (f"{table}.schedule", source.schedule is not None and table == "student", "a student learns by [learn]."),
        (table, table == "teacher" and bool(source.build) and not source.weights and source.schedule is None,
         "a teacher needs `weights`, or a `schedule` to be trained by."),
    ]  # fmt: skip


def _schedule_rules(key: str, schedule: Schedule | None) -> list[tuple[str, bool, str]]:
    if schedule is None:
        return []
    return [
        (f"{key}.epochs", not 1 <= schedule.epochs <= 100_000, "it must be 1 to 100000."),
        (f"{key}.peak", not 0 < schedule.peak <= 10, "it is a learning rate: above 0, such as 0.004."),
        (f"{key}.batch", not 1 <= schedule.batch <= 65_536, "it must be 1 to 65536."),
        (f"{key}.threads", not 1 <= schedule.threads <= 1024, "it must be 1 or more."),
    ]


def _dotted(where: str | None) -> str:
    """msgspec's `$.data.split` as `data.split`; places within lists count as the list."""
    return re.sub(r"\[[^\]]*\]", "", (where or "").removeprefix("key in ").lstrip("$").lstrip("."))


def _join(table: str, name: str) -> str:
    return f"{table}.{name}" if table else name


def _fields_of(table: str) -> list[str]:
    """The keys that the dotted `table` may have."""
    kind: Any = Recipe
    for part in table.split(".") if table else []:
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
        options = getattr(fields.get(part), "__args__", (fields.get(part),))
        kind = next((each for each in options if isinstance(each, type) and issubclass(each, msgspec.Struct)), None)
        if kind is None:
            return []
    return [field.encode_name for field in msgspec.structs.fields(kind)]


def _hint(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean `{close[0]}`?" if close else f"Known are: {', '.join(known) or 'none'}."
