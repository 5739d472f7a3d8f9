"""What the protocol's metadata routes say of a server and of a served model."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import Any

from contracts import oip
from contracts.manifest import TensorSpec
from runtime.serving.models.hosting import ModelHost, Served

SERVER = "foothill"
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "schedule_policy",
    "statistics",
)
PLATFORM = "onnxruntime_onnx"
READY = "READY"
UNAVAILABLE = "UNAVAILABLE"


def server() -> oip.ServerMetadata:
    return oip.ServerMetadata(SERVER, version(), EXTENSIONS)


def version() -> str:
    """The installed package's version; a source tree that is not installed has none."""
    try:
        return metadata.version("foothill")
    except metadata.PackageNotFoundError:
        return "0+source"


def model(served: Served) -> oip.ModelMetadata:
    manifest = served.loaded.manifest
    return oip.ModelMetadata(
        name=manifest.model,
        versions=(manifest.version,),
        platform=PLATFORM,
        inputs=_tensors(manifest.inputs),
        outputs=_tensors(manifest.outputs),
    )


def config(served: Served) -> dict[str, Any]:
    """Triton's model configuration; with a batch, `dims` leave it out and `max_batch_size` bounds it.

    https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_configuration.md
    """
    loaded = served.loaded
    manifest = loaded.manifest
    return {
        "name": manifest.model,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "version_policy": {"specific": {"versions": [manifest.version]}},
        "max_batch_size": manifest.max_batch if loaded.batches else 0,
        "input": [_config_tensor(spec, batched=loaded.batches) for spec in manifest.inputs],
        "output": [_config_tensor(spec, batched=loaded.batches) for spec in manifest.outputs],
        "default_model_filename": loaded.artifact.file,
        "parameters": {
            "bundle": {"string_value": manifest.reference},
            "digest": {"string_value": loaded.digest},
            "provider": {"string_value": loaded.engine.provider},
            "placement": {"string_value": loaded.placement.told},
        },
    }


def index(host: ModelHost, *, only_ready: bool) -> list[oip.IndexEntry]:
    """Every model that is served, expected or unloaded, by name."""
    served = [
        oip.IndexEntry(name, one.loaded.manifest.version, READY, _fallen_back(one)) for name, one in host.models.items()
    ]
    missing = set() if only_ready else {*host.missing, *host.unloaded}
    waiting = [oip.IndexEntry(name, "", UNAVAILABLE, _why_missing(host, name)) for name in missing]
    return sorted(served + waiting, key=lambda entry: entry.name)


def _why_missing(host: ModelHost, model: str) -> str:
    if model in host.unloaded:
        return "unloaded"
    away = host.away.get(model)
    return away.why if away is not None else "not loaded yet"


def _fallen_back(served: Served) -> str:
    loaded = served.loaded
    return f"run by {loaded.engine.provider}, not by {loaded.asked} as asked" if loaded.fell_back else ""


def _tensors(specs: Sequence[TensorSpec]) -> tuple[oip.TensorMetadata, ...]:
    return tuple(oip.TensorMetadata(spec.name, spec.datatype, spec.shape) for spec in specs)


def _config_tensor(spec: TensorSpec, *, batched: bool) -> dict[str, Any]:
    datatype = "STRING" if spec.datatype == oip.BYTES else spec.datatype
    return {"name": spec.name, "data_type": f"TYPE_{datatype}", "dims": list(spec.shape[1:] if batched else spec.shape)}
