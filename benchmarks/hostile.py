"""A network that int8 hurts: ONNX Runtime's stock quantization, NNCF's default, and this compiler's, side by side."""

from __future__ import annotations

import argparse
import logging
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.cifar import ENDS, Cifar, read, trained
from benchmarks.nets import hostile
from benchmarks.report import table
from model_compiler.bootstrap import paired_difference
from model_compiler.data.samples import Floats, Samples, first
from model_compiler.learning.train import Schedule
from model_compiler.metrics import accuracy
from model_compiler.quantizing.correct_bias import correct_bias
from model_compiler.quantizing.diagnose import Effort, Quantize, diagnose
from model_compiler.quantizing.equalize import equalize
from model_compiler.quantizing.fallback import Budget, Fallback, fall_back
from model_compiler.quantizing.int8 import quantize_cpu
from model_compiler.quantizing.judge import few
from model_compiler.quantizing.noise import answers_db
from model_compiler.quantizing.observe import Observations, observe
from model_compiler.quantizing.placement import Keep
from model_compiler.quantizing.ranges import METHODS, Table, table_of
from model_compiler.quantizing.timing import medians_ms
from model_compiler.replay import all_outputs_of, outputs_of

SCHEDULE = Schedule(epochs=3, peak=6e-3, weight_decay=0.02)
BUDGET = Budget(0.2)
FLOAT, STOCK, NNCF, INT8, MIXED = "fp32", "ONNX Runtime, stock", "NNCF, default", "all in int8", "mixed precision"
_METRIC = accuracy("logits")
_CHOSEN_ON = 512
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


class Form(msgspec.Struct, frozen=True):
    """One way of quantizing: of which float model, with which table, biases corrected or not."""

    name: str
    fp32: Path
    observations: Observations
    table: Table
    quantize: Quantize


def measure(
    seeds: Sequence[int], *, pictures: Path, cache: Path, nncf: Path | None, told: Callable[[object], None] = print
) -> list[Result]:
    """`nncf`: the Python of an environment that has NNCF; None leaves it out."""
    data = read(pictures, cache)
    results = []
    for seed in seeds:
        made = trained("hostile", hostile, data, SCHEDULE, seed=seed, cache=cache)
        with TemporaryDirectory() as work:
            for result in _seed(seed, made.file, data, nncf, Path(work)):
                results.append(result)
                told(result)
    return results


def rows(results: Sequence[Result]) -> list[Row]:
    methods = list(dict.fromkeys(result.method for result in results))
    return [_row([each for each in results if each.method == method], results) for method in methods]


def _seed(seed: int, fp32: Path, data: Cifar, nncf: Path | None, work: Path) -> Iterator[Result]:
    files = {FLOAT: fp32, STOCK: work / "stock.onnx", INT8: work / "int8.onnx", MIXED: work / "mixed.onnx"}
    notes = dict.fromkeys(files, "")
    inputs = first(data.ranges, len(data.ranges))
    _stock(fp32, files[STOCK], inputs)
    if nncf is not None:
        files[NNCF] = work / "nncf.onnx"
        notes[NNCF] = "NNCF " + _peer(nncf, fp32, files[NNCF], inputs, work)
    form = _chosen(fp32, data, work)
    form.quantize(form.fp32, files[INT8], form.table)
    notes[INT8] = form.name
    notes[MIXED] = _mixed(form, files[MIXED], data).told
    taken = medians_ms(files, first(data.test, 64), ENDS, rounds=200)
    for name, file in files.items():
        right = outputs_of(file, data.test, ENDS).argmax(axis=1) == data.test.labels
        yield Result(seed, name, right, file.stat().st_size, taken[name], notes[name])


def _chosen(fp32: Path, data: Cifar, work: Path) -> Form:
    """The form whose answers are nearest to the float model's on validation pictures."""
    some = few(data.validation, _CHOSEN_ON)
    wanted = all_outputs_of(fp32, some, ENDS)

    def nearness(form: Form) -> float:
        form.quantize(form.fp32, work / "trial.onnx", form.table)
        return answers_db(wanted, all_outputs_of(work / "trial.onnx", some, ENDS))

    return max(_forms(fp32, data, work), key=nearness)


def _forms(fp32: Path, data: Cifar, work: Path) -> Iterator[Form]:
    equalized = work / "equalized.onnx"
    models = {"": fp32, "equalized, ": equalized} if equalize(fp32, equalized) else {"": fp32}
    for prefix, model in models.items():
        observations = observe(model, data.ranges, ENDS)
        for method in METHODS:
            ranges = table_of(observations, method)
            yield Form(f"{prefix}{method}", model, observations, ranges, quantize_cpu)
            yield Form(f"{prefix}{method}, biases corrected", model, observations, ranges, _corrected(data.ranges))


def _corrected(samples: Samples) -> Quantize:
    def quantize(fp32: Path, out: Path, table: Table, *, keep: Mapping[str, Keep] | None = None) -> None:
        quantize_cpu(fp32, out, table, keep=keep or {})
        correct_bias(fp32, out, out, samples, ENDS)

    return quantize


def _mixed(form: Form, out: Path, data: Cifar) -> Fallback:
    form.quantize(form.fp32, out, form.table)
    judged = data.validation
    diagnosis = diagnose(
        form.fp32, out, form.observations, form.table, judged, ENDS, _METRIC, quantize=quantize_cpu, effort=Effort()
    )
    return fall_back(diagnosis, form.fp32, out, form.table, judged, ENDS, _METRIC, BUDGET, quantize=form.quantize)


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
    lost = paired_difference(100 * base, 100 * right, seed=0)
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


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, required=True, help="CIFAR-10: a folder with train and test")
    parser.add_argument(
        "--cache", type=Path, required=True, help="where trained networks and decoded pictures are kept"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--nncf", type=Path, help="the Python of an environment with NNCF")
    return parser.parse_args()


if __name__ == "__main__":
    asked = _arguments()
    print(table(rows(measure(range(asked.seeds), pictures=asked.pictures, cache=asked.cache, nncf=asked.nncf))))
