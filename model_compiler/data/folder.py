"""Folders of pictures, one folder a label or all loose without labels: decoded once, kept as one array on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from contracts.errors import FoothillError
from contracts.manifest import Preprocess
from model_compiler.data import mapped
from model_compiler.data.samples import Pictures, PictureSamples
from model_compiler.errors import CompileError
from model_compiler.exclusive import alone
from model_compiler.progress import Advance, unwatched
from runtime.serving.pictures import images
from runtime.serving.pictures.preprocess import Preprocessor, least_size

MEDIA_TYPES = {".jpg": images.JPEG, ".jpeg": images.JPEG, ".png": images.PNG}
UNLABELLED = -1
_MAX_PICTURES = 10_000_000


class Folder(NamedTuple):
    """`labels` are the sorted names of the folders; empty, and every sample's label -1, where pictures lie loose."""

    samples: PictureSamples
    labels: tuple[str, ...]


def read_folder(directory: Path, preprocess: Preprocess, cache: Path, *, advance: Advance = unwatched) -> Folder:
    """Every JPEG and PNG below `directory`, in the order of their paths, each decoded and resized as on a node.

    The decoded pictures are kept in `cache` and mapped, not read: they may be larger than the memory.
    Raises CompileError for a folder without pictures, a mixture of loose and labelled ones, a damaged picture, or a
    full disk.
    """
    files = picture_files(directory)
    labels = _labels(directory, files)
    numbers = {label: number for number, label in enumerate(labels)}
    answers = [numbers.get(file.relative_to(directory).parts[0], UNLABELLED) for file in files]
    pictures = _cached(files, preprocess, cache, advance)
    return Folder(PictureSamples(pictures, np.asarray(answers, np.int64), preprocess), labels)


def picture_files(directory: Path) -> list[Path]:
    """Every JPEG and PNG below it, in the order of their paths. Raises CompileError where there is none."""
    try:
        is_folder = directory.is_dir()
        found = sorted(
            path for path in directory.rglob("*") if path.suffix.lower() in MEDIA_TYPES and not path.is_dir()
        )
    except OSError as error:
        raise CompileError(f"{directory} cannot be read ({error.strerror}). Name a folder of pictures.") from error
    if not is_folder:
        raise CompileError(f"{directory} is no directory. Name a folder of pictures.")
    if not found:
        raise CompileError(f"{directory} holds no .jpg, .jpeg or .png file. Name a folder of pictures.")
    if len(found) > _MAX_PICTURES:
        raise CompileError(f"{directory} holds {len(found)} pictures; at most {_MAX_PICTURES} are taken.")
    return found


def _labels(directory: Path, files: Sequence[Path]) -> tuple[str, ...]:
    depths = [len(path.relative_to(directory).parts) for path in files]
    if max(depths) == 1:
        return ()
    if min(depths) == 1:
        loose = files[depths.index(1)]
        raise CompileError(
            f"{loose} lies loose beside folders of pictures. Put every picture in the folder of its label, or none."
        )
    return tuple(sorted({path.relative_to(directory).parts[0] for path in files}))


def _cached(files: Sequence[Path], preprocess: Preprocess, cache: Path, advance: Advance) -> Pictures:
    kept = cache / f"pictures-{_key(files, preprocess)}.npy"
    try:
        with alone(kept.with_suffix(".lock")):
            if not kept.exists():
                _decode_all(files, preprocess, kept, advance)
        advance(1.0)
        return np.load(kept, mmap_mode="r")  # type: ignore[no-any-return]
    except OSError as error:
        told = error.strerror or error
        raise CompileError(f"{cache} does not take the decoded pictures ({told}). Free space there.") from error


def _key(files: Sequence[Path], preprocess: Preprocess) -> str:
    """What the decoded pictures depend on: names, sizes and times of the files, and how they are resized."""
    # "upright" parts these from pictures that were decoded as their cameras had been held.
    sha256 = hashlib.sha256(msgspec.json.encode([preprocess.width, preprocess.height, preprocess.colour, "upright"]))
    sha256.update(preprocess.resize.encode())
    for path in files:
        try:
            status = path.stat()
        except OSError as error:
            raise _unreadable(path, error) from error
        sha256.update(os.fsencode(path) + f"\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return sha256.hexdigest()[:16]


def _decode_all(files: Sequence[Path], preprocess: Preprocess, kept: Path, advance: Advance) -> None:
    """Into a file of its own first: a run that is cut short leaves nothing that looks finished."""
    channels = () if preprocess.colour == "grey" else (3,)
    unfinished = kept.with_suffix(".part")
    try:
        pictures = mapped.create(unfinished, np.uint8, (len(files), preprocess.height, preprocess.width, *channels))
        preprocessor = Preprocessor(preprocess)
        for row, path in enumerate(files):
            pictures[row] = _decode(path, preprocess, preprocessor)
            advance(row / len(files))
        pictures.flush()
        unfinished.replace(kept)
    finally:
        unfinished.unlink(missing_ok=True)


def _decode(path: Path, preprocess: Preprocess, preprocessor: Preprocessor) -> Pictures:
    try:
        data, media_type = path.read_bytes(), MEDIA_TYPES[path.suffix.lower()]
        seen = images.look(data, media_type)
        picture = images.decode(data, seen, preprocess.colour, at_least=least_size(seen.size, preprocess))
        return preprocessor.resize(picture)
    except OSError as error:
        raise _unreadable(path, error) from error
    except FoothillError as error:
        raise CompileError(f"{path}: {error.message} Mend or remove it.") from error


def _unreadable(path: Path, error: OSError) -> CompileError:
    return CompileError(f"{path} cannot be read ({error.strerror}). Make it readable, or remove it.")
