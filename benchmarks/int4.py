"""Weights of four bits: how much smaller, how noisy, and what the task loses, on a model that is mostly MatMul.

`python -m benchmarks.int4 [--seeds 5]`
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import torch
import typer
from torch import Tensor, nn

from benchmarks.report import table
from model_compiler.bootstrap import paired_difference
from model_compiler.data.samples import Data, first
from model_compiler.digits import recipe, splits
from model_compiler.export import export_onnx
from model_compiler.learning.train import Schedule, seeded, train
from model_compiler.quantizing.int4 import quantize_int4
from model_compiler.replay import Ends, outputs_of

ENDS = Ends("image", ("logits",))
BLOCKS = (32, 64, 128)
_PATCH, _SIDE, _WIDTH, _DEPTH = 4, 32, 128, 4
_SCHEDULE = Schedule(epochs=4, peak=2e-3)
_TEST_DRAWS = 12


class Row(msgspec.Struct, frozen=True):
    """One seed at one block size. Bytes of the quantized weights, scales counted, and of the whole file; the weights'
    signal to noise; accuracy in float, and the points won (lost: below 0) with their 95 % interval."""

    seed: int
    block: int
    layers: int
    weights_smaller_percent: float
    file_smaller_percent: float
    weights_db: float
    float_percent: float
    points: str


class Mixer(nn.Module):
    """MLP-Mixer (Tolstikhin et al. 2021): fully connected layers over patches, then over channels, by turns."""

    def __init__(self) -> None:
        super().__init__()
        patches = (_SIDE // _PATCH) ** 2
        self.embed = nn.Linear(_PATCH * _PATCH, _WIDTH)
        self.blocks = nn.ModuleList(_Block(patches, _WIDTH) for _ in range(_DEPTH))
        self.head = nn.Sequential(nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, 10))

    def forward(self, inputs: Tensor) -> Tensor:
        rows = inputs.unfold(2, _PATCH, _PATCH).unfold(3, _PATCH, _PATCH).flatten(4).flatten(2, 3).squeeze(1)
        tokens = self.embed(rows)
        for block in self.blocks:
            tokens = block(tokens)
        answer: Tensor = self.head(tokens.mean(dim=1))
        return answer


class _Block(nn.Module):
    def __init__(self, patches: int, width: int) -> None:
        super().__init__()
        self.across = nn.Sequential(nn.Linear(patches, 2 * patches), nn.GELU(), nn.Linear(2 * patches, patches))
        self.within = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.across(self.before(tokens).transpose(1, 2)).transpose(1, 2)
        outputs: Tensor = tokens + self.within(self.between(tokens))
        return outputs


def measure(seeds: Sequence[int]) -> list[Row]:
    """Trains a mixer per seed on camera frames of digits, and quantizes it at every block size."""
    profile = msgspec.structs.replace(recipe.FULL, train_draws=4, test_draws=_TEST_DRAWS)
    data = recipe.camera_data(splits.split(splits.load()), profile)
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for seed in seeds:
            fp32 = _trained(data, seed, Path(work))
            rows += [_row(fp32, data, seed, block, Path(work) / "int4.onnx") for block in BLOCKS]
    return rows


def _trained(data: Data, seed: int, work: Path) -> Path:
    with seeded(seed):
        net = Mixer()
    train(net, data.train, _SCHEDULE, seed=seed)
    export_onnx(net, first(data.train, 2), work / "fp32.onnx", ENDS)
    return work / "fp32.onnx"


def _row(fp32: Path, data: Data, seed: int, block: int, out: Path) -> Row:
    result = quantize_int4(fp32, out, block=block)
    before, after = (outputs_of(path, data.test, ENDS).argmax(axis=1) == data.test.labels for path in (fp32, out))
    lost = paired_difference(after, before, seed=seed)
    return Row(
        seed=seed,
        block=block,
        layers=len(result.nodes),
        weights_smaller_percent=round(100 * result.share_smaller, 2),
        file_smaller_percent=round(100 * (1 - out.stat().st_size / fp32.stat().st_size), 2),
        weights_db=round(result.sqnr_db, 1),
        float_percent=round(100 * float(before.mean()), 2),
        points=f"{100 * lost.mean:+.2f} ({100 * lost.low:+.2f} to {100 * lost.high:+.2f})",
    )


def main(seeds: Annotated[int, typer.Option(help="How many networks to train.", min=1)] = 5) -> None:
    """Prints a row for every seed and block size."""
    torch.set_num_threads(1)
    print(table(measure(range(seeds))))


if __name__ == "__main__":
    typer.run(main)
