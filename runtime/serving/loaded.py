"""One bundle in memory: the artifact for this machine's target, its engine, and what turns bytes into answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from contracts import manifest as manifests
from contracts.errors import FoothillError
from contracts.manifest import Artifact, Manifest, Preprocess
from runtime.serving import postprocess
from runtime.serving.batching.service_times import ServiceTimes
from runtime.serving.engine import Engine, Interruptible
from runtime.serving.onnx_engine import OnnxEngine, provider_for
from runtime.serving.postprocess import Reading
from runtime.serving.preprocess import Preprocessor
from runtime.serving.tensors import NUMPY, Array


class LoadedModel:
    """A verified bundle, ready to run. Whoever opened it closes it, after the last run.

    `times` is what its runs take: nothing is known of it before a warm-up or the first runs.
    """

    def __init__(
        self, directory: Path, digest: str, manifest: Manifest, artifact: Artifact, engine: Engine, target: str
    ) -> None:
        self.directory = directory
        self.digest = digest
        self.manifest = manifest
        self.artifact = artifact
        self.engine = engine
        self.target = target
        self.stratum = artifact.confidence.stratum if artifact.confidence is not None else ""
        self.preprocessor = Preprocessor(manifest.preprocess) if manifest.preprocess is not None else None
        self.times = ServiceTimes(manifest.max_batch if self.batches else 1)

    @classmethod
    def open(cls, directory: Path, digest: str, *, target: str, threads: int) -> LoadedModel:
        """Loads a verified bundle directory; blocks for as long as the runtime takes.

        Raises FoothillError `bad_bundle` when the directory is not the bundle `digest`, has nothing for `target`, or
        does not load.
        """
        manifest = _read_manifest(directory, digest)
        artifact = pick_artifact(manifest, target)
        _check_servable(manifest)
        engine = OnnxEngine(directory / artifact.file, provider=provider_for(target), threads=threads)
        try:
            engine.check(manifest.inputs, manifest.outputs)
        except FoothillError:
            engine.close()
            raise
        return cls(directory, digest, manifest, artifact, engine, target)

    @property
    def batches(self) -> bool:
        """Whether requests may share a run: every tensor starts with a free batch dimension."""
        return all(spec.shape[:1] == (-1,) for spec in (*self.manifest.inputs, *self.manifest.outputs))

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self.engine.run(inputs)

    def interrupt(self) -> None:
        """Gives up the run under way, where the engine can. From any thread, while a run is under way."""
        if isinstance(self.engine, Interruptible):
            self.engine.interrupt()

    def read(self, outputs: Mapping[str, Array]) -> Reading:
        """Confidence and comparable answer of the outputs, under this artifact's own rule."""
        return postprocess.read(outputs, self.manifest, self.artifact)

    def close(self) -> None:
        self.engine.close()


def pick_artifact(manifest: Manifest, target: str) -> Artifact:
    """The first artifact, in the manifest's order, that names `target` and that ONNX Runtime runs.

    Raises FoothillError `bad_bundle` naming the targets there are.
    """
    for artifact in manifest.artifacts:
        if artifact.runtime == "onnxruntime" and target in artifact.targets:
            return artifact
    known = sorted({target for artifact in manifest.artifacts for target in artifact.targets})
    raise FoothillError(
        "bad_bundle",
        f"Bundle {manifest.reference} has no ONNX Runtime artifact for {target}; it has some for {', '.join(known)}. "
        f"Compile it for this target, or set the right one here.",
    )


def _read_manifest(directory: Path, digest: str) -> Manifest:
    try:
        data = (directory / manifests.FILE).read_bytes()
    except OSError as error:
        raise FoothillError("bad_bundle", f"{directory} is no bundle directory: {error.strerror}.") from error
    if manifests.digest_of(data) != digest:
        raise FoothillError("bad_bundle", f"{directory} holds another bundle than {digest}. Fetch it again.")
    return manifests.decode(data)


def _check_servable(manifest: Manifest) -> None:
    for spec in (*manifest.inputs, *manifest.outputs):
        if spec.datatype not in NUMPY:
            raise FoothillError(
                "bad_bundle",
                f"Bundle {manifest.reference}: tensor {spec.name} is {spec.datatype}; served are {', '.join(NUMPY)}.",
            )
    postprocess.check_head(manifest)
    if manifest.preprocess is not None:
        _check_picture_input(manifest, manifest.preprocess)


def _check_picture_input(manifest: Manifest, pre: Preprocess) -> None:
    """Preprocessing makes one float32 NCHW tensor: the model must take just that."""
    spec = manifest.inputs[0]
    wanted = (1, len(pre.mean), pre.height, pre.width)
    fits = len(spec.shape) == 4 and all(size in (-1, want) for size, want in zip(spec.shape, wanted, strict=True))
    if len(manifest.inputs) != 1 or spec.datatype != "FP32" or not fits:
        raise FoothillError(
            "bad_bundle",
            f"Bundle {manifest.reference}: preprocess gives FP32 {list(wanted)}, but the model's input is "
            f"{spec.datatype} {list(spec.shape)}. Compile it again.",
        )
