"""Small networks trained on CIFAR-10: once per seed, kept as ONNX files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
from torch import nn

from model_compiler.data.samples import Samples, first
from model_compiler.export import export_onnx
from model_compiler.learning.augment import Augment
from model_compiler.learning.train import Schedule, seeded, train
from model_compiler.replay import Ends

ENDS = Ends("image", ("logits",))
_AUGMENT = Augment(flip=True, shift=3, views=0)


def trained(
    name: str, build: Callable[[], nn.Module], samples: Samples, schedule: Schedule, *, seed: int, cache: Path
) -> Path:
    """The float model of `build` after `schedule`; from `cache` where it was made before."""
    with seeded(seed):
        net = build()
    file = cache / f"{name}-{seed}-{_key(net, samples, schedule)}.onnx"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        train(net, samples, schedule, seed=seed, augment=_AUGMENT)
        partial = file.with_suffix(".part")
        export_onnx(net, first(samples, 2), partial, ENDS)
        partial.replace(file)
    return file


def _key(net: nn.Module, samples: Samples, schedule: Schedule) -> str:
    """Of the network as it is before training, its weights included, and of what training it depends on."""
    told = [repr(net), samples.digest(), msgspec.structs.asdict(schedule), msgspec.structs.asdict(_AUGMENT)]
    sha256 = hashlib.sha256(msgspec.json.encode(told))
    for tensor, values in net.state_dict().items():
        sha256.update(tensor.encode() + values.numpy().tobytes())
    return sha256.hexdigest()[:12]
