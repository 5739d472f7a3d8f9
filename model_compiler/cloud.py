"""The cloud bundle that an edge bundle is certified against, as one of the compilation's models."""

from __future__ import annotations

from pathlib import Path

from model_compiler.compilation import Compilation
from model_compiler.export import rename_ends
from model_compiler.onnx_ends import ends_of
from model_compiler.progress import Advance
from model_compiler.replay import Ends
from model_compiler.stages import file_digest

_FILE = "cloud.onnx"


def cloud_model(work: Compilation) -> Path | None:
    """Its first artifact, its tensors named as the plan names them; None where there is no cloud bundle, or one of a
    detector, which sees pictures of its own size.

    Raises CompileError for a bundle whose model does not fit into one input and the plan's outputs.
    """
    plan = work.plan
    if plan.cloud is None or plan.detector is not None:
        return None
    path, answers = plan.cloud.first_artifact, plan.cloud.manifest.postprocess.output
    given = ends_of(path)
    there = Ends(given.input, (answers, *(name for name in given.outputs if name != answers)), given.batch)
    if (there.input, there.outputs[: len(plan.ends.outputs)]) == (plan.ends.input, plan.ends.outputs):
        return path

    def produce(directory: Path, advance: Advance) -> None:
        rename_ends(path, directory / _FILE, there, plan.ends)

    told = {"onnx": file_digest(path), "names": [plan.ends.input, *plan.ends.outputs]}
    return work.stage("cloud", told, produce) / _FILE
