"""Bundles of the suite's own: the same model under another address, one whose golden test fails, one whose engine does.

They are made of manifests alone, or nearly so: the registry has the model's files already. The same bundle always
gives the same trials, so that a second run publishes nothing new.
"""

from __future__ import annotations

import io
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.manifest import (
    Artifact,
    File,
    Golden,
    Manifest,
    Postprocess,
    TensorSpec,
    digest_of,
)

PROBE_MODEL = "hil-probe"
PROBE_INPUT = "values"
PROBE_FILE = "probe.onnx"
"""Gives back two numbers as they are, and fails in the engine as soon as one is above 2: no fault of the caller's."""

PADDING_FILE = "hil-padding.bin"
_BROKEN_VERSION = "999"
_TRIAL = re.compile(r"hil-[0-9a-f]{24}")


class Trial(NamedTuple):
    """A bundle, and those of its contents, by digest, that a registry may lack."""

    manifest: Manifest
    contents: Mapping[str, bytes]


def twin(manifest: Manifest, digest: str, number: int, padding_bytes: int) -> Trial:
    """The same model as another bundle; the padding makes its fetch take a while."""
    padding = random.Random(number).randbytes(padding_bytes)
    file = File(digest_of(padding), len(padding))
    files = {**manifest.files, PADDING_FILE: file}
    named = msgspec.structs.replace(manifest, name=_name(digest), version=str(number), files=files)
    return Trial(named, {file.sha256: padding})


def broken(manifest: Manifest, digest: str, outputs: Mapping[str, bytes]) -> Trial:
    """The same model with golden outputs that no run of it gives. `outputs`: the golden output files by path."""
    wrong = {path: _spoilt(data) for path, data in outputs.items()}
    files = {**manifest.files, **{path: File(digest_of(data), len(data)) for path, data in wrong.items()}}
    named = msgspec.structs.replace(manifest, name=_name(digest), version=_BROKEN_VERSION, files=files)
    return Trial(named, {digest_of(data): data for data in wrong.values()})


def golden_output_files(manifest: Manifest) -> tuple[str, ...]:
    return tuple(sorted({path for outputs in manifest.golden.outputs.values() for path in outputs.values()}))


def probe(target: str) -> Trial:
    """A model of the suite's own, which passes its golden test and fails once it is asked for more."""
    rows = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    contents = {
        PROBE_FILE: Path(__file__).with_name(PROBE_FILE).read_bytes(),
        "golden/inputs/values.npy": _npy(rows),
        f"golden/{PROBE_FILE}/same.npy": _npy(rows),
    }
    manifest = Manifest(
        name=f"{PROBE_MODEL}-{target}"[:63],
        version="1",
        model=PROBE_MODEL,
        task="embedding",
        tier="edge",
        files={path: File(digest_of(data), len(data)) for path, data in contents.items()},
        artifacts=(Artifact(PROBE_FILE, "fp32", "onnxruntime", (target,)),),
        inputs=(TensorSpec(PROBE_INPUT, "FP32", (-1, 2)),),
        outputs=(TensorSpec("same", "FP32", (-1, 2)),),
        postprocess=Postprocess("same", "vector"),
        golden=Golden(
            {PROBE_INPUT: "golden/inputs/values.npy"},
            {PROBE_FILE: {"same": f"golden/{PROBE_FILE}/same.npy"}},
            atol=1e-3,
            rtol=1e-3,
        ),
        max_batch=4,
    )
    return Trial(manifest, {digest_of(data): data for data in contents.values()})


def is_trial(name: str) -> bool:
    """Whether a bundle's name is one that the suite gives."""
    return _TRIAL.fullmatch(name) is not None


def _name(digest: str) -> str:
    return f"hil-{digest.removeprefix('sha256:')[:24]}"


def _spoilt(data: bytes) -> bytes:
    """Another value everywhere, further off than any tolerance below one half allows."""
    values: npt.NDArray[Any] = np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
    if values.dtype.kind == "U":
        return _npy(np.char.add(values, "?"))
    if values.dtype == np.bool_:
        return _npy(~values)
    if np.issubdtype(values.dtype, np.integer):
        return _npy(values ^ np.asarray(0x55, values.dtype))
    far = np.finfo(values.dtype).max / 4 if values.dtype == np.float16 else 1000.0
    return _npy(np.where(values > 0, -far, far).astype(values.dtype))


def _npy(values: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()
