"""The training loop that every way of learning shares, and plain supervised training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from model_compiler.data.samples import Numbers, Samples
from model_compiler.learning.augment import PLAIN, Augment, View
from model_compiler.progress import Advance, unwatched

if TYPE_CHECKING:
    import torch

    Loss = Callable[[torch.nn.Module, torch.Tensor, Numbers, int], torch.Tensor]
    """(net, inputs, rows, view) -> a scalar; `rows` and `view` say which looks at which samples `inputs` are."""


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One-cycle AdamW: `epochs` over the samples in batches of `batch`, up to the learning rate `peak`.

    `threads`: sums, and so weights, may depend on it; two threads that wait for each other on a busy machine are many
    times slower than one.
    """

    epochs: int
    peak: float
    batch: int = 128
    weight_decay: float = 0.01
    threads: int = 1


def train(
    net: torch.nn.Module,
    samples: Samples,
    schedule: Schedule,
    *,
    seed: int,
    augment: Augment = PLAIN,
    advance: Advance = unwatched,
) -> None:
    """Fits `net` to the labels by cross-entropy and leaves it in eval mode."""
    import torch

    labels = torch.from_numpy(samples.labels.astype(np.int64))

    def loss(net: torch.nn.Module, inputs: torch.Tensor, rows: Numbers, view: int) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(answer_of(net(inputs)), labels[torch.from_numpy(rows)])

    run(net, samples, loss, schedule, seed=seed, augment=augment, advance=advance)


def run(
    net: torch.nn.Module,
    samples: Samples,
    loss: Loss,
    schedule: Schedule,
    *,
    seed: int,
    augment: Augment = PLAIN,
    advance: Advance = unwatched,
) -> None:
    """Minimises `loss` over `samples`, and leaves `net` in eval mode. torch's generator is left as it was."""
    import torch

    steps = max(1, len(samples) // schedule.batch)
    total = schedule.epochs * steps
    optimizer = torch.optim.AdamW(net.parameters(), lr=schedule.peak, weight_decay=schedule.weight_decay)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, schedule.peak, total_steps=total)
    order = np.random.default_rng(seed)
    net.train()
    with threads(schedule.threads), seeded(seed):
        for epoch in range(schedule.epochs):
            number = augment.view_of(epoch)
            view = View(augment, len(samples), number, seed=VIEW_SEED)
            shuffled = order.permutation(len(samples))
            for step in range(steps):
                rows = shuffled[step * schedule.batch : (step + 1) * schedule.batch]
                inputs = view.apply(torch.from_numpy(samples.batch(rows)), rows)
                optimizer.zero_grad(set_to_none=True)
                loss(net, channels_last(inputs), rows, number).backward()
                optimizer.step()
                rate.step()
                advance((epoch * steps + step + 1) / total)
    net.eval()


VIEW_SEED = 0
"""One for all trainings, so that a teacher's remembered answers fit the views that every student sees."""


def answer_of(outputs: Any) -> torch.Tensor:
    """The output that answers, of a network that gives one tensor, or several in order or by name: the first."""
    import torch

    if isinstance(outputs, torch.Tensor):
        return outputs
    tensors = outputs.values() if isinstance(outputs, Mapping) else outputs
    first: torch.Tensor = next(iter(tensors))
    return first


def channels_last(inputs: torch.Tensor) -> torch.Tensor:
    """Pictures in the order of bytes in which CPUs convolve a fifth faster; anything else as it is."""
    import torch

    return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's global generator seeded inside, as it was before after."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch on `count` threads inside, on as many as before after."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
