"""Quantization-aware training: a network learns to answer well with its numbers rounded to eight bits.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
arXiv:1712.05877: the forward pass rounds, the backward pass takes rounding for the identity within its range (Bengio et
al. 2013, arXiv:1308.3432). torchao's PT2E captures the network and puts the rounding in, where `qat_places` says and to
the levels that `qat_quantizer` names.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import msgspec

from model_compiler.data.samples import Floats, Numbers, Samples
from model_compiler.errors import CompileError
from model_compiler.learning.augment import PLAIN, Augment
from model_compiler.learning.losses import UNLABELLED, cross_entropy
from model_compiler.learning.train import Schedule, answer_of, run, seeded
from model_compiler.learning.ways import labels_of
from model_compiler.progress import Advance, unwatched

if TYPE_CHECKING:
    import torch

    from model_compiler.learning.qat_capture import Rounded
    from model_compiler.learning.train import Loss

Scheme = Literal["u8s8", "s8s8"]
"""Which int8 file the rounding is that of: ONNX Runtime's for CPUs, or TensorRT's."""

SETTLED = 0.5
"""The share of the training after which batch norms keep their statistics, as they do in the exported file."""


class QatResult(msgspec.Struct, frozen=True):
    """`net`: of the class that was given, in eval mode, its weights fit for rounding; float, to be exported as any.

    `ranges`: (low, high) of each rounded activation at the end, by the captured graph's names; 0 always lies within.
    """

    net: torch.nn.Module
    ranges: dict[str, tuple[float, float]]


def fine_tune(
    net: torch.nn.Module,
    samples: Samples,
    schedule: Schedule,
    *,
    sample: Floats,
    scheme: Scheme,
    seed: int,
    loss: Loss | None = None,
    augment: Augment = PLAIN,
    advance: Advance = unwatched,
) -> QatResult:
    """Trains a copy of `net` with its numbers rounded as in the int8 file of `scheme`; `net` stays as it is.

    `net` has been trained: this is a short training at a small rate. `sample`: (n >= 2, ...) float32, inputs of it.
    `loss`: as `train.run` takes it, such as `ways.loss_of` a teacher, and it may ask of the network nothing but its
    outputs; None stands for cross-entropy with the labels. Weights that are exactly zero, as pruning leaves them, stay
    so. The same inputs give the same weights. Raises CompileError for a network that torch.export does not take, or in
    which nothing is rounded.
    """
    trained = copy.deepcopy(net)
    told = loss or _labels(samples)
    with seeded(seed):  # torchao draws examples for its patterns
        rounded = _rounded(trained, sample, scheme)
    keep_zeros = _zeros_of(rounded)

    def watched(done: float) -> None:
        keep_zeros()
        if done >= SETTLED:
            rounded.settle()
        advance(done)

    run(rounded, samples, told, schedule, seed=seed, augment=augment, advance=watched)
    _carry(rounded, trained)
    return QatResult(trained.eval(), rounded.ranges())


def _rounded(net: torch.nn.Module, sample: Floats, scheme: Scheme) -> Rounded:
    with _quiet_torchao():
        try:
            from model_compiler.learning.qat_capture import Rounded
            from model_compiler.learning.qat_quantizer import FORMS
        except ModuleNotFoundError as error:
            raise CompileError(
                f"Quantization-aware training needs {error.name}: pip install 'foothill[compiler]'."
            ) from error
    return Rounded(net, sample, FORMS[scheme])


@contextmanager
def _quiet_torchao() -> Iterator[None]:
    """On its first import torchao tells of GPU libraries that do not load and of a deprecated call of its own."""
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    before = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for each, level in zip(loggers, before, strict=True):
            each.setLevel(level)


def _labels(samples: Samples) -> Loss:
    labels = labels_of(samples)
    if bool((labels == UNLABELLED).all()):
        raise CompileError(
            "No training sample has a label for quantization-aware training to learn from. "
            "Label some, or let it learn from a teacher."
        )

    def loss(net: torch.nn.Module, inputs: torch.Tensor, rows: Numbers, view: int) -> torch.Tensor:
        return cross_entropy(answer_of(net(inputs)), labels[rows])

    return loss


def _zeros_of(net: torch.nn.Module) -> Callable[[], None]:
    """What sets the weights that are zero now to zero again: what was pruned away stays away."""
    import torch

    weights = [(each, each.detach() == 0) for each in net.parameters() if each.ndim > 1]
    pruned = [(each, zeros) for each, zeros in weights if zeros.any()]

    def keep() -> None:
        with torch.no_grad():
            for each, zeros in pruned:
                each.masked_fill_(zeros, 0.0)

    return keep


def _carry(rounded: Rounded, net: torch.nn.Module) -> None:
    """The trained tensors into `net`, name by name; what takes no part in the forward pass stays as it was."""
    own, state = net.state_dict(), rounded.state()
    lost = sorted(set(state) - set(own))
    if lost:
        raise CompileError(
            f"After quantization-aware training {', '.join(lost)} belong to no part of the network. Register them "
            "as parameters or buffers of a module, or compile without quantization-aware training."
        )
    net.load_state_dict(own | state)
