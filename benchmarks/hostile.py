"""A network that int8 hurts: ONNX Runtime's stock quantization, NNCF's default, and this compiler's, side by side."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks import cifar10
from benchmarks.nets import hostile
from benchmarks.trained import ENDS, trained
from model_compiler.bootstrap import paired_difference
from model_compiler.data.samples import Data, Floats, first
from model_compiler.learning.train import Schedule
from model_compiler.pipeline import compile_bundle, report_of
from model_compiler.plan import CPU_INT8_FILE, Budget, OnnxFile, Plan, Quantizing, artifacts_for
from model_compiler.quantizing.prepare import prepare
from model_compiler.quantizing.timing import medians_ms
from model_compiler.replay import outputs_of
from model_compiler.reporting import findings
from model_compiler.reporting.report import JSON_FILE, read_report
from model_compiler.stages import Stages

SCHEDULE = Schedule(epochs=3, peak=6e-3, weight_decay=0.02)
FLOAT, STOCK, NNCF, INT8, MIXED = "fp32", "ONNX Runtime, stock", "NNCF, default", "all in int8", "mixed precision"
_MAY_LOSE = 0.2
_RANGED = 512
_PEER = Path(__file__).with_name("nncf_peer.py")


class Result(msgspec.Struct, frozen=True):
    """One file of one seed. `right`: (n,) bool on the test pictures; `latency_ms`: in turns with the other files."""

    seed: int
    method: str
    right: npt.NDArray[np.bool_]
    bytes: int
    latency_ms: float
    how: str

    def __str__(self) -> str:
        return f"seed {self.seed}, {self.method}: {self.right.mean():.2%}, {self.bytes} bytes, {self.how}"


class Row(msgspec.Struct, frozen=True):
    """One method over all seeds; points lost against fp32, the mean over the seeds with the paired bootstrap's 95 %
    interval over test pictures.
    """

    method: str
    accuracy: str
    points_lost: str
    each_seed: str
    kilobytes: str
    latency_over_fp32: str


def measure(
    cache: Path, seeds: Sequence[int], *, nncf: Path | None, told: Callable[[object], None] = print
) -> list[Result]:
    """`nncf`: the Python of an environment that has NNCF; None leaves it out."""
    whole, _ = cifar10.load(cache)
    # Nothing is certified here: the larger part judges.
    data = msgspec.structs.replace(whole, validation=whole.threshold, threshold=whole.validation)
    results = []
    for seed in seeds:
        fp32 = trained("hostile", hostile, data.train, SCHEDULE, seed=seed, cache=cache / "hostile")
        with TemporaryDirectory() as work:
            for result in _seed(seed, fp32, data, nncf, Path(work)):
                results.append(result)
                told(result)
    return results


def rows(results: Sequence[Result]) -> list[Row]:
    methods = list(dict.fromkeys(result.method for result in results))
    return [_row([each for each in results if each.method == method], results) for method in methods]


def _seed(seed: int, fp32: Path, data: Data, nncf: Path | None, work: Path) -> Iterator[Result]:
    prepared = work / "prepared.onnx"
    prepare(fp32, prepared)
    files, notes = {FLOAT: prepared, STOCK: work / "stock.onnx"}, {FLOAT: "", STOCK: ""}
    inputs = first(data.ranges, _RANGED)
    _stock(prepared, files[STOCK], inputs)
    if nncf is not None:
        files[NNCF] = work / "nncf.onnx"
        notes[NNCF] = "NNCF " + _peer(nncf, prepared, files[NNCF], inputs, work)
    files[INT8], notes[INT8] = _ours(fp32, data, work, fall_back=False)
    files[MIXED], notes[MIXED] = _ours(fp32, data, work, fall_back=True)
    taken = medians_ms(files, first(data.test, 64), ENDS, rounds=200)
    for name, file in files.items():
        right = outputs_of(file, data.test, ENDS).argmax(axis=1) == data.test.labels
        yield Result(seed, name, right, file.stat().st_size, taken[name], notes[name])


def _ours(fp32: Path, data: Data, work: Path, *, fall_back: bool) -> tuple[Path, str]:
    """The compiler's int8 file of the ONNX file, without any training, and how it came about."""
    plan = Plan(
        name="hostile",
        version="1",
        model="hostile",
        task="classification",
        tier="edge",
        data=data,
        artifacts=artifacts_for(("cpu-x86",), ("int8", "fp32")),
        how="the test pictures of CIFAR-10",
        student=OnnxFile(fp32),
        quantizing=Quantizing(fall_back=fall_back),
        budget=Budget(_MAY_LOSE),
        ends=ENDS,
    )
    packed = compile_bundle(plan, work / "bundle", stages=Stages(work / "stages"))
    found = read_report(report_of(packed.directory) / JSON_FILE).findings.quantizing
    assert isinstance(found, findings.Quantizing)
    file = work / f"int8-{fall_back}.onnx"
    file.write_bytes(packed.file(CPU_INT8_FILE).read_bytes())
    best = found.calibrations[0]
    told = found.fallback.told if isinstance(found.fallback, findings.Fallback) else "no layer in float"
    return file, f"{', '.join((best.method, *best.steps))}; {told}"


def _stock(fp32: Path, out: Path, inputs: Floats) -> None:
    """onnxruntime.quantization as its documentation shows it: preprocessed, every option at its default."""
    from onnxruntime.quantization import quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = out.with_suffix(".prepared")
    with _quiet():
        quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
        quantize_static(str(prepared), str(out), _Reader(inputs))


class _Reader:
    """A calibration data reader, as ONNX Runtime knows one by its `get_next`."""

    def __init__(self, inputs: Floats) -> None:
        self._left = [{ENDS.input: inputs[start : start + 64]} for start in range(0, len(inputs), 64)][::-1]

    def get_next(self) -> dict[str, Floats] | None:
        return self._left.pop() if self._left else None


@contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime logs a hint per tensor, from Python and from C++."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _peer(python: Path, fp32: Path, out: Path, inputs: Floats, work: Path) -> str:
    """Quantizes in the peer's own environment; its version."""
    np.save(work / "inputs.npy", inputs)
    command = [str(python), str(_PEER), str(fp32), str(work / "inputs.npy"), str(out)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]


def _row(own: Sequence[Result], results: Sequence[Result]) -> Row:
    floats = {each.seed: each for each in results if each.method == FLOAT}
    base = np.mean([floats[each.seed].right for each in own], axis=0)
    right = np.mean([each.right for each in own], axis=0)
    lost = paired_difference(100 * base, 100 * right, seed=0, largest=100.0)
    by_seed = [100 * float(floats[each.seed].right.mean() - each.right.mean()) for each in own]
    ratios = [each.latency_ms / floats[each.seed].latency_ms for each in own]
    return Row(
        own[0].method,
        f"{100 * right.mean():.2f} %",
        f"{lost.mean:.2f} ({lost.low:.2f} to {lost.high:.2f})",
        ", ".join(f"{each:.2f}" for each in by_seed),
        f"{np.mean([each.bytes for each in own]) / 1000:.0f}",
        f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
    )
