"""What a torch network scores on samples, as artifacts are scored by model_compiler.metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from model_compiler.data.samples import Floats, Samples, batches
from model_compiler.errors import CompileError
from model_compiler.learning.losses import UNLABELLED
from model_compiler.learning.train import channels_last, threads
from model_compiler.metrics import Metric, accuracy

if TYPE_CHECKING:
    import torch

    Judge = Callable[[torch.nn.Module], float]
    """A network -> its score as a share, higher is better; 0.01 is one point."""

OUTPUTS = ("logits",)
_BATCH = 256


def judge_by(samples: Samples, metric: Metric | None = None, outputs: tuple[str, ...] = OUTPUTS) -> Judge:
    """Scores networks by `metric` on `samples`; by accuracy where no metric is given, for which labels are needed."""
    if metric is None and not (np.asarray(samples.labels) != UNLABELLED).all():
        raise CompileError(
            "Accuracy needs a label for every validation sample, and some have none. Label them, or give a metric "
            "that needs none, such as top_label_agreement with the teacher's outputs."
        )
    chosen = metric or accuracy(outputs[0])
    return lambda net: chosen(outputs_by_name(net, samples, outputs), samples.labels)


def outputs_by_name(net: torch.nn.Module, samples: Samples, names: tuple[str, ...]) -> dict[str, Floats]:
    """Every output of `net` in eval mode for all `samples`, (n, ...) float32 each, run in batches on one thread.

    `net` may give one tensor, or several in a tuple or list (in the order of `names`) or in a mapping.
    """
    import torch

    with threads(1), evaluating(net), torch.inference_mode():
        runs = [_named(net(channels_last(torch.from_numpy(batch))), names) for batch in batches(samples, _BATCH)]
    return {name: np.concatenate([run[name] for run in runs]) for name in names}


@contextmanager
def evaluating(net: torch.nn.Module) -> Iterator[None]:
    """`net` in eval mode inside, each of its modules in its own mode after."""
    before = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


def _named(outputs: Any, names: tuple[str, ...]) -> dict[str, Floats]:
    import torch

    tensors = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    if not isinstance(tensors, Mapping):
        tensors = dict(zip(names, tensors, strict=False))
    missing = [name for name in names if name not in tensors]
    if missing:
        raise CompileError(f"The network gives no output {missing[0]!r}. Name as many outputs as it gives.")
    return {name: np.asarray(tensors[name].numpy(), np.float32) for name in names}
