"""The bundle that a detector is certified against: whether it is one, and whether the two can mean the same things."""

from __future__ import annotations

import hashlib
from pathlib import Path

from contracts.errors import FoothillError
from model_compiler import pack
from model_compiler.data.folder import picture_files
from model_compiler.detectors.finder import of_bundle, shown
from model_compiler.detectors.pairs import Picture, distinct
from model_compiler.errors import CompileError
from model_compiler.pack import Packed

_LEAST_PICTURES = 40
_SHOWN = 5


def read_cloud(directory: Path, model: str, labels: tuple[str, ...]) -> Packed:
    """The bundle in `directory`, for a detector of that logical `model` with these `labels`.

    Raises CompileError for what is none, and where the two could not agree on anything.
    """
    try:
        cloud = pack.read(directory)
    except (CompileError, FoothillError) as error:
        raise CompileError(f"--cloud {directory}: {error}") from error
    manifest = cloud.manifest
    of_bundle(cloud)
    if manifest.model != model:
        raise CompileError(
            f"--cloud {directory}: {manifest.reference} serves {manifest.model!r}, and this bundle {model!r}. The two "
            f"answer for one logical model: give --model {manifest.model}, or another bundle."
        )
    if not _in_common(labels, manifest.labels):
        raise CompileError(
            f"--cloud {directory}: no label of {manifest.reference} ({_told(manifest.labels)}) is one of this "
            f"detector's ({_told(labels)}): they could never agree. Give --labels that name things as the cloud does."
        )
    return cloud


def strangers(labels: tuple[str, ...], cloud: Packed) -> str:
    """A warning of labels that the cloud does not know; empty where it knows all."""
    unknown = tuple(dict.fromkeys(each for each in labels if each not in cloud.manifest.labels))
    if not unknown or not cloud.manifest.labels:
        return ""
    return (
        f"{cloud.manifest.reference} has no label {_told(unknown)}: what the edge calls so counts as answered unlike "
        "the cloud, each time."
    )


def read_pictures(directory: Path) -> tuple[Picture, ...]:
    """Every different JPEG and PNG below it. Raises CompileError for what is no picture, and for too few."""
    pictures = distinct(
        Picture(path, hashlib.sha256(shown(path).data).hexdigest()) for path in picture_files(directory)
    )
    if len(pictures) < _LEAST_PICTURES:
        raise CompileError(
            f"{directory} holds {len(pictures)} different pictures; {_LEAST_PICTURES} are the least that a confidence "
            "rule is fitted on. A thousand of the kind that cameras will send, of different moments, are better."
        )
    return pictures


def _in_common(ours: tuple[str, ...], theirs: tuple[str, ...]) -> bool:
    """Without any labels, objects are called by the numbers of their classes."""
    return bool(set(ours) & set(theirs)) or not (ours or theirs)


def _told(labels: tuple[str, ...]) -> str:
    more = ", …" if len(labels) > _SHOWN else ""
    return ", ".join(labels[:_SHOWN]) + more if labels else "none"
