"""The packed bundle: a directory of files under a canonical manifest whose digest is the bundle's address."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from contracts import manifest as manifests
from contracts.decoding import UNREADABLE
from contracts.manifest import File, Manifest, Measurements
from model_compiler.errors import CompileError
from model_compiler.exclusive import alone


class Packed(msgspec.Struct, frozen=True):
    """A bundle on disk. `digest` is that of its manifest."""

    directory: Path
    digest: str
    manifest: Manifest

    def file(self, name: str) -> Path:
        return self.directory / name

    @property
    def first_artifact(self) -> Path:
        return self.file(self.manifest.artifacts[0].file)


def files_of(contents: Mapping[str, bytes]) -> dict[str, File]:
    """The manifest's entries for `contents`, path to bytes."""
    return {path: File(manifests.digest_of(data), len(data)) for path, data in contents.items()}


def npy(array: npt.NDArray[np.generic]) -> bytes:
    """`array` in NumPy's .npy format, C order, version 1.0: the same array always has the same bytes."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def pack(
    directory: Path, manifest: Manifest, contents: Mapping[str, bytes], measurements: Measurements | None = None
) -> Packed:
    """Writes the bundle to `directory`, in place of the one that was there, with its `measurements` beside its files.

    Raises CompileError when `contents` are not exactly what the manifest names or cannot be written, and as
    `check_place` does; FoothillError `bad_bundle` when the manifest breaks its own rules.
    """
    check_place(directory)
    manifests.check(manifest)
    if manifest.files != files_of(contents):
        raise CompileError(f"{manifest.reference}: the manifest does not name the files it is packed with.")
    try:
        attached = {manifests.MEASUREMENTS_FILE: _encoded(measurements)} if measurements is not None else {}
        _write(directory, {**contents, manifests.FILE: manifests.encode(manifest), **attached})
    except OSError as error:
        raise CompileError(f"{directory} cannot be written: {error}. Free space, or name another directory.") from error
    return Packed(directory, manifests.digest(manifest), manifest)


def check_place(directory: Path) -> None:
    """Raises CompileError where something else than a bundle has its name: that is somebody's, and stays."""
    try:
        holds = sorted(path.name for path in directory.iterdir()) if directory.exists() else []
    except OSError as error:
        raise CompileError(f"{directory} is no directory ({error.strerror}). Name another with --out.") from error
    if holds and manifests.FILE not in holds:
        raise CompileError(
            f"{directory} holds {', '.join(holds[:3])}, and no bundle that could be replaced. Move it away, or name "
            "another directory with --out."
        )


def attach(packed: Packed, measurements: Measurements) -> None:
    """Writes measurements.json beside the bundle's files; the address does not change."""
    packed.file(manifests.MEASUREMENTS_FILE).write_bytes(_encoded(measurements))


def read(directory: Path) -> Packed:
    """Opens a packed bundle and checks every byte of it. Raises CompileError or FoothillError `bad_bundle`."""
    try:
        data = (directory / manifests.FILE).read_bytes()
        manifest = manifests.decode(data)
        contents = {path: (directory / path).read_bytes() for path in manifest.files}
    except OSError as error:
        raise CompileError(f"{directory} is no packed bundle: {error}.") from error
    if manifest.files != files_of(contents) or data != manifests.encode(manifest):
        raise CompileError(f"{directory} was changed after it was packed. Compile it again.")
    return Packed(directory, manifests.digest_of(data), manifest)


def read_measurements(packed: Packed) -> Measurements:
    """Raises CompileError when there are none."""
    path = packed.file(manifests.MEASUREMENTS_FILE)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Measurements)
    except (OSError, *UNREADABLE) as error:
        raise CompileError(f"{path} holds no measurements: {error}. Compile the bundle again.") from error


def _encoded(measurements: Measurements) -> bytes:
    return msgspec.json.format(msgspec.json.encode(measurements, order="sorted"), indent=2) + b"\n"


def _write(directory: Path, contents: Mapping[str, bytes]) -> None:
    """All files beside `directory` first: a half-written bundle never has its name, and one that was there stays until
    the new one is whole."""
    new, old = (directory.with_name(f".{directory.name}.{which}") for which in ("new", "old"))
    with alone(directory.with_name(f".{directory.name}.lock")):
        try:
            shutil.rmtree(new, ignore_errors=True)
            for path, data in contents.items():
                target = new / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
            if old.exists() and not directory.exists():
                old.rename(directory)  # a run was killed between the two renames below
            shutil.rmtree(old, ignore_errors=True)
            if directory.is_dir():
                directory.rename(old)
            new.rename(directory)
        finally:
            for left in (new, old):
                shutil.rmtree(left, ignore_errors=True)
