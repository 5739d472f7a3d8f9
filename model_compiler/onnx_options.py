"""What the options of `foothill compile --onnx` ask for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar, get_args

import msgspec

from contracts.boards import BOARDS
from contracts.manifest import MAX_PIXELS, PostprocessKind, is_name, is_version
from model_compiler.confidence import Promise
from model_compiler.detectors.told import told_of
from model_compiler.errors import CompileError
from model_compiler.from_onnx import Colour, OnnxRequest, Pictures, Resize
from model_compiler.label_lists import LISTS

Word = TypeVar("Word")
_SIDE = re.compile(r"[0-9]{1,9}")


class OnnxOptions(msgspec.Struct, frozen=True):
    """As they were typed; empty where they were not."""

    onnx: Path
    name: str
    version: str
    targets: Sequence[str]
    model: str
    calibration: Path | None
    kind: str
    labels: Path | None
    colour: str
    scale: float
    mean: str
    std: str
    size: str
    resize: str
    max_drop: float | None
    head: str = ""
    golden: Path | None = None
    cloud: Path | None = None
    epsilon: float | None = None
    delta: float | None = None
    max_escalation: float | None = None


def request_of(options: OnnxOptions) -> OnnxRequest:
    """Raises CompileError that names the option and what to write."""
    _check(options)
    _check_head(options)
    return OnnxRequest(
        onnx=options.onnx,
        name=options.name,
        version=options.version,
        targets=tuple(dict.fromkeys(options.targets)),
        model=options.model,
        calibration=options.calibration,
        pictures=Pictures(
            colour=_word("--colour", options.colour, get_args(Colour)),
            scale=options.scale,
            mean=_numbers("--mean", options.mean),
            std=_numbers("--std", options.std),
            resize=_word("--resize", options.resize, get_args(Resize)),
            size=_size(options.size),
        ),
        labels=_labels(options.labels) if options.labels is not None else (),
        kind=_word("--kind", options.kind, get_args(PostprocessKind)) if options.kind else None,
        max_drop_points=options.max_drop,
        head=told_of(options.head) if options.head else None,
        golden=options.golden,
        cloud=options.cloud,
        promise=_promise(options),
    )


def _check(options: OnnxOptions) -> None:
    for option, value in (("--name", options.name), ("--version", options.version)):
        if not value:
            raise CompileError(f"{option} is missing: the bundle's name is NAME@VERSION, such as detector@1.0.0.")
    for option, name in (("--name", options.name), ("--model", options.model or options.name)):
        if not is_name(name):
            raise CompileError(f"{option} {name!r}: write lower-case letters, digits and '-', such as detector.")
    if not is_version(options.version):
        raise CompileError(f"--version {options.version!r}: write numbers with dots, such as 1.0.0.")
    if not options.targets:
        raise CompileError(f"--target is missing. Name one or more of {', '.join(BOARDS)}.")
    for target in options.targets:
        _word("--target", target, tuple(BOARDS))
    if options.max_drop is not None and not 0 <= options.max_drop <= 100:
        raise CompileError(f"--max-drop {options.max_drop}: write points from 0 to 100.")


def _word(option: str, value: str, known: tuple[Word, ...]) -> Word:
    for each in known:
        if each == value:
            return each
    raise CompileError(f"{option} {value!r} is unknown. Use one of {', '.join(map(str, known))}.")


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise CompileError(f"{option} {text!r}: write numbers with commas, such as 0.485,0.456,0.406.") from error


def _size(text: str) -> tuple[int, int] | None:
    width, cross, height = text.partition("x")
    if not text:
        return None
    if not (cross and all(_SIDE.fullmatch(side) for side in (width, height))):
        raise CompileError(f"--size {text!r}: write WIDTHxHEIGHT in pixels, such as 224x224.")
    if int(width) * int(height) > MAX_PIXELS:
        raise CompileError(f"--size {text}: that is more than {MAX_PIXELS} pixels. Compile for a smaller picture.")
    return int(width), int(height)


def _check_head(options: OnnxOptions) -> None:
    if options.head and options.kind:
        raise CompileError(
            "--head and --kind do not go together. A head says how outputs become boxes, and --kind how they become "
            "anything else. Leave --kind out."
        )
    if options.golden is not None and not options.head:
        raise CompileError("--golden goes with --head. Of any other model, golden rows are those of --calibration.")
    if options.cloud is not None and not options.head:
        raise CompileError(
            "--cloud goes with --head. Any other model is certified by a recipe with [student] onnx = … and [cloud]: "
            "docs/compile.md."
        )
    if options.head and options.calibration is not None and options.cloud is None:
        raise CompileError(
            "--head and --calibration go together with --cloud alone: the pictures fit a confidence rule against that "
            "bundle. Detectors are compiled as fp32: what int8 does to their boxes is not measured yet."
        )
    if options.cloud is not None and options.calibration is None:
        raise CompileError("--cloud needs --calibration DIR: a folder of pictures that both detectors are asked about.")


def _promise(options: OnnxOptions) -> Promise:
    told = {name: getattr(options, name) for name in ("epsilon", "delta", "max_escalation")}
    given = {name: value for name, value in told.items() if value is not None}
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if options.cloud is None:
            raise CompileError(f"{option} goes with --cloud: it is what is promised against that bundle's answers.")
        if not (0 < value < 1 or (name == "max_escalation" and value == 1)):
            raise CompileError(f"{option} {value}: write a share {_SHARES.get(name, 'between 0 and 1')}.")
    return Promise(**given)


_SHARES = {"max_escalation": "above 0, at most 1"}


def _labels(path: Path) -> tuple[str, ...]:
    known = LISTS.get(str(path))
    return known if known is not None and not path.exists() else _lines(path)


def _lines(path: Path) -> tuple[str, ...]:
    try:
        lines = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        told = error.strerror if isinstance(error, OSError) else error.reason
        raise CompileError(f"--labels {path} cannot be read ({told}). Give a text file, one label a line.") from error
    if not lines:
        raise CompileError(f"--labels {path} holds no label. Give a text file, one label a line.")
    return lines
