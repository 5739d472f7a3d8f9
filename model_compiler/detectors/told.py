"""What `--head` says: a kind alone, or a file that says more."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from contracts.manifest import DETECTORS, Detector, DetectorKind
from model_compiler.errors import CompileError

_FIELDS = {field.name: field for field in msgspec.structs.fields(Detector)}
_OUTPUT = "output"
"""Beside the fields of a Detector: the one output of a yolo."""


class Told(msgspec.Struct, frozen=True):
    """`fields` of a Detector, and maybe `output`, under the names that the ONNX file has for its outputs. What is not
    among them is to be found out."""

    kind: DetectorKind
    fields: Mapping[str, Any] = {}


def told_of(head: str) -> Told:
    """What was typed. Raises CompileError that names the option and what to write."""
    for kind in DETECTORS:
        if head == kind:
            return Told(kind)
    if not head.endswith(".toml"):
        raise CompileError(
            f"--head {head!r} is unknown. Use one of {', '.join(DETECTORS)}, or a file that ends in .toml."
        )
    return _read(Path(head))


def _read(path: Path) -> Told:
    try:
        told = msgspec.toml.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise CompileError(f"--head {path} cannot be read ({why}). Give a TOML file.") from error
    kind = told.pop("kind", "")
    if kind not in DETECTORS:
        raise CompileError(f"--head {path}: kind {kind!r} is unknown. Begin with kind = one of {', '.join(DETECTORS)}.")
    more = {_OUTPUT} if kind == "yolo" else set()
    unknown = sorted(set(told) - set(_FIELDS) - more)
    if unknown:
        known = ", ".join((*sorted(more), *_FIELDS))
        raise CompileError(f"--head {path}: {', '.join(unknown)} is unknown. Keys are kind, {known}.")
    if not isinstance(told.get(_OUTPUT, ""), str):
        raise CompileError(f"--head {path}: output must be the name of an output.")
    fields = {name: value for name, value in told.items() if name != _OUTPUT}
    try:
        whole = msgspec.convert(fields, Detector)
    except msgspec.ValidationError as error:
        raise CompileError(f"--head {path}: {error}. docs/bundle.md has the keys of a detector.") from error
    for name in ("boxes", "scores", "strides"):
        if name in fields and not fields[name]:
            raise CompileError(f"--head {path}: {name} is empty. Leave it out, or name what it is.")
    return Told(
        kind, {**{name: getattr(whole, name) for name in fields}, **{each: told[each] for each in more & {*told}}}
    )
