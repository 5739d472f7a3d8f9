"""CIFAR-10 for the compiler's benchmarks: the pictures, their parts, a teacher that is trained once and kept."""

from __future__ import annotations

import os
import tarfile
import time
from pathlib import Path

import msgspec
import numpy as np

from contracts.manifest import Preprocess
from examples.cifar10 import nets
from model_compiler.data.folder import read_folder
from model_compiler.data.samples import Data, Rows
from model_compiler.errors import CompileError
from model_compiler.learning.augment import Augment
from model_compiler.learning.train import Schedule, seeded, train

PREPROCESS = Preprocess(
    width=32,
    height=32,
    colour="rgb",
    scale=1 / 255,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.247, 0.2435, 0.2616),
)
WIDTH = 48
SCHEDULE = Schedule(epochs=7, peak=4e-3, weight_decay=0.02)
AUGMENT = Augment(flip=True, shift=4, views=0)
_ARCHIVE = "data/cifar10_jpeg.tar.gz"
_SPLIT_SEED = 0
_EDGES = (40_000, 43_000, 44_000, 45_000)
"""Of the shuffled training pictures: they train, choose, calibrate int8, fit the confidence maps; the last
5,000 certify the threshold. The test pictures measure and do nothing else."""


class Taught(msgspec.Struct, frozen=True):
    """The teacher's weights, and what they cost."""

    weights: Path
    cpu_minutes: float


def load(cache: Path) -> tuple[Data, tuple[str, ...]]:
    """The parts, and the labels. `cache` keeps the unpacked archive and the decoded pictures."""
    folder = unpacked(cache)
    train, labels = read_folder(folder / "train", PREPROCESS, cache / "pictures")
    test, _ = read_folder(folder / "test", PREPROCESS, cache / "pictures")
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(train))
    parts = [Rows(train, np.sort(rows)) for rows in np.split(order, _EDGES)]
    learning, validation, ranges, fit, threshold = parts
    return Data(learning, ranges, validation, fit, threshold, test), labels


def teacher(cache: Path, data: Data) -> Taught:
    """Trained the first time, within an hour of one core; kept in `cache` afterwards."""
    from safetensors.torch import save_file

    weights = cache / f"cifar10-teacher-{WIDTH}-{SCHEDULE.epochs}.safetensors"
    told = weights.with_suffix(".cpu")
    if not weights.exists():
        start = time.process_time()
        with seeded(0):
            net = nets.teacher(WIDTH)
        train(net, data.train, SCHEDULE, seed=0, augment=AUGMENT)
        save_file({name: values.contiguous() for name, values in net.state_dict().items()}, weights)
        told.write_text(f"{(time.process_time() - start) / 60:.1f}")
    return Taught(weights, float(told.read_text()))


def assets() -> Path:
    """The folder that FOOTHILL_ASSETS names. Raises CompileError when it names none."""
    folder = Path(os.environ.get("FOOTHILL_ASSETS", ""))
    if not (folder / _ARCHIVE).is_file():
        raise CompileError(f"FOOTHILL_ASSETS must name the folder that has {_ARCHIVE}.")
    return folder


def unpacked(cache: Path) -> Path:
    """The archive's folders `train` and `test`, in each a folder a class."""
    folder = cache / "cifar10"
    if not folder.exists():
        partial = folder.with_suffix(".part")
        with tarfile.open(assets() / _ARCHIVE) as file:
            file.extractall(partial, filter="data")
        partial.replace(folder)
    return folder
