"""One bundle in memory: the artifact for this machine's target, its engine, and what turns bytes into answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from contracts import manifest as manifests
from contracts.engines import engine_artifact
from contracts.errors import FoothillError
from contracts.manifest import Artifact, File, Manifest, Preprocess
from runtime.serving.batching.service_times import ServiceTimes
from runtime.serving.engines import providers
from runtime.serving.engines.engine import Engine, Interruptible
from runtime.serving.engines.kept_graph import WORTH_BYTES, KeptGraph
from runtime.serving.engines.onnx_engine import OnnxEngine, write_optimized
from runtime.serving.engines.opening import Opening
from runtime.serving.engines.provider_cache import room_for
from runtime.serving.engines.providers import COMPILERS, Placement, Plan, Wish
from runtime.serving.engines.store import digest_of_file
from runtime.serving.engines.tensors import NUMPY, Array
from runtime.serving.models import postprocess
from runtime.serving.models.postprocess import Reading, Readings
from runtime.serving.pictures.preprocess import Preprocessor


class LoadedModel:
    """A verified bundle, ready to run. Whoever opened it closes it, after the last run.

    `times` is what its runs take: nothing is known of it before a warm-up or the first runs. `asked` is the provider
    that was to run it, "" where the engine has no choice; `placement` tells what each provider runs. `opening` is what
    opening it took, None where nobody has measured it; `kept` the graph that runs in the artifact's place, on trial
    until it has answered right.
    """

    def __init__(
        self,
        directory: Path,
        digest: str,
        manifest: Manifest,
        artifact: Artifact,
        engine: Engine,
        target: str,
        *,
        asked: str = "",
        placement: Placement | None = None,
        kept: KeptGraph | None = None,
    ) -> None:
        self.directory = directory
        self.digest = digest
        self.manifest = manifest
        self.artifact = artifact
        self.engine = engine
        self.target = target
        self.asked = asked
        self.placement = placement or Placement()
        self.stratum = artifact.confidence.stratum if artifact.confidence is not None else ""
        raw = manifest.inputs[0].datatype == "UINT8"
        self.preprocessor = Preprocessor(manifest.preprocess, raw=raw) if manifest.preprocess is not None else None
        self.opening: Opening | None = None
        self.kept = kept
        self.times = ServiceTimes(manifest.max_batch if self.batches else 1)

    @classmethod
    def open(cls, directory: Path, digest: str, *, target: str, threads: int, wish: Wish | None = None) -> LoadedModel:
        """Loads a verified bundle directory; blocks for as long as the runtime takes.

        Raises FoothillError `bad_bundle` when the directory is not the bundle `digest`, has nothing for `target`, does
        not load, or would not be run by the provider of the `wish`.
        """
        wish = wish or Wish()
        manifest = _read_manifest(directory, digest)
        opened = cls._open(directory, digest, manifest, target, threads, wish)
        if opened.fell_back and opened.artifact.runtime == "tensorrt":
            # Where something else runs it, TensorRT's artifact is slow and its rounding another.
            opened.close()
            asked, otherwise = opened.asked, msgspec.structs.replace(wish, provider="auto")
            opened = cls._open(directory, digest, manifest, target, threads, otherwise)
            opened.asked = asked
        return opened

    @classmethod
    def _open(
        cls, directory: Path, digest: str, manifest: Manifest, target: str, threads: int, wish: Wish
    ) -> LoadedModel:
        artifact = pick_artifact(manifest, target, wish)
        _check_servable(manifest)
        file = manifest.files[artifact.file]
        cache = room_for(wish.cache, file.sha256) if wish.cache is not None and _keeps(wish, target, file) else None
        plan = providers.plan(wish, target, manifest, artifact, threads=threads, cache=cache)
        engine, kept = _engine(directory / artifact.file, file, plan, threads, cache, wish.reserve_bytes)
        opened = cls(
            directory,
            digest,
            manifest,
            artifact,
            engine,
            target,
            asked=plan.asked,
            placement=engine.placement,
            kept=kept,
        )
        try:
            engine.check(manifest.inputs, manifest.outputs)
        except FoothillError:
            opened.close()
            raise
        return opened

    @property
    def fell_back(self) -> bool:
        """Whether another provider does the work than the one asked for."""
        return self.asked not in ("", self.engine.provider)

    @property
    def batches(self) -> bool:
        """Whether requests may share a run: every tensor starts with a free batch dimension."""
        return all(spec.shape[:1] == (-1,) for spec in (*self.manifest.inputs, *self.manifest.outputs))

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self.engine.run(inputs)

    def interrupt(self, thread: int) -> None:
        """Gives up the run under way in that thread, where the engine can. From any other thread."""
        if isinstance(self.engine, Interruptible):
            self.engine.interrupt(thread)

    def read(self, outputs: Mapping[str, Array]) -> Reading:
        """Confidence and comparable answer of the outputs, under this artifact's own rule."""
        return postprocess.read(outputs, self.manifest, self.artifact)

    def read_each(self, outputs: Mapping[str, Array], ends: Sequence[int]) -> Readings:
        """As `read`, for each of the requests whose rows end at `ends`; without any, for one alone."""
        return postprocess.read_each(outputs, ends, self.manifest, self.artifact)

    def close(self) -> None:
        self.engine.close()
        if self.kept is not None:
            self.kept.end_trial()


