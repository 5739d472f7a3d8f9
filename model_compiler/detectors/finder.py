"""A detector that is asked about pictures, and tells what it finds as a node would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from contracts.errors import FoothillError
from contracts.manifest import Postprocess, Preprocess
from contracts.predictions import Box
from model_compiler.data.folder import MEDIA_TYPES
from model_compiler.errors import CompileError
from model_compiler.onnx_ends import load, tensor_specs
from model_compiler.pack import Packed
from model_compiler.plan import Plan
from model_compiler.replay import open_engine
from runtime.serving.engines.tensors import Array
from runtime.serving.models.head_fit import read_by
from runtime.serving.models.heads import found_by
from runtime.serving.models.postprocess import things_of
from runtime.serving.pictures import images
from runtime.serving.pictures.picture import Size
from runtime.serving.pictures.preprocess import Preprocessor

Find = Callable[["Shown"], tuple[Box, ...]]


class Shown(NamedTuple):
    """A picture as it would be sent; `name` is for messages."""

    name: str
    data: bytes
    media_type: str
    size: Size


class Finder(msgspec.Struct, frozen=True):
    """`name` is for messages; `onnx` is run, and its outputs are read as `post` says."""

    name: str
    onnx: Path
    post: Postprocess
    pre: Preprocess
    labels: tuple[str, ...]
    literal: bool = False


def of_bundle(packed: Packed) -> Finder:
    """By its first artifact. Raises CompileError for what is no detector."""
    manifest = packed.manifest
    if manifest.postprocess.detector is None or manifest.preprocess is None:
        raise CompileError(
            f"{manifest.reference} is no detector: its outputs are {manifest.postprocess.kind}. Give --cloud the "
            "directory of a bundle that was compiled with --head."
        )
    return Finder(manifest.reference, packed.first_artifact, manifest.postprocess, manifest.preprocess, manifest.labels)


def of_artifact(plan: Plan, name: str, path: Path, *, literal: bool) -> Finder:
    """One of a plan with a detector."""
    assert plan.preprocess is not None
    post = Postprocess(plan.ends.output, plan.kind, plan.detector)
    return Finder(f"{plan.reference} {name}", path, post, plan.preprocess, plan.labels, literal)


@contextmanager
def opened(finder: Finder) -> Iterator[Find]:
    """What finds things in pictures, in pixels of the picture, the best first. On one thread.

    It raises CompileError for a picture that cannot be read, and for an answer that is no number.
    """
    (given, *_), outputs = tensor_specs(load(finder.onnx))
    preprocessor = Preprocessor(finder.pre, raw=given.datatype == "UINT8")
    with closing(open_engine(finder.onnx, literal=finder.literal)) as engine:

        def find(shown: Shown) -> tuple[Box, ...]:
            try:
                tensor = preprocessor.tensor(shown.data, shown.media_type)
            except FoothillError as error:
                raise unreadable(shown.name, error) from error
            try:
                found = engine.run({given.name: tensor})
            except FoothillError as error:
                raise CompileError(f"{finder.name} does not run on {shown.name}: {error.message}") from error
            _check_numbers(finder, shown, {spec.name: np.asarray(found[spec.name]) for spec in outputs})
            (things,) = found_by(finder.post, found, finder.pre)
            return things_of(things, shown.size, finder.pre, finder.labels)

        yield find


def shown(path: Path) -> Shown:
    """Raises CompileError for what is no picture."""
    media_type = MEDIA_TYPES[path.suffix.lower()]
    try:
        data = path.read_bytes()
        return Shown(str(path), data, media_type, images.look(data, media_type).size)
    except OSError as error:
        raise CompileError(f"{path} cannot be read ({error.strerror}). Make it readable, or remove it.") from error
    except FoothillError as error:
        raise unreadable(str(path), error) from error


def unreadable(name: str, error: FoothillError) -> CompileError:
    return CompileError(f"{name}: {error.message} Mend or remove it.")


def _check_numbers(finder: Finder, shown: Shown, outputs: dict[str, Array]) -> None:
    """A node refuses such an answer."""
    for name, values in outputs.items():
        if name in read_by(finder.post) and values.dtype.kind == "f" and not np.isfinite(values).all():
            raise CompileError(
                f"{finder.name} answers {shown.name} with NaN or infinity in {name}. Look for a wrong --scale, --mean "
                "or --std, or weights that are far too large."
            )
