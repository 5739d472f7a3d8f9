"""CIFAR-10 from a folder of pictures, and small networks trained on it: once per seed, kept as ONNX files."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from torch import nn

from contracts.manifest import Preprocess
from model_compiler.data.folder import read_folder
from model_compiler.data.samples import Rows, Samples, first
from model_compiler.export import export_onnx
from model_compiler.learning.augment import Augment
from model_compiler.learning.train import Schedule, seeded, train
from model_compiler.quantizing.prepare import prepare
from model_compiler.replay import Ends

ENDS = Ends("image", ("logits",))
_PREPROCESS = Preprocess(
    width=32, height=32, colour="rgb", scale=1 / 255, mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616)
)
_VALIDATION, _RANGES, _TRAIN = 5_000, 512, 36_000


class Cifar(msgspec.Struct, frozen=True):
    """`train`: as many as leave a training of three epochs within four minutes; `ranges` are some of them.

    `test` is CIFAR-10's own test split, which nothing else touches.
    """

    train: Samples
    ranges: Samples
    validation: Samples
    test: Samples


class Trained(msgspec.Struct, frozen=True):
    """`cpu_s`: what training took, when it was run."""

    file: Path
    cpu_s: float


def read(pictures: Path, cache: Path) -> Cifar:
    """`pictures`: a folder with `train` and `test`, in each a folder of JPEGs per class."""
    trained, test = (read_folder(pictures / part, _PREPROCESS, cache).samples for part in ("train", "test"))
    order = np.random.default_rng(0).permutation(len(trained))
    rest = np.sort(order[_VALIDATION : _VALIDATION + _TRAIN])
    return Cifar(
        train=Rows(trained, rest),
        ranges=Rows(trained, rest[:: len(rest) // _RANGES][:_RANGES]),
        validation=Rows(trained, np.sort(order[:_VALIDATION])),
        test=test,
    )


def trained(
    name: str, build: Callable[[], nn.Module], data: Cifar, schedule: Schedule, *, seed: int, cache: Path
) -> Trained:
    """The prepared float model of `build` after `schedule`; from `cache` where it was made before."""
    with seeded(seed):
        net = build()
    key = _key(net, schedule, seed, len(data.train))
    file, told = cache / f"{name}-{seed}-{key}.onnx", cache / f"{name}-{seed}-{key}.json"
    if not told.exists():
        cache.mkdir(parents=True, exist_ok=True)
        started_s = time.process_time()
        train(net, data.train, schedule, seed=seed, augment=Augment(flip=True, shift=3, views=0))
        cpu_s = time.process_time() - started_s
        exported = file.with_suffix(".exported")
        export_onnx(net, first(data.train, 2), exported, ENDS)
        prepare(exported, file)
        exported.unlink()
        told.write_bytes(msgspec.json.encode(cpu_s))
    return Trained(file, msgspec.json.decode(told.read_bytes(), type=float))


def _key(net: nn.Module, schedule: Schedule, seed: int, rows: int) -> str:
    """Of the network as it is before training, its weights included, and of what training it depends on."""
    sha256 = hashlib.sha256(msgspec.json.encode([repr(net), schedule, seed, rows]))
    for name, values in net.state_dict().items():
        sha256.update(name.encode() + values.numpy().tobytes())
    return sha256.hexdigest()[:12]