def pick_artifact(manifest: Manifest, target: str, wish: Wish | None = None) -> Artifact:
    """The first artifact, in the manifest's order, that names `target` and that ONNX Runtime runs; for its TensorRT
    provider the one that engines are built from, where there is one.

    Raises FoothillError `bad_bundle` naming the targets there are.
    """
    if wish is not None and wish.provider == "tensorrt" and (built := engine_artifact(manifest, target)) is not None:
        return built
    for artifact in manifest.artifacts:
        if artifact.runtime == "onnxruntime" and target in artifact.targets:
            return artifact
    known = sorted({target for artifact in manifest.artifacts for target in artifact.targets})
    raise FoothillError(
        "bad_bundle",
        f"Bundle {manifest.reference} has no ONNX Runtime artifact for {target}; it has some for {', '.join(known)}. "
        f"Compile it for this target, or set the right one here.",
    )


def _keeps(wish: Wish, target: str, file: File) -> bool:
    """Whether anything of such an artifact is kept for the next start."""
    choice = providers.choice_for(wish.provider, target)
    return choice in COMPILERS or (choice == "cpu" and file.bytes >= WORTH_BYTES)


def _engine(
    path: Path, file: File, plan: Plan, threads: int, cache: Path | None, reserve_bytes: int
) -> tuple[OnnxEngine, KeptGraph | None]:
    """The graph that is kept of an artifact, where the CPU runs it; else the artifact, every byte of it checked."""

    def checked() -> Path:
        if not path.is_file() or path.stat().st_size != file.bytes or digest_of_file(path) != file.sha256:
            raise FoothillError("bad_bundle", f"{path} changed on disk. Remove the bundle and fetch it again.")
        return path

    kept = KeptGraph(cache, path, reserve_bytes=reserve_bytes) if cache is not None and plan.on_cpu_alone else None
    graph = kept.ready(lambda directory: write_optimized(checked(), threads, directory)) if kept is not None else None
    if kept is not None and graph is not None:
        try:
            return OnnxEngine(graph, plan=plan, threads=threads, literal=True), kept
        except FoothillError as error:
            kept.refuse(error.message)
    return OnnxEngine(checked(), plan=plan, threads=threads), None


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
    """Preprocessing makes one tensor of floats, or of pixels: the model must take just that."""
    spec, channels = manifest.inputs[0], len(pre.mean)
    wanted = (1, pre.height, pre.width, channels) if pre.layout == "nhwc" else (1, channels, pre.height, pre.width)
    fits = len(spec.shape) == 4 and all(size in (-1, want) for size, want in zip(spec.shape, wanted, strict=True))
    if len(manifest.inputs) != 1 or spec.datatype not in ("FP32", "UINT8") or not fits:
        raise FoothillError(
            "bad_bundle",
            f"Bundle {manifest.reference}: preprocess gives FP32 or UINT8 {list(wanted)}, but the model's input is "
            f"{spec.datatype} {list(spec.shape)}. Compile it again.",
        )
